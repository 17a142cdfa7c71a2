"""TLS that ends at the gateway and is relayed: `terminate.py make|serve|ask DIR [ARGUMENTS]`.

`make` writes certificates (openssl) and the configuration, `serve` runs the endpoints (Python's ssl), `ask VIP CONFIG BYTES`
asks with Python's ssl, openssl and curl, and renews a certificate meanwhile. Prints one JSON line; a row that does not
hold is named and the exit status is 1.
"""
import json, os, socket, ssl, subprocess, sys, threading, time

PART, DIR = sys.argv[1], sys.argv[2]
ENDPOINT = "198.18.2.11"
PLAIN, SEALED, WEB = 9101, 9102, 9103
MIXED, MUTUAL, TCP = 9443, 9444, 9445


def path(name):
    return os.path.join(DIR, name)


def run(*args, **kw):
    return subprocess.run(args, capture_output=True, timeout=60, **kw)


# --- make


def certificate(name, names, usage="serverAuth"):
    key, request, made, ext = (path(f"{name}.{end}") for end in ("key", "csr", "crt", "ext"))
    steps = [["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
              "-subj", f"/CN={name}", "-out", request],
             ["openssl", "x509", "-req", "-in", request, "-CA", path("ca.crt"), "-CAkey", path("ca.key"), "-days", "30",
              "-extfile", ext, "-out", made]]
    alt = ",".join(f"DNS:{it}" for it in names)
    open(ext, "w").write(f"subjectAltName={alt}\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n")
    for step in steps:
        done = run(*step)
        assert done.returncode == 0, done.stderr.decode()


def indent(file, by=4):
    return "".join(" " * by + line for line in open(path(file)))


def secret(name, pair):
    return (f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n"
            + indent(pair + ".crt") + "  tls.key: |\n" + indent(pair + ".key"))


def service(name, port):
    return (f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n---\n"
            f"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, labels: "
            f"{{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{port: {port}}}]\n"
            f"endpoints: [{{addresses: [{ENDPOINT}]}}]\n")


def route(kind, name, section, to, port, hosts=()):
    names = f"  hostnames: [{', '.join(hosts)}]\n" if hosts else ""
    return (f"apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n"
            f"  parentRefs: [{{name: ends, sectionName: {section}}}]\n{names}  rules: [{{backendRefs: [{{name: {to}, port: {port}}}]}}]\n")


def listener(name, port, protocol, hostname="", mode="", cert=""):
    host = f", hostname: {hostname}" if hostname else ""
    refs = f", certificateRefs: [{{name: {cert}}}]" if cert else ""
    tls = f", tls: {{mode: {mode}{refs}}}" if mode else ""
    return f"  - {{name: {name}, port: {port}, protocol: {protocol}{host}{tls}}}\n"


def configuration(pair="site"):
    gateway = ("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: ends}\nspec:\n  gatewayClassName: sluice\n"
               "  addresses: [{type: IPAddress, value: 198.18.0.10}]\n  tls:\n    frontend:\n      default: {}\n      perPort:\n"
               f"      - port: {MUTUAL}\n        tls: {{validation: {{caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}}}\n"
               "  listeners:\n"
               + listener("a", MIXED, "TLS", "a.example", "Terminate", "site")
               + listener("sealed", MIXED, "TLS", "sealed.example", "Terminate", "site")
               + listener("pass", MIXED, "TLS", "pass.example", "Passthrough")
               + listener("none", MIXED, "TLS", "none.web.example", "Passthrough")
               + listener("web", MIXED, "HTTPS", '"*.web.example"', "Terminate", "site")
               + listener("mutual", MUTUAL, "TLS", "", "Terminate", "site")
               + listener("tcp", TCP, "TCP"))
    policy = ("apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {name: sealed}\nspec:\n"
              "  targetRefs: [{group: '', kind: Service, name: sealed}]\n"
              "  validation: {hostname: endpoint.example, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}\n")
    ca = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca}\ndata:\n  ca.crt: |\n" + indent("ca.crt")
    return "---\n".join([
        secret("site", pair), ca, gateway, policy, service("plain", PLAIN), service("sealed", SEALED), service("web", WEB),
        route("TLSRoute", "a", "a", "plain", PLAIN, ["a.example"]),
        route("TLSRoute", "sealed", "sealed", "sealed", SEALED, ["sealed.example"]),
        route("TLSRoute", "pass", "pass", "sealed", SEALED, ["pass.example"]),
        route("HTTPRoute", "web", "web", "web", WEB),
        route("TCPRoute", "mutual", "mutual", "plain", PLAIN),
        route("TCPRoute", "tcp", "tcp", "sealed", SEALED)])


