"""TLS as clients and endpoints meet it: `tls.py SLUICE PART [FACTOR]`.

Makes authorities and certificates with openssl, runs a gateway on loopback and endpoints of its own, and asks with
Python's ssl, openssl and curl. Prints one JSON line; a row that does not hold is named and the exit status is 1.
"""
import concurrent.futures, http.server, json, os, shutil, socket, ssl, subprocess, sys, tempfile, threading, time

SLUICE, PART = sys.argv[1], sys.argv[2]
FACTOR = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
DIR = tempfile.mkdtemp(prefix="sluice-tls-")
PORTS = iter(range(18500, 19500))
FAILED, HELD = [], 0


def check(name, holds, seen=""):
    global HELD
    if holds:
        HELD += 1
    else:
        FAILED.append(f"{name}: {seen}")


def run(*args, **kw):
    done = subprocess.run(args, capture_output=True, timeout=60, **kw)
    if done.returncode:
        raise SystemExit(f"{args}: {done.stderr.decode()}")
    return done.stdout


def path(name):
    return os.path.join(DIR, name)


# --- certificates

CA_CNF = """[ca]
default_ca = it
[it]
database = {d}/index.txt
rand_serial = yes
new_certs_dir = {d}
default_md = sha256
unique_subject = no
policy = any
[any]
commonName = optional
"""
COUNT = 0


class Pair:
    def __init__(self, crt, key, chain=""):
        self.crt, self.key = crt, key
        self.pem = open(crt).read()
        self.full = path(os.path.basename(crt) + ".full")
        open(self.full, "w").write(self.pem + chain)


def make(ca=None, cn="x", ext=(), start="20200101000000Z", end="20991231000000Z", signer_chain=False):
    """A certificate; self-signed without `ca`."""
    global COUNT
    COUNT += 1
    name = path(f"c{COUNT}")
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", name + ".key")
    run("openssl", "req", "-new", "-key", name + ".key", "-subj", f"/CN={cn}", "-out", name + ".csr")
    open(name + ".ext", "w").write("\n".join(["[v3]"] + list(ext)) + "\n")
    work = path(f"db{COUNT}")
    os.mkdir(work)
    open(work + "/index.txt", "w").close()
    open(work + "/cnf", "w").write(CA_CNF.format(d=work))
    by = ["-selfsign", "-keyfile", name + ".key"] if ca is None else ["-cert", ca.crt, "-keyfile", ca.key]
    run("openssl", "ca", "-batch", "-notext", "-config", work + "/cnf", "-in", name + ".csr", "-out", name + ".crt", *by,
        "-startdate", start, "-enddate", end, "-extfile", name + ".ext", "-extensions", "v3")
    return Pair(name + ".crt", name + ".key", open(ca.full).read() if signer_chain else "")


AUTHORITY = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
CLIENT = ["basicConstraints=CA:FALSE", "extendedKeyUsage=clientAuth"]
SERVER = ["basicConstraints=CA:FALSE", "extendedKeyUsage=serverAuth"]


def san(*names):
    """A subjectAltName as bytes: (tag, value); tag 2 is a DNS name, 6 a URI, 7 an address."""
    def length(n):
        return bytes([n]) if n < 128 else (bytes([0x81, n]) if n < 256 else bytes([0x82, n >> 8, n & 255]))
    body = b"".join(bytes([0x80 | tag]) + length(len(v)) + v for tag, v in names)
    return "subjectAltName=DER:" + (b"\x30" + length(len(body)) + body).hex(":")


# --- endpoints


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        peer = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        told = {"headers": {k.lower(): v for k, v in self.headers.items()}, "name": self.server.name,
                "sni": getattr(self.connection, "asked", None), "peer": str((peer or {}).get("subject"))}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


def endpoint(name, pair=None, clients=None):
    """An HTTP/1.1 server, with TLS if it has a certificate; its port."""
    port = next(PORTS)
    server = Server(("127.0.0.1", port), Answer)
    server.name = name
    if pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.full, pair.key)
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients.crt)
        context.sni_callback = lambda sock, asked, _: setattr(sock, "asked", asked)
        wrap = server.get_request

        def get_request():
            sock, addr = wrap()
            sock.settimeout(5)
            return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), addr
        server.get_request = get_request
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return port


# --- configuration

DOCS = []


def doc(text):
    DOCS.append(text)


def indent(text, by):
    return "".join(" " * by + line + "\n" for line in text.strip().split("\n"))


def secret(name, pair):
    doc(f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n"
        + indent(open(pair.full).read(), 4) + "  tls.key: |\n" + indent(open(pair.key).read(), 4))


def authorities(name, *pairs):
    doc(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  ca.crt: |\n"
        + indent("".join(p.pem for p in pairs), 4))


def service(name, port, app=""):
    doc(f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80{app}}}]}}")
    doc(f"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, labels: "
        f"{{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{port: {port}}}]\n"
        "endpoints: [{addresses: [127.0.0.1]}]")


