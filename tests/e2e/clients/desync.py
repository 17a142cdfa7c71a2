"""desync.py SLUICE FIXTURES DIRECTORY: the tables of HTTP/1.1 and of paths over real sockets, to a real nginx and a real
Python server. Everything runs on the loopback of the namespace this is started in."""
import http.client, http.server, json, os, posixpath, re, signal, socket, subprocess, sys, threading, time
from urllib.parse import unquote

sluice, fixtures, directory = sys.argv[1:4]
os.makedirs(directory, exist_ok=True)
NGINX, PYTHON, GUARD = 9001, 9002, 9003
# Listeners: three kinds of guarding routes before each of two servers.
KINDS = {"exact": ("Exact", "/admin"), "prefix": ("PathPrefix", "/admin"), "regex": ("RegularExpression", "/admin(/.*)?")}
PORTS = {(kind, server): 8001 + 10 * at + server - NGINX for at, kind in enumerate(KINDS) for server in (NGINX, PYTHON)}


def covers(kind, path):
    return path == "/admin" or (kind != "exact" and path.startswith("/admin/"))


class Recorder(http.server.BaseHTTPRequestHandler):
    """Says how it reads the path, and counts."""

    protocol_version = "HTTP/1.1"
    count, lock = 0, threading.Lock()

    def answer(self):
        length = self.headers.get("content-length")
        body = self.rfile.read(int(length)) if length else b""
        while self.headers.get("transfer-encoding") == "chunked":
            size = int(self.rfile.readline(), 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                break
        with Recorder.lock:
            Recorder.count += 1
        path = unquote(self.path.split("?")[0])
        view = posixpath.normpath(path) + ("/" if path.endswith("/") and path != "/" else "")
        text = json.dumps({"raw": self.path, "view": view, "length": len(body)}).encode()
        self.send_response(403 if self.server.server_port == GUARD else 200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_OPTIONS = answer

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_):
        """A request that was cut, as it should be."""


def serve(port):
    threading.Thread(target=Server(("127.0.0.1", port), Recorder).serve_forever, daemon=True).start()


def config():
    yield {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "desync"}, "spec": {
        "gatewayClassName": "sluice", "addresses": [{"type": "IPAddress", "value": "127.0.0.1"}],
        "listeners": [{"name": f"p{port}", "protocol": "HTTP", "port": port} for port in PORTS.values()]}}
    for (kind, server), port in PORTS.items():
        how, value = KINDS[kind]
        rule = lambda how, value, name, to: {"matches": [{"path": {"type": how, "value": value}}], "backendRefs": [{"name": name, "port": to}]}
        yield {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": f"r{port}"}, "spec": {
            "parentRefs": [{"name": "desync", "sectionName": f"p{port}"}],
            "rules": [rule(how, value, "guard", GUARD), rule("PathPrefix", "/", f"s{server}", server)]}}
    for name, port in (("guard", GUARD), (f"s{NGINX}", NGINX), (f"s{PYTHON}", PYTHON)):
        yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"name": "http", "port": port}]}}
        yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
               "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
               "ports": [{"name": "http", "port": port}], "endpoints": [{"addresses": ["127.0.0.1"]}]}


NGINX_CONF = f"""daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.err;
events {{ worker_connections 256; }}
http {{
  log_format count '$request'; access_log {directory}/nginx.log count;
  client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  server {{ listen 127.0.0.1:{NGINX}; keepalive_requests 100000; location / {{
    default_type text/plain; return 200 "$request_uri\\n$uri"; }} }}
}}"""