def make():
    os.makedirs(DIR, exist_ok=True)
    done = run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
               "-keyout", path("ca.key"), "-out", path("ca.crt"), "-subj", "/CN=ca")
    assert done.returncode == 0, done.stderr.decode()
    names = ["a.example", "sealed.example", "*.web.example"]
    certificate("site", names)
    certificate("renewed", names)
    certificate("endpoint", ["endpoint.example", "pass.example"])
    certificate("client", ["client.example"], "clientAuth")
    open(path("config.yaml"), "w").write(configuration())


# --- serve


def reflect(sock, hello):
    """Says `hello`, then everything again as it comes, and ends when the other side did."""
    try:
        sock.sendall(hello)
        while piece := sock.recv(65536):
            sock.sendall(piece)
        if isinstance(sock, ssl.SSLSocket):
            sock.unwrap()
        else:
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    finally:
        sock.close()


def serve():
    sealed = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    sealed.load_cert_chain(path("endpoint.crt"), path("endpoint.key"))
    sealed.sni_callback = lambda sock, asked, _: setattr(sock, "asked", asked)

    def plain(sock):
        reflect(sock, b"plain\n")

    def under_tls(sock):
        try:
            sock = sealed.wrap_socket(sock, server_side=True)
        except OSError:
            return
        reflect(sock, f"tls {sock.asked}\n".encode())

    def web(sock):
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nweb")
        sock.close()

    for port, answer in ((PLAIN, plain), (SEALED, under_tls), (WEB, web)):
        listening = socket.create_server((ENDPOINT, port), backlog=64)

        def accept(listening=listening, answer=answer):
            while True:
                sock, _ = listening.accept()
                threading.Thread(target=answer, args=(sock,), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


# --- ask

FAILED, HELD = [], 0


def check(name, holds, seen=""):
    global HELD
    if holds:
        HELD += 1
    else:
        FAILED.append(f"{name}: {seen}")


def ask():
    vip, config, size = sys.argv[3], sys.argv[4], int(sys.argv[5])

    def context(client=False):
        it = ssl.create_default_context(cafile=path("ca.crt"))
        if client:
            it.load_cert_chain(path("client.crt"), path("client.key"))
        return it

    def connect(port, name, client=False):
        sock = socket.create_connection((vip, port), timeout=20)
        return context(client).wrap_socket(sock, server_hostname=name)

    def line(sock):
        got = b""
        while not got.endswith(b"\n"):
            piece = sock.recv(1)
            if not piece:
                raise OSError(f"cut after {got}")
            got += piece
        return got.decode().strip()

    def failure(act):
        try:
            return f"none: {act()}"
        except OSError as error:
            return f"{type(error).__name__} {error}"

    # Who answers which name.
    for name, want in (("a.example", "plain"), ("sealed.example", "tls endpoint.example"), ("pass.example", "tls pass.example")):
        with connect(MIXED, name) as sock:
            check(f"{name} is answered by its endpoint", (told := line(sock)) == want, told)
            sock.sendall(b"again")
            check(f"{name} hears itself", sock.recv(5) == b"again")
    told = run("curl", "-sS", "--cacert", path("ca.crt"), "--resolve", f"x.web.example:{MIXED}:{vip}", f"https://x.web.example:{MIXED}/")
    check("HTTPS goes on beside them", told.stdout == b"web", told.stderr)
    told = run("openssl", "s_client", "-connect", f"{vip}:{MIXED}", "-servername", "a.example", "-CAfile", path("ca.crt"),
               "-verify_return_error", "-alpn", "h2,http/1.1", input=b"")
    text = told.stdout.decode()
    check("openssl agrees on TLS 1.3", "TLSv1.3" in text and "Verify return code: 0" in text, text[-400:])
    check("nothing is agreed on about what is inside", "No ALPN negotiated" in text)
    for name in ("b.example", "none.web.example"):
        seen = failure(lambda: connect(MIXED, name))
        check(f"{name} is nobody's", "none" not in seen.split(":")[0], seen)

    # Client certificates.
    with connect(MUTUAL, "a.example", client=True) as sock:
        check("a client with its certificate is served", (told := line(sock)) == "plain", told)
    seen = failure(lambda: line(connect(MUTUAL, "a.example")))
    check("one without is told why not", "CERTIFICATE_REQUIRED" in seen.upper().replace(" ", "_"), seen)

    # A plain connection, sealed on the way to the endpoint; half-closed.
    with socket.create_connection((vip, TCP), timeout=20) as sock:
        check("TCP reaches an endpoint that speaks TLS", (told := line(sock)) == "tls endpoint.example", told)
        sock.sendall(b"the rest")
        sock.shutdown(socket.SHUT_WR)
        rest = b"".join(iter(lambda: sock.recv(100), b""))
        check("and comes back whole after the FIN", rest == b"the rest", rest)

    # close_notify one way, the answer and close_notify the other.
    sock, inward, outward = socket.create_connection((vip, MIXED), timeout=20), ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context().wrap_bio(inward, outward, server_hostname="a.example")

    def drive(act):
        while True:
            try:
                return act()
            except ssl.SSLWantReadError:
                sock.sendall(outward.read())
                piece = sock.recv(65536)
                inward.write(piece) if piece else inward.write_eof()
    drive(session.do_handshake)
    session.write(b"last words")
    try:
        session.unwrap()
    except ssl.SSLError:
        pass
    sock.sendall(outward.read())
    got = b""
    try:
        while piece := drive(lambda: session.read(100)):
            got += piece
    except ssl.SSLZeroReturnError:
        pass
    except ssl.SSLError as error:
        got += str(error).encode()
    check("what follows a close_notify is the answer and a close_notify", got == b"plain\nlast words", got)

    # Bulk, both ways at once.
    for name in ("a.example", "sealed.example"):
        with connect(MIXED, name) as sock:
            line(sock)
            piece, sent, got = os.urandom(1 << 16), 0, 0
            while got < size:
                while sent < size and sent - got < 8 * len(piece):
                    sock.sendall(piece)
                    sent += len(piece)
                part = sock.recv(len(piece))
                at = got % len(piece)
                if not part or (piece + piece)[at:at + len(part)] != part:
                    break
                got += len(part)
            check(f"{size} bytes go both ways to {name}", got >= size, got)

    # A renewed certificate.
    live = connect(MIXED, "a.example")
    line(live)
    before = live.getpeercert()["serialNumber"]
    open(config + ".new", "w").write(configuration("renewed"))
    os.rename(config + ".new", config)
    until, now = time.time() + 20, before
    while now == before and time.time() < until:
        with connect(MIXED, "a.example") as sock:
            now = sock.getpeercert()["serialNumber"]
    check("a renewed certificate is shown", now != before)
    live.sendall(b"still here")
    check("and an open connection goes on", (told := live.recv(10)) == b"still here", told)
    print(json.dumps({"held": HELD, "failed": FAILED}))
    sys.exit(1 if FAILED else 0)


{"make": make, "serve": serve, "ask": ask}[PART]()