def route(name, gateway, section, to, host=None, kind="HTTPRoute", path_=None):
    hosts = f"  hostnames: [{host}]\n" if host else ""
    match = f"    matches: [{{path: {{type: PathPrefix, value: {path_}}}}}]\n" if path_ else ""
    doc(f"apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n"
        f"  parentRefs: [{{name: {gateway}, sectionName: {section}}}]\n{hosts}  rules:\n"
        f"  - backendRefs: [{{name: {to}, port: 80}}]\n{match}")


class Gateway:
    all = []

    def __init__(self, *more):
        self.config, self.log = path("config.yaml"), path("gateway.log")
        self.write()
        self.admin = next(PORTS)
        self.process = subprocess.Popen(
            [SLUICE, "run", "-f", self.config, "--datapath=off", f"--admin=127.0.0.1:{self.admin}", "--set=accessLog=off",
             *more], stdout=open(self.log, "w"), stderr=subprocess.STDOUT)
        Gateway.all.append(self)
        until = time.time() + 20
        while True:
            try:
                self.get("/ready")
                return
            except OSError:
                if time.time() > until or self.process.poll() is not None:
                    raise SystemExit("the gateway is not ready:\n" + open(self.log).read())
                time.sleep(0.02)

    def write(self):
        open(self.config + ".new", "w").write("\n---\n".join(DOCS))
        os.rename(self.config + ".new", self.config)

    def get(self, where):
        sock = socket.create_connection(("127.0.0.1", self.admin), timeout=5)
        sock.sendall(f"GET {where} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        data = b""
        while piece := sock.recv(65536):
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0] + b" ":
            raise OSError(head)
        if b"transfer-encoding: chunked" in head.lower():
            out = b""
            while body:
                size, _, body = body.partition(b"\r\n")
                out += body[:int(size, 16)]
                body = body[int(size, 16) + 2:]
            body = out
        return body.decode()


# --- clients


def context(pair=None, version=None, alpn=("http/1.1",)):
    it = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    it.check_hostname, it.verify_mode = False, ssl.CERT_NONE
    if pair:
        it.load_cert_chain(pair.full, pair.key)
    if version:
        it.minimum_version = it.maximum_version = version
    it.set_alpn_protocols(list(alpn))
    return it