def cell(text):
    def one(match):
        if match[1] is not None:
            inside, times = match[1].rsplit("*", 1)
            return cell(inside) * int(times)
        kind = match[2]
        if kind.startswith(b"x".decode()) and len(kind) == 3:
            return bytes([int(kind[1:], 16)])
        return {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0"}.get(kind, kind.encode())

    out, at = b"", 0
    for match in re.finditer(r"\{([^}]*)\}|\\(x[0-9a-fA-F]{2}|.)", text):
        out += text[at:match.start()].encode() + one(match)
        at = match.end()
    return out + text[at:].encode()


def rows(name):
    for line in open(os.path.join(fixtures, name)):
        if line.strip() and not line.startswith("#"):
            name, verdict, bytes_ = line.rstrip("\n").split(" | ", 2)
            yield name, verdict, cell(bytes_)


def ask(port, data, until):
    """Sends, and reads until `until` whole answers came or the connection ended."""
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.settimeout(5)
        sock.sendall(data)
        read = b""
        while len(statuses(read)[0]) < until or statuses(read)[1]:
            try:
                more = sock.recv(65536)
            except ConnectionResetError:
                break
            if not more:
                break
            read += more
        return statuses(read)[0], read


def statuses(read):
    """Statuses of whole answers, and whether one is half there."""
    found = []
    while read:
        head, mark, rest = read.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.I)
        size = int(length[1]) if length else 0
        if not mark or len(rest) < size:
            return found, True
        found.append(int(head.split(b" ")[1]))
        read = rest[size:]
    return found, False


def seen(server):
    if server == PYTHON:
        return Recorder.count
    with open(f"{directory}/nginx.log") as log:
        return sum(1 for _ in log)


def settled(server, want):
    until = time.monotonic() + 5
    while seen(server) < want and time.monotonic() < until:
        time.sleep(0.01)
    return seen(server)


def smuggling():
    failures, total = [], 0
    for server in (NGINX, PYTHON):
        port = PORTS["prefix", server]
        for name, verdict, data in rows("http1_requests.txt"):
            fine, _, refused = verdict.removeprefix("ok ").partition(" then ") if verdict.startswith("ok ") else ("", "", verdict)
            want = [200] * len(fine.split()) + ([] if refused == "silence" else [int(refused)] if refused else [200])
            before = seen(server)
            got, _ = ask(port, data + b"GET /canary HTTP/1.1\r\nHost: a\r\n\r\n", len(want) + bool(refused))
            count = settled(server, before + want.count(200)) - before
            # An endpoint may see the beginning of what is refused later, cut: nginx logs that as one, as 400 or 499.
            total += 1
            if got != want or not want.count(200) <= count <= want.count(200) + ("chunk" in name or "trailer" in name):
                failures.append(f"{server} {name}: {got} for {want}, {count} at the endpoint")
    return failures, total


def paths():
    failures, total = [], 0
    for (kind, server), port in PORTS.items():
        for name, verdict, target in rows("paths.txt"):
            got, read = ask(port, b"GET " + target + b" HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n", 1)
            status, body = (got or [0])[0], read.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")
            want = verdict.split("?")[0]
            total += 1
            if verdict == "400":
                right = status == 400
            elif covers(kind, want):
                right = status == 403 and json.loads(body)["raw"] == verdict
            else:
                raw, view = body.split("\n") if server == NGINX else (json.loads(body)[key] for key in ("raw", "view"))
                right = status == 200 and raw == verdict and not covers(kind, view)
            if not right:
                failures.append(f"{kind} {server} {name}: {status} {body!r}, want {verdict}")
    return failures, total


serve(PYTHON)
serve(GUARD)
with open(f"{directory}/nginx.conf", "w") as file:
    file.write(NGINX_CONF)
with open(f"{directory}/gateway.yaml", "w") as file:
    file.write("\n---\n".join(json.dumps(document) for document in config()))
log = open(f"{directory}/gateway.log", "w")
children = [
    subprocess.Popen(["nginx", "-p", directory, "-c", f"{directory}/nginx.conf", "-e", f"{directory}/nginx.err"]),
    subprocess.Popen([sluice, "run", "-f", f"{directory}/gateway.yaml", "--datapath=off", "--admin=none", "--set=accessLog=off"], stdout=log, stderr=log),
]
try:
    for port in [NGINX, *PORTS.values()]:
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < until, f"nobody listens on {port}: " + open(f"{directory}/gateway.log").read()[-2000:]
                time.sleep(0.05)
    for name, run in (("smuggling", smuggling), ("paths", paths)):
        failures, total = run()
        assert not failures, f"{name}: {len(failures)} of {total}\n" + "\n".join(failures)
        print("ok", name, total)
finally:
    for child in children:
        child.send_signal(signal.SIGTERM)
    for child in children:
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