def ask(port, sni, it, host=None, session=None, fields=""):
    """Status, what the endpoint told, and the connection's session; status 0 when there is no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
            with it.wrap_socket(raw, server_hostname=sni, session=session) as sock:
                sock.sendall(f"GET / HTTP/1.1\r\nhost: {host or sni}\r\n{fields}\r\n".encode())
                data = b""
                while b"\r\n\r\n" not in data:
                    piece = sock.recv(65536)
                    if not piece:
                        return 0, {}, None, False
                    data += piece
                head, _, body = data.partition(b"\r\n\r\n")
                status = int(head.split()[1])
                size = next(int(l.split(b":")[1]) for l in head.lower().split(b"\r\n") if l.startswith(b"content-length"))
                while len(body) < size:
                    body += sock.recv(65536)
                return status, json.loads(body) if status == 200 else {}, sock.session, sock.session_reused
    except (OSError, ssl.SSLError) as error:
        return 0, {"error": str(error)}, None, False


V2, V3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def plain(port, host, fields=""):
    sock = socket.create_connection(("127.0.0.1", port), timeout=8)
    sock.sendall(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{fields}\r\n".encode())
    data = b""
    while piece := sock.recv(65536):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


# --- parts


def clients():
    """Who gets in with which certificate, what endpoints are told, and whose request is misdirected."""
    ca, cb = make(cn="ca", ext=AUTHORITY), make(cn="cb", ext=AUTHORITY)
    site = make(ca, "site", SERVER + [san((2, b"*.example.com"), (2, b"example.org"))])
    names = [san((6, b"spiffe://example.com/ns/a/sa/b"), (2, b"client.example.com"))]
    good = make(ca, "good", CLIENT + names)
    middle = make(ca, "middle", AUTHORITY)
    deep = ca
    for n in range(9):
        deep = make(deep, f"deep{n}", AUTHORITY, signer_chain=n > 0)
    leafed = make(ca, "leaf", CLIENT)
    narrow = make(ca, "narrow", AUTHORITY + ["nameConstraints=critical,permitted;DNS:inside.example"])
    old_middle = make(ca, "old", AUTHORITY, end="20210101000000Z")
    via = make(middle, "via", CLIENT, signer_chain=True)
    bad = {
        "no certificate": None,
        "expired": make(ca, "good", CLIENT, end="20210101000000Z"),
        "not valid yet": make(ca, "good", CLIENT, start="20980101000000Z"),
        "of another authority": make(cb, "good", CLIENT),
        "self-signed with the right subject": make(None, "good", CLIENT),
        "self-signed with the authority's subject": make(None, "ca", AUTHORITY),
        "for servers only": make(ca, "good", SERVER),
        "for signing code only": make(ca, "good", ["basicConstraints=CA:FALSE", "extendedKeyUsage=codeSigning"]),
        "by an authority that has expired": make(old_middle, "good", CLIENT, signer_chain=True),
        "with its chain left out": make(middle, "good", CLIENT),
        "by somebody who is no authority": make(leafed, "good", CLIENT, signer_chain=True),
        "at the end of a chain that is too long": make(deep, "good", CLIENT, signer_chain=True),
        "outside of its authority's names": make(narrow, "good", CLIENT + [san((2, b"outside.example"))], signer_chain=True),
    }
    here = endpoint("here")
    open_, required, optional, insecure, mixed, newest, many = (next(PORTS) for _ in range(7))
    secret("site", site)
    authorities("ca", ca)
    authorities("cb", cb)
    service("here", here)
    validation = "{{validation: {{{}caCertificateRefs: [{{group: '', kind: ConfigMap, name: {}}}]}}}}".format
    tls = "tls: {certificateRefs: [{name: site}]}"

    def gateway(name, default, per_port, listeners):
        doc(f"apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\nspec:\n"
            "  gatewayClassName: sluice\n  addresses: [{type: IPAddress, value: 127.0.0.1}]\n"
            f"  tls: {{frontend: {{default: {default}, perPort: [{', '.join(f'{{port: {p}, tls: {t}}}' for p, t in per_port)}]}}}}\n"
            "  listeners:\n" + "".join(f"  - {l}\n" for l in listeners))
        for line in listeners:
            section = line.split("name: ")[1].split(",")[0]
            route(f"{name}-{section}", name, section, "here")
    gateway("a", validation("", "ca"),
            [(open_, "{}"), (insecure, validation("mode: AllowInsecureFallback, ", "ca")), (mixed, "{}"), (newest, "{}"), (many, "{}")],
            [f"{{name: open, port: {open_}, protocol: HTTPS, {tls}}}",
             f"{{name: required, port: {required}, protocol: HTTPS, {tls}}}",
             f"{{name: optional, port: {optional}, protocol: HTTPS, tls: {{certificateRefs: [{{name: site}}], options: {{sluice.dev/client-certificate: optional}}}}}}",
             f"{{name: insecure, port: {insecure}, protocol: HTTPS, {tls}}}",
             f"{{name: lax, hostname: lax.example.com, port: {mixed}, protocol: HTTPS, {tls}}}",
             f"{{name: newest, port: {newest}, protocol: HTTPS, tls: {{certificateRefs: [{{name: site}}], options: {{sluice.dev/tls-min-version: '1.3', sluice.dev/tls-cipher-suites: TLS_AES_256_GCM_SHA384}}}}}}",
             f"{{name: any, port: {many}, protocol: HTTPS, {tls}}}",
             f"{{name: second, hostname: second-example.org, port: {many}, protocol: HTTPS, {tls}}}",
             f"{{name: wild, hostname: '*.wildcard.org', port: {many}, protocol: HTTPS, {tls}}}",
             f"{{name: fourth, hostname: fourth.wildcard.org, port: {many}, protocol: HTTPS, {tls}}}"])
    gateway("b", validation("", "ca"), [], [f"{{name: strict, hostname: strict.example.com, port: {mixed}, protocol: HTTPS, {tls}}}"])
    gateway("c", validation("", "cb"), [], [f"{{name: other, hostname: other.example.com, port: {mixed}, protocol: HTTPS, {tls}}}"])
    it = Gateway()
    accepted = 0
    for version in (V2, V3):
        for name, pair in bad.items():
            status, told, _, _ = ask(required, "a.example.com", context(pair, version))
            check(f"{name} is refused ({version.name})", status == 0, (status, told))
            accepted += status != 0
            status, told, _, _ = ask(optional, "a.example.com", context(pair, version))
            want = 200 if pair is None else 0
            check(f"{name} where it is optional ({version.name})", status == want, (status, told))
            status, told, _, _ = ask(insecure, "a.example.com", context(pair, version))
            known = told.get("headers", {}).get("x-forwarded-client-cert")
            check(f"{name} is served without identity where nobody checks ({version.name})", (status, known) == (200, None), (status, told))
        forged = "x-forwarded-client-cert: Hash=00;URI=spiffe://forged\r\nX-Forwarded-Client-Cert: By=me\r\n"
        for port in (required, optional, insecure):
            status, told, _, _ = ask(port, "a.example.com", context(good, version), fields=forged)
            field = told.get("headers", {}).get("x-forwarded-client-cert", "")
            digest = run("openssl", "x509", "-in", good.crt, "-noout", "-fingerprint", "-sha256").decode().split("=")[1].strip().replace(":", "").lower()
            expected = f'Hash={digest};Subject="CN=good";URI=spiffe://example.com/ns/a/sa/b;DNS=client.example.com'
            check(f"a good one is told as it is ({version.name})", field == expected, (status, field))
        status, told, _, _ = ask(open_, "a.example.com", context(good, version), fields=forged)
        check("what a client says of its certificate never passes", (status, told.get("headers", {}).get("x-forwarded-client-cert")) == (200, None), told)
        status, _, _, _ = ask(required, "a.example.com", context(via, version))
        check("a chain over an intermediate is good", status == 200, status)
        # Tickets of listeners that did not ask.
        for port, name in ((open_, "open"), (optional, "optional"), (insecure, "insecure")):
            client = context(None, version)
            status, _, session, _ = ask(port, "a.example.com", client)
            _, _, _, again = ask(port, "a.example.com", client, session=session)
            check(f"a ticket of the {name} listener is good there ({version.name})", again, status)
            status, told, _, reused = ask(required, "a.example.com", client, session=session)
            check(f"a ticket of the {name} listener opens nothing else ({version.name})", status == 0 and not reused, (status, told))
            accepted += status != 0
        client = context(good, version)
        _, _, session, _ = ask(required, "a.example.com", client)
        status, told, _, reused = ask(required, "a.example.com", client, session=session)
        check(f"a resumed client is still known ({version.name})", reused and "Hash=" in told.get("headers", {}).get("x-forwarded-client-cert", ""), (status, reused, told))
        # Several listeners of one port.
        for sni, pair, host, want in [("lax.example.com", None, None, 200), ("strict.example.com", None, None, 0),
                                      ("strict.example.com", good, None, 200), ("lax.example.com", None, "strict.example.com", 421),
                                      ("lax.example.com", good, "strict.example.com", 421), ("other.example.com", good, None, 0),
                                      ("other.example.com", bad["of another authority"], None, 200),
                                      ("strict.example.com", bad["of another authority"], None, 0),
                                      ("other.example.com", bad["of another authority"], "strict.example.com", 421),
                                      ("nobody.example.net", None, None, 0), ("STRICT.example.com", None, None, 0)]:
            status, told, _, _ = ask(mixed, sni, context(pair, version), host=host)
            check(f"{sni} with {'a' if pair else 'no'} certificate asks for {host or sni} ({version.name})", status == want, (status, told))
        client = context(None, version)
        _, _, session, _ = ask(mixed, "lax.example.com", client)
        status, told, _, reused = ask(mixed, "strict.example.com", client, session=session)
        check(f"a ticket of one name opens no other ({version.name})", status == 0 and not reused, (status, told))
        status, told, _, _ = ask(mixed, None, context(None, version), host="strict.example.com")
        check(f"without a name nobody passes for another ({version.name})", status in (0, 421), (status, told))
        # Versions and suites.
        status, _, _, _ = ask(newest, "a.example.com", context(None, version))
        check(f"the least version holds ({version.name})", (status == 200) == (version == V3), status)
    # GEP-3567, the conformance suite's own table.
    for sni, host, want in [("example.org", "example.org", 200), ("example.org", "second-example.org", 421), ("example.org", "unknown-example.org", 200),
                            ("second-example.org", "second-example.org", 200), ("second-example.org", "example.org", 421),
                            ("second-example.org", "unknown-example.org", 421), ("third.wildcard.org", "third.wildcard.org", 200),
                            ("third.wildcard.org", "fifth.wildcard.org", 200), ("third.wildcard.org", "fourth.wildcard.org", 421),
                            ("third.wildcard.org", "second-example.org", 421), ("fourth.wildcard.org", "fourth.wildcard.org", 200),
                            ("fourth.wildcard.org", "fifth.wildcard.org", 421), ("unknown-example.org", "example.org", 200),
                            (None, "example.org", 200), (None, "second-example.org", 421)]:
        status, told, _, _ = ask(many, sni, context(), host=host)
        check(f"on a connection for {sni} asks for {host}", status == want, (status, told))
    coalesced = run("curl", "-sk", "-m", "10", "-o", "/dev/null", "-w", "%{http_code} %{http_version} ", "--resolve", f"third.wildcard.org:{many}:127.0.0.1",
                    "-H", "host: fourth.wildcard.org", f"https://third.wildcard.org:{many}/").decode()
    check("the same over HTTP/2", coalesced == "421 2 ", coalesced)
    # The admin knows who is there.
    raw = socket.create_connection(("127.0.0.1", required), timeout=5)
    held = context(good).wrap_socket(raw, server_hostname="a.example.com")
    held.sendall(b"GET / HTTP/1.1\r\nhost: a.example.com\r\n\r\n")
    held.recv(65536)
    seen = [c for c in json.loads(it.get("/api/v1/connections"))["items"] if c.get("identity")]
    check("the admin shows whose connection it is", [(c["identity"], c["serverName"]) for c in seen] == [("spiffe://example.com/ns/a/sa/b", "a.example.com")], seen)
    # Old protocols, early data, renegotiation: openssl's own word.
    def s_client(*args, text=b""):
        return subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{open_}", "-servername", "a.example.com", *args],
                              input=text, capture_output=True, timeout=20)
    for old in ("-tls1", "-tls1_1"):
        done = s_client(old, "-cipher", "ALL:@SECLEVEL=0")
        check(f"{old} is refused", b"Cipher is (NONE)" in done.stdout, done.stdout[-300:])
    sess = path("session")
    s_client("-tls1_3", "-sess_out", sess, "-ign_eof", text=b"GET / HTTP/1.1\r\nhost: a.example.com\r\nconnection: close\r\n\r\n")
    open(path("early"), "w").write("GET / HTTP/1.1\r\nhost: a.example.com\r\nconnection: close\r\n\r\n")
    done = s_client("-tls1_3", "-sess_in", sess, "-early_data", path("early"))
    check("early data is off", b"Early data was accepted" not in done.stdout, done.stdout[-300:])
    done = s_client("-alpn", "h2,http/1.1")
    check("ALPN prefers h2", b"ALPN protocol: h2" in done.stdout, done.stdout[-300:])
    return {"accepted": accepted, "pid": it}


def upstream():
    """Which endpoints are believed, what they are asked and shown, and what a client hears when they are not."""
    ca, cb = make(cn="ca", ext=AUTHORITY), make(cn="cb", ext=AUTHORITY)
    mine = make(ca, "gateway", CLIENT)
    authorities("ca", ca)
    secret("mine", mine)
    http_, asked = next(PORTS), next(PORTS)
    for name, port, extra in (("gw", http_, ""), ("me", asked, "  tls: {backend: {clientCertificateRef: {name: mine}}}\n")):
        doc(f"apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\nspec:\n  gatewayClassName: sluice\n"
            f"  addresses: [{{type: IPAddress, value: 127.0.0.1}}]\n{extra}  listeners: [{{name: it, port: {port}, protocol: HTTP}}]")
    name = b"a.example.com"
    host, uri = "", b"spiffe://example.com/ns/a/sa/b"
    sans = lambda *all_: ", subjectAltNames: [" + ", ".join(all_) + "]"
    is_uri, is_host = "{{type: URI, uri: '{}'}}".format, "{{type: Hostname, hostname: '{}'}}".format
    server = lambda *names, by=ca, **kw: make(by, kw.pop("cn", "x"), SERVER + ([san(*names)] if names else []), **kw)
    rows = [
        ("exact", server((2, name)), host, 200), ("another case", server((2, b"A.Example.COM")), host, 200),
        ("a wildcard", server((2, b"*.example.com")), host, 200), ("among others", server((2, b"b.example.com"), (2, name)), host, 200),
        ("two wildcards", server((2, b"*.*.com")), host, 503), ("part of a label", server((2, b"a*.example.com")), host, 503),
        ("part of a label behind", server((2, b"*a.example.com")), host, 503), ("a wildcard too high", server((2, b"*.com")), host, 503),
        ("a lone wildcard", server((2, b"*")), host, 503), ("another name", server((2, b"b.example.com")), host, 503),
        ("a suffix", server((2, b"example.com")), host, 503), ("a name below", server((2, b"x.a.example.com")), host, 503),
        ("cut by a NUL", server((2, b"a.example.com\0.evil.example")), host, 503), ("a NUL in front", server((2, b"\0a.example.com")), host, 503),
        ("only as common name", server(cn="a.example.com"), host, 503), ("only as URI", server((6, b"https://a.example.com")), host, 503),
        ("an address", server((7, b"\x7f\0\0\1")), host, 503), ("a space behind", server((2, b"a.example.com ")), host, 503),
        ("the last of a thousand", server(*[(2, b"n%d.example.com" % n) for n in range(1000)], (2, name)), host, 200),
        ("none of a thousand", server(*[(2, b"n%d.example.com" % n) for n in range(1000)]), host, 503),
        ("URI", server((6, uri)), sans(is_uri(uri.decode())), 200), ("URI in another case", server((6, uri.upper())), sans(is_uri(uri.decode())), 503),
        ("URI cut by a NUL", server((6, uri + b"\0x")), sans(is_uri(uri.decode())), 503), ("URI and more", server((6, uri + b"/x")), sans(is_uri(uri.decode())), 503),
        ("URI as DNS name", server((2, uri)), sans(is_uri(uri.decode())), 503), ("one of two names", server((2, b"z.example.com")), sans(is_uri("x:y"), is_host("z.example.com")), 200),
        ("the hostname does not count beside names", server((2, name)), sans(is_host("z.example.com")), 503),
        ("a wildcard asked for", server((2, b"*.example.com")), sans(is_host("*.example.com")), 200),
        ("a wildcard asked for, an instance shown", server((2, name)), sans(is_host("*.example.com")), 503),
        ("another authority", server((2, name), by=cb), host, 503), ("self-signed", make(None, "x", SERVER + [san((2, name))]), host, 503),
        ("expired", server((2, name), end="20210101000000Z"), host, 503), ("not valid yet", server((2, name), start="20980101000000Z"), host, 503),
        ("for clients only", make(ca, "x", CLIENT + [san((2, name))]), host, 503), ("no TLS at all", None, host, 503),
    ]
    for n, (_, pair, more, _) in enumerate(rows):
        service(f"s{n}", endpoint(f"s{n}", pair))
        doc(f"apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: p{n}}}\nspec:\n"
            f"  targetRefs: [{{group: '', kind: Service, name: s{n}}}]\n"
            f"  validation: {{caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}], hostname: a.example.com{more}}}")
        route(f"r{n}", "gw", "it", f"s{n}", host=f"h{n}.example")
    policy = ("apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: {0}}}\nspec:\n"
              "  targetRefs: [{{group: '', kind: Service, name: {0}}}]\n  validation: {{{1}, hostname: a.example.com}}").format
    refs = "caCertificateRefs: [{{group: '', kind: ConfigMap, name: {}}}]".format
    for which, certificate, clients_, trust in (("system", rows[0][1], None, "wellKnownCACertificates: System"), ("missing", rows[0][1], None, refs("nowhere")),
                                                ("asks", rows[0][1], ca, refs("ca"))):
        service(which, endpoint(which, certificate, clients_))
        doc(policy(which, trust))
        route(which, "gw", "it", which, host=f"{which}.example")
        route(which + "-me", "me", "it", which, host=f"{which}.example")
    # HTTP/2 over TLS to an endpoint, and ALPN.
    h2 = next(PORTS)
    nghttpd = subprocess.Popen(["nghttpd", str(h2), rows[0][1].key, rows[0][1].full], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=DIR)
    open(path("hello.txt"), "w").write("hello")
    service("h2", h2, ", appProtocol: kubernetes.io/h2c")
    doc(policy("h2", refs("ca")))
    route("h2", "gw", "it", "h2", host="second.example")
    it = Gateway()
    try:
        for n, (what, _, _, want) in enumerate(rows):
            status, body = plain(http_, f"h{n}.example")
            check(f"a certificate that is {what}", status == want, (status, body[:200]))
        _, body = plain(http_, "h0.example")
        told = json.loads(body)
        check("the endpoint is asked for the policy's hostname", told["sni"] == "a.example.com", told)
        check("the host of the request stays", told["headers"]["host"] == "h0.example", told)
        for host_, want in (("system.example", 503), ("missing.example", 500), ("asks.example", 503)):
            status, _ = plain(http_, host_)
            check(f"{host_} fails and is not spoken to in plain text", status == want, status)
        status, body = plain(asked, "asks.example")
        check("the Gateway's certificate is shown to an endpoint that asks", status == 200 and b"gateway" in body, (status, body[:200]))
        sock = socket.create_connection(("127.0.0.1", http_), timeout=5)
        sock.sendall(b"GET /hello.txt HTTP/1.1\r\nhost: second.example\r\nconnection: close\r\n\r\n")
        data = b""
        while piece := sock.recv(65536):
            data += piece
        check("HTTP/2 is spoken over TLS where the Service says so", b" 200 " in data and data.endswith(b"hello"), data[:300])
        # Turned on under load, no request goes in plain text or fails.
        stats = it.get("/stats")
        check("handshakes with endpoints are counted", any("upstream" in l and "handshake" in l for l in stats.split("\n")), "no such metric")
        check("the log says why", "NotValidForName" in open(it.log).read() or "UnknownIssuer" in open(it.log).read(), open(it.log).read()[-500:])
    finally:
        nghttpd.kill()
        nghttpd.wait()
    return {"rows": len(rows), "pid": it}


def rotation():
    """A certificate on disk is replaced again and again under handshakes; a stream lives through it."""
    rotations, rate, pause = int(100 * FACTOR), 200, 0.1
    ca = make(cn="ca", ext=AUTHORITY)
    pairs = [make(ca, f"site{n}", SERVER + [san((2, b"a.example.com"))]) for n in range(4)]
    crt, key = path("live.crt"), path("live.key")

    def put(certificate, private):
        for source, target in ((certificate, crt), (private, key)):
            shutil.copy(source, target + ".new")
            os.rename(target + ".new", target)
    put(pairs[0].full, pairs[0].key)
    port = next(PORTS)
    doc(f"apiVersion: sluice.dev/v1alpha1\nkind: CertificateFile\nmetadata: {{name: site}}\ncertFile: {crt}\nkeyFile: {key}")
    doc("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n  gatewayClassName: sluice\n"
        "  addresses: [{type: IPAddress, value: 127.0.0.1}]\n"
        f"  listeners: [{{name: it, port: {port}, protocol: HTTPS, tls: {{certificateRefs: [{{group: sluice.dev, kind: CertificateFile, name: site}}]}}}}]")
    service("here", endpoint("here"))
    route("here", "gw", "it", "here")
    it = Gateway()

    def shown():
        with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
            with context().wrap_socket(raw, server_hostname="a.example.com") as sock:
                return ssl.DER_cert_to_PEM_cert(sock.getpeercert(True)).strip()
    stop, failures, done, slowest = threading.Event(), [], [0], [0.0]
    client = context()

    def shake():
        began = time.time()
        status, told, _, _ = ask(port, "a.example.com", client)
        done[0] += 1
        slowest[0] = max(slowest[0], time.time() - began)
        if status != 200:
            failures.append((status, told))
    pool = concurrent.futures.ThreadPoolExecutor(16)

    def load():
        due = time.time()
        while not stop.is_set():
            pool.submit(shake)
            due += 1 / rate
            time.sleep(max(0, due - time.time()))
    held = context().wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=5), server_hostname="a.example.com")

    def still():
        held.sendall(b"GET / HTTP/1.1\r\nhost: a.example.com\r\n\r\n")
        data = b""
        while not data.endswith(b"}"):
            piece = held.recv(65536)
            if not piece:
                return False
            data += piece
        return data.startswith(b"HTTP/1.1 200")
    check("the held connection works", still())
    thread = threading.Thread(target=load)
    thread.start()
    began = time.time()
    for n in range(rotations):
        pair = pairs[(n + 1) % len(pairs)]
        put(pair.full, pair.key)
        time.sleep(pause)
    stop.set()
    thread.join()
    pool.shutdown(wait=True)
    seconds = time.time() - began
    check("no handshake fails", not failures, failures[:3])
    check("the held connection lives on", still())
    lags = []
    for n in range(5):
        pair = pairs[n % len(pairs)]
        put(pair.full, pair.key)
        at = time.time()
        while shown() != pair.pem.strip() and time.time() - at < 5:
            time.sleep(0.01)
        lags.append(time.time() - at)
    check("a new certificate is served soon", max(lags) <= 4, lags)
    last = pairs[4 % len(pairs)]
    expired = make(ca, "late", SERVER + [san((2, b"a.example.com"))], end="20210101000000Z")
    for what, certificate, private, word in (("mismatched", pairs[1].full, pairs[2].key, "does not belong"), ("expired", expired.full, expired.key, "expired"),
                                             ("broken", "/etc/hostname", pairs[1].key, "stays in use")):
        put(certificate, private)
        until, told = time.time() + 10, ""
        while word not in told and time.time() < until:
            told = " ".join(json.loads(it.get("/api/v1/status"))["diagnostics"])
            time.sleep(0.02)
        check(f"a {what} pair is told", word in told, told)
        check(f"a {what} pair leaves the old one in place", shown() == last.pem.strip())
    put(pairs[1].full, pairs[1].key)
    time.sleep(1)
    check("a good one takes over again", shown() == pairs[1].pem.strip())
    certs = it.get("/certs")
    check("/certs says until when", "expiration_time" in certs and "2099-12-31" in certs, certs)
    check("so does a metric", "sluice_certificate_expiry" in it.get("/stats/prometheus"), "no such metric")
    return {"rotations": rotations, "handshakes": done[0], "failedHandshakes": len(failures), "perSecond": round(done[0] / seconds),
            "slowestMs": round(slowest[0] * 1000), "servedAfterMs": round(max(lags) * 1000), "pid": it}


def hello():
    """ClientHellos in every shape: routed by their name or closed, whether TLS ends here or passes through."""
    ca = make(cn="ca", ext=AUTHORITY)
    pair = make(ca, "site", SERVER + [san((2, b"*.example.com"))])
    secret("site", pair)
    authorities("ca", ca)
    service("here", endpoint("here"))
    service("tls", endpoint("tls", pair))
    ends, passes = next(PORTS), next(PORTS)
    tls = "tls: {certificateRefs: [{name: site}]}"
    doc("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n  gatewayClassName: sluice\n"
        "  addresses: [{type: IPAddress, value: 127.0.0.1}]\n  listeners:\n"
        f"  - {{name: one, hostname: a.example.com, port: {ends}, protocol: HTTPS, {tls}}}\n"
        f"  - {{name: two, hostname: b.example.com, port: {ends}, protocol: HTTPS, tls: {{certificateRefs: [{{name: site}}], options: {{sluice.dev/tls-min-version: '1.3'}}}}}}\n"
        f"  - {{name: pass, port: {passes}, protocol: TLS, tls: {{mode: Passthrough}}}}")
    route("one", "gw", "one", "here")
    route("two", "gw", "two", "here")
    route("pass", "gw", "pass", "tls", host="a.example.com", kind="TLSRoute")
    it = Gateway()

    def record(name):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        sock = context().wrap_bio(incoming, outgoing, server_hostname=name)
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return outgoing.read()

    def rebuilt(name, change):
        """The hello with its list of (type, data) extensions changed."""
        body = record(name)[9:]
        at = 34
        at += 1 + body[at]
        at += 2 + int.from_bytes(body[at:at + 2], "big")
        at += 1 + body[at]
        rest, extensions = body[at + 2:], []
        while rest:
            size = int.from_bytes(rest[2:4], "big")
            extensions.append((rest[:2], rest[4:4 + size]))
            rest = rest[4 + size:]
        data = b"".join(kind + len(v).to_bytes(2, "big") + v for kind, v in change(extensions))
        message = body[:at] + len(data).to_bytes(2, "big") + data
        message = b"\1" + len(message).to_bytes(3, "big") + message
        return b"".join(b"\x16\3\1" + len(message[n:n + 16000]).to_bytes(2, "big") + message[n:n + 16000] for n in range(0, len(message), 16000))

    def sni(*names):
        entries = b"".join(b"\0" + len(n).to_bytes(2, "big") + n for n in names)
        return b"\0\0", len(entries).to_bytes(2, "big") + entries

    def named(*names):
        return lambda extensions: [sni(*names)] + [e for e in extensions if e[0] != b"\0\0"]
    grease = lambda es: [(b"\x0a\x0a", b"")] + es[:1] + [(b"\xfe\x0d", bytes.fromhex("0000010001ff0020") + os.urandom(32) + b"\0\x90" + os.urandom(144))] + es[1:] + [(b"\xfa\xfa", b"\0")]
    huge = lambda size: lambda es: es + [(b"\x5a\x5a", bytes(size))]
    shapes = [("whole", record("a.example.com"), True), ("GREASE and ECH", rebuilt("a.example.com", grease), True),
              ("of 12 KiB", rebuilt("a.example.com", huge(12_000)), True), ("beyond 16 KiB", rebuilt("a.example.com", huge(20_000)), False),
              ("without a name", rebuilt("a.example.com", lambda es: es[1:] if es[0][0] == b"\0\0" else [e for e in es if e[0] != b"\0\0"]), None),
              ("with an address for a name", rebuilt("a.example.com", named(b"127.0.0.1")), False),
              ("with a NUL in its name", rebuilt("a.example.com", named(b"a.example.com\0.evil.example")), False),
              ("with 255 bytes of name", rebuilt("a.example.com", named(b"a" * 255)), False), ("with two names", rebuilt("a.example.com", named(b"a.example.com", b"b.example.com")), False),
              ("with two lists of names", rebuilt("a.example.com", lambda es: [sni(b"a.example.com"), *es]), False),
              ("with an empty name", rebuilt("a.example.com", named(b"")), False), ("for nobody", rebuilt("a.example.com", named(b"z.example.com")), False),
              ("in capitals", rebuilt("a.example.com", named(b"A.EXAMPLE.COM")), True), ("of another protocol", b"GET / HTTP/1.1\r\nhost: a.example.com\r\n\r\n", False),
              ("of SSL 2", bytes.fromhex("802e0100020015000000100700c0") + bytes(34), False)]

    def answered(port, pieces):
        with socket.create_connection(("127.0.0.1", port), timeout=4) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for piece in pieces:
                    sock.sendall(piece)
                return sock.recv(5)[:1] == b"\x16"
            except OSError:
                return False
    for where, port in (("where TLS ends", ends), ("where it passes", passes)):
        for what, data, want in shapes:
            got = answered(port, [data])
            # Without a name the last listener answers where TLS ends, and no route does where it passes.
            check(f"a hello {what} {where}", got == (port == ends if want is None else want), got)
            if want and len(data) < 1000:
                check(f"a hello {what} {where} byte by byte", answered(port, [data[n:n + 1] for n in range(len(data))]))
        data = record("a.example.com")
        for cut in (1, 3, 40, len(data) - 6):
            split = b"\x16\3\1" + cut.to_bytes(2, "big") + data[5:5 + cut] + b"\x16\3\1" + (len(data) - 5 - cut).to_bytes(2, "big") + data[5 + cut:]
            check(f"a hello in two records at {cut} {where}", answered(port, [split]))
        began = time.time()
        sock = socket.create_connection(("127.0.0.1", port), timeout=15)
        sock.sendall(data[:20])
        try:
            end = sock.recv(1) if FACTOR >= 1 else b""
        except ConnectionResetError:
            end = b""
        check(f"half a hello is waited for, but not for ever {where}", FACTOR < 1 or (end == b"" and time.time() - began < 12), time.time() - began)
    for version, name, want in ((V2, "a.example.com", 200), (V2, "b.example.com", 0), (V3, "b.example.com", 200)):
        status, told, _, _ = ask(ends, name, context(None, version))
        check(f"{name} speaks {version.name} or not", status == want, (status, told))
    status, told, _, _ = ask(passes, "a.example.com", context())
    check("what passes through is answered by the endpoint itself", told.get("name") == "tls", (status, told))
    check("the gateway is still there", it.process.poll() is None)
    return {"pid": it}


result = {}
try:
    result = {"clients": clients, "upstream": upstream, "rotation": rotation, "hello": hello}[PART]()
    result.pop("pid")
finally:
    for it in Gateway.all:
        it.process.terminate()
        it.process.wait(timeout=60)
        if os.environ.get("TLS_LOG"):
            print(open(it.log).read(), file=sys.stderr)
    shutil.rmtree(DIR, ignore_errors=True)
print(json.dumps({"part": PART, "held": HELD, "failed": FAILED, **result}))
sys.exit(1 if FAILED else 0)
