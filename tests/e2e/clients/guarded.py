"""guarded.py SLUICE DIRECTORY: rules and listeners that ask an authorization service first, with services that others wrote.

Services are Python's HTTP server and grpcio's (authorization.py), which answer as the request's token asks, nginx and
nghttpd (HTTP/2); clients are curl, h2load and grpcio. Everything runs on the loopback of the namespace this is started in. Prints one JSON line; what does not hold
is named, and the exit status is 1.
"""
import base64, hashlib, http.server, json, os, re, socketserver, subprocess, sys, threading, time, urllib.request

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
import grpc
import authorization
from beside import check, finish, ready

SLUICE, DIR = sys.argv[1:3]
ADMIN, HTTP, ECHO, AUTH, NGINX, NGHTTPD, NOBODY, FIRST, CALLED, SEALED, HTTPS, BOTH = range(8101, 8113)
PASSED, ASKED, SHOWN = [], [], []


# --- endpoints

class Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b"", **fields):
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def log_message(self, *_):
        pass


class Echo(Quiet):
    """What arrives behind the guard."""
    def do_GET(self):
        body = self.body()
        PASSED.append(self.path)
        told = {"path": self.path, "len": len(body), "sha": hashlib.sha256(body).hexdigest(), **{name.lower(): value for name, value in self.headers.items()}}
        self.answer(200, json.dumps(told).encode())

    do_POST = do_GET


class Auth(Quiet):
    """Answers as the token says."""
    def do_GET(self):
        fields = {name.lower(): value for name, value in self.headers.items()}
        SHOWN.append(self.body())
        ASKED.append((self.command, self.path, fields))
        match self.headers.get("authorization", "").removeprefix("Bearer "):
            case "good":
                self.answer(200, b"welcome", x_user="ann", x_extra="not taken")
            case "slow":
                time.sleep(4)
                try:
                    self.answer(200, x_user="late")
                except OSError:
                    self.close_connection = True
            case "gone":
                self.connection.close()
                self.close_connection = True
            case "login":
                self.answer(302, location="/login", set_cookie="a=b")
            case "odd":
                self.answer(204)
            case "down":
                self.answer(503, b"out of order")
            case _:
                self.answer(401, b"who are you?", www_authenticate='Bearer realm="lab"')

    do_POST = do_GET


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 512


CONF = f"""
worker_processes 1; error_log {DIR}/nginx.log; pid {DIR}/nginx.pid; daemon off; user root;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {DIR}/body; proxy_temp_path {DIR}/proxy; fastcgi_temp_path {DIR}/f; uwsgi_temp_path {DIR}/u; scgi_temp_path {DIR}/s;
  map $http_authorization $verdict {{ default 403; "Bearer good" 200; }}
  server {{
    listen 127.0.0.1:{NGINX};
    location / {{ return 200 "served to $http_x_user"; }}
    location /auth/ {{ add_header x-user nginx always; if ($verdict = 403) {{ return 403 "no"; }} return 200 "yes"; }}
  }}
}}
"""


# --- configuration

def service(name, port, **more):
    return [dict(apiVersion="v1", kind="Service", metadata={"name": name}, spec={"ports": [{"port": 80, **more}]}),
            dict(apiVersion="discovery.k8s.io/v1", kind="EndpointSlice", addressType="IPv4", ports=[{"port": port}],
                 metadata={"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
                 endpoints=[{"addresses": ["127.0.0.1"]}])]


def ask(auth, shows=0, **http):
    return {"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": {"name": auth, "port": 80}, "http": http,
                                                     "forwardBody": {"maxSize": shows}}}


def call(auth, shows=0, **grpc):
    return {"type": "ExternalAuth", "externalAuth": {"protocol": "GRPC", "backendRef": {"name": auth, "port": 80}, "grpc": grpc,
                                                     "forwardBody": {"maxSize": shows}}}


def rule(matched, auth, to="echo", shows=0, **http):
    return {"matches": [{"path": {"value": matched}}], "backendRefs": [{"name": to, "port": 80}], "filters": [ask(auth, shows, **http)]}


def called(matched, auth="called", shows=0, **grpc):
    return {"matches": [{"path": {"value": matched}}], "backendRefs": [{"name": "echo", "port": 80}], "filters": [call(auth, shows, **grpc)]}


def read(name):
    with open(f"{DIR}/{name}", "rb") as file:
        return file.read()


def certificates():
    """An authority, and what it says of a name that is the gateway's, the service's and a client's."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    with open(f"{DIR}/san", "w") as file:
        file.write("subjectAltName=DNS:a.example,URI:spiffe://lab/ann")
    for step in [["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=lab"],
                 ["req", "-new", *key, "-keyout", "a.key", "-out", "a.csr", "-subj", "/CN=a"],
                 ["x509", "-req", "-in", "a.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-out", "a.crt", "-extfile", "san"]]:
        subprocess.run(["openssl", *step], cwd=DIR, check=True, capture_output=True)


os.makedirs(f"{DIR}/www/files/h2", exist_ok=True)
certificates()
API = "gateway.networking.k8s.io/v1"
TRUST = [{"group": "", "kind": "ConfigMap", "name": "ca"}]


OBJECTS = [
    dict(apiVersion="gateway.networking.k8s.io/v1", kind="Gateway", metadata={"name": "edge"}, spec={
        "gatewayClassName": "sluice", "addresses": [{"type": "IPAddress", "value": "127.0.0.1"}],
        "tls": {"frontend": {"default": {"validation": {"caCertificateRefs": TRUST}}}},
        "listeners": [
            {"name": "http", "protocol": "HTTP", "port": HTTP},
            {"name": "https", "protocol": "HTTPS", "port": HTTPS, "tls": {"certificateRefs": [{"name": "a"}]}},
            {"name": "first", "protocol": "HTTP", "port": FIRST, "filters": {"requests": [
                ask("auth", path="/one", allowedResponseHeaders=["X-User"]), ask("nginx", path="/auth", allowedResponseHeaders=["X-Second"])]}},
            {"name": "both", "protocol": "HTTP", "port": BOTH, "filters": {"requests": [ask("auth"), ask("auth", 1_000_000), call("called", 3_000_000)]}}]}),
    dict(apiVersion="v1", kind="ConfigMap", metadata={"name": "ca"}, data={"ca.crt": read("ca.crt").decode()}),
    dict(apiVersion="v1", kind="Secret", type="kubernetes.io/tls", metadata={"name": "a"},
         data={f"tls.{what}": base64.b64encode(read(f"a.{what}")).decode() for what in ["crt", "key"]}),
    dict(apiVersion=API, kind="BackendTLSPolicy", metadata={"name": "sealed"}, spec={
        "targetRefs": [{"group": "", "kind": "Service", "name": "sealed"}], "validation": {"hostname": "a.example", "caCertificateRefs": TRUST}}),
    *service("echo", ECHO), *service("auth", AUTH), *service("nginx", NGINX),
    *service("called", CALLED), *service("sealed", SEALED),
    *service("nghttpd", NGHTTPD, appProtocol="kubernetes.io/h2c"), *service("nobody", NOBODY),
    dict(apiVersion="gateway.networking.k8s.io/v1", kind="HTTPRoute", metadata={"name": "guarded"}, spec={
        "parentRefs": [{"name": "edge", "sectionName": "http"}, {"name": "edge", "sectionName": "https"}], "rules": [
            rule("/app", "auth", path="/check", allowedHeaders=["X-Shown"], allowedResponseHeaders=["X-User"]),
            rule("/nginx", "nginx", to="nginx", path="/auth", allowedResponseHeaders=["x-user"]),
            rule("/h2", "nghttpd", path="/files"),
            rule("/nobody", "nobody"),
            rule("/missing", "missing"),
            rule("/shown", "auth", shows=1_000_000),
            called("/called"), called("/sealed", "sealed"), called("/unheard", "nobody"), called("/narrow", allowedHeaders=["Authorization", "x-shown"]),
            called("/shown/called", shows=3_000_000), rule("/little", "auth", shows=1000), called("/little/called", shows=1000),
        ]}),
    dict(apiVersion=API, kind="HTTPRoute", metadata={"name": "both"}, spec={
        "parentRefs": [{"name": "edge", "sectionName": "both"}], "rules": [{"backendRefs": [{"name": "echo", "port": 80}]}]}),
    dict(apiVersion="gateway.networking.k8s.io/v1", kind="HTTPRoute", metadata={"name": "of-ann"}, spec={
        "parentRefs": [{"name": "edge", "sectionName": "first"}], "rules": [
            {"matches": [{"path": {"value": "/any"}, "headers": [{"name": "X-User", "value": "ann"}]}], "backendRefs": [{"name": "echo", "port": 80}]},
            {"matches": [{"path": {"value": "/any"}}], "backendRefs": [{"name": "nginx", "port": 80}]},
        ]}),
]


# --- clients

def curl(path, *more, token=None, port=HTTP):
    """Status, body, head."""
    args = ["curl", "-sS", "-m", "20", "-i", *more, f"http://127.0.0.1:{port}{path}"]
    if token:
        args += ["-H", f"authorization: Bearer {token}"]
    text = subprocess.run(args, capture_output=True).stdout.decode()
    first, last = re.fullmatch(r"(HTTP/[0-9.]+ 100 .*\r\n\r\n)?([\s\S]*)", text).groups()
    head, _, body = last.partition("\r\n\r\n")
    words = head.split()
    return int(words[1]) if len(words) > 1 else 0, body, ((first or "") + head).lower()


def metric(outcome, family="auth", label="outcome"):
    text = urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/stats/prometheus").read().decode()
    family = "auth" if family == "auth" else f"auth_{family}"
    line = f'sluice_http_{family}_total{{{label}="{outcome}"}} '
    return next((int(float(found[len(line):])) for found in text.splitlines() if found.startswith(line)), None)


def rows():
    for version in ["--http1.1", "--http2-prior-knowledge"]:
        status, body, _ = curl("/app/a?q=1", version, "--data-binary", f"@{DIR}/big", "-H", "x-user: forged", "-H", "x-shown: 1", "-H", "x-hidden: 2", token="good")
        told = json.loads(body) if status == 200 else {}
        check("passes", (status, told.get("x-user"), told.get("len"), told.get("path"), "x-extra" in told), (200, "ann", 500_000, "/app/a?q=1", False))
        method, path, fields = ASKED[-1]
        check("is asked", (method, path, fields.get("content-length"), fields.get("x-shown"), "x-hidden" in fields, "x-user" in fields),
              ("POST", "/check/app/a?q=1", "0", "1", False, False))
        check("of the host", fields.get("host"), f"127.0.0.1:{HTTP}")
        PASSED.clear()
        status, body, head = curl("/app", version)
        check("nobody", (status, body, 'www-authenticate: bearer realm="lab"' in head), (401, "who are you?", True))
        status, body, head = curl("/app", version, token="login")
        check("login", (status, "location: /login" in head, "set-cookie: a=b" in head), (302, True, True))
        check("another success is none", curl("/app", version, token="odd")[0], 204)
        # curl takes the RST_STREAM (NO_ERROR) of an answer that comes before its body for a failure.
        body = ["-d", "body"] if "1.1" in version else []
        check("its failure is a refusal", curl("/app", version, *body, token="down")[:2], (503, "out of order"))
        check("it closes", curl("/app", version, token="gone")[0], 403)
        began = time.monotonic()
        check("it is too slow", (curl("/app", version, token="slow")[0], time.monotonic() - began < 3.9), (403, True))
        check("nobody listens", curl("/nobody", version, token="good")[0], 403)
        check("no such Service", curl("/missing", version, token="good")[0], 500)
        time.sleep(3)
        check("nothing passed", PASSED, [])
        check("HTTP/2 passes", curl("/h2/yes", version)[0], 200)
        check("HTTP/2 refuses", curl("/h2/no", version)[0], 404)
        check("and only that passed", PASSED, ["/h2/yes"])
        check("nginx passes", curl("/nginx", version, token="good")[:2], (200, "served to nginx"))
        check("nginx refuses", curl("/nginx", version)[:2], (403, "no"))
    check("a head alone", curl("/nginx", "-I")[0], 403)


def first():
    """Filters of a listener: asked before a route is looked for, in their order, and the route goes by what they said."""
    for version in ["--http1.1", "--http2-prior-knowledge"]:
        ASKED.clear()
        status, body, _ = curl("/any/a", version, "--data-binary", f"@{DIR}/big", "-H", "x-user: forged", token="good", port=FIRST)
        told = json.loads(body) if status == 200 else {}
        check("the route of ann", (status, told.get("x-user"), told.get("len"), told.get("path")), (200, "ann", 500_000, "/any/a"))
        check("asked once", [(method, path) for method, path, _ in ASKED], [("POST", "/one/any/a")])
        check("nobody is let in anywhere", [curl(path, version, port=FIRST)[:2] for path in ["/any", "/nowhere"]], [(401, "who are you?")] * 2)
        check("whoever is let in learns what is not there", curl("/nowhere", version, token="good", port=FIRST)[0], 404)


# Questions that came to no answer: over HTTP in `rows`, by calls in `calls`.
WHY = {"timed_out": 2 + 2, "broken_off": 2, "unreachable": 2 + 2, "malformed": 6, "status": 2, "too_large": 2, "failed": 2, "compressed": 0, "no_room": 0}


def calls():
    """The protocol of Envoy's external authorization, with grpcio on the other side."""
    PASSED.clear()
    for version in ["--http1.1", "--http2-prior-knowledge"]:
        fields = [arg for field in ["x-user: forged", "x-roles: a", "x-first: 1", "x-more: 1", "x-more: 2", "cookie: a=b"] for arg in ("-H", field)]
        status, body, head = curl("/called/a?token=s&q=1&tok%65n=2", version, "-d", "body", *fields, token="good")
        told = json.loads(body) if status == 200 else {}
        check("passes", (status, told.get("path"), told.get("len")), (200, "/called/a?q=1&user=ann%20%26%20co", 4))
        check("as the service says", [told.get(name) for name in ["x-user", "x-new", "x-first", "authorization", "host"]],
              ["ann", None, "1", None, f"127.0.0.1:{HTTP}"])
        check("its fields are in the response", [line.split(": ", 1)[1] for line in head.splitlines() if line.startswith("set-cookie")], ["seen=1", "by=ann"])
        asked = authorization.ASKED[-1].attributes
        http = asked.request.http
        check("is told of the request", (http.method, http.path, http.host, http.scheme, http.size, http.body, http.protocol),
              ("POST", "/called/a?token=s&q=1&tok%65n=2", f"127.0.0.1:{HTTP}", "http", 4, "", "HTTP/1.1" if "1.1" in version else "HTTP/2"))
        check("of its fields", [http.headers.get(name) for name in ["x-user", "x-more", "cookie", ":path", ":method", "content-type", "x-forwarded-for"]],
              ["forged", "1,2", "a=b", http.path, "POST", "application/x-www-form-urlencoded", "127.0.0.1"])
        check("of its id", http.id == http.headers["x-request-id"] != "")
        check("of the client", (asked.source.address.socket_address.address, asked.source.address.socket_address.port_value > 1024, asked.source.principal),
              ("127.0.0.1", True, ""))
        check("of where it came", (asked.destination.address.socket_address.address, asked.destination.address.socket_address.port_value), ("127.0.0.1", HTTP))
        check("and when", abs(asked.request.time.seconds - time.time()) < 10)
        check("narrowly", (curl("/narrow", version, "-H", "x-shown: 1", token="bare")[0], dict(authorization.ASKED[-1].attributes.request.http.headers)),
              (200, {"authorization": "Bearer bare", "x-shown": "1"}))
        check("over TLS", curl("/sealed", version, token="bare")[0], 200)
        status, body, head = curl("/called", version)
        check("nobody", (status, body, 'www-authenticate: bearer realm="lab"' in head), (401, "who are you?", True))
        status, body, head = curl("/called", version, token="login")
        check("login", (status, "location: /login" in head, head.count("set-cookie")), (302, True, 2))
        for token, want in [("no", 403), ("both", 403), ("down", 403), ("empty", 403), ("garbage", 403), ("big", 403), ("smuggle", 403), ("unsure", 403), ("slow", 403)]:
            check(f"does not pass: {token}", curl("/called", version, token=token)[0], want)
        check("nobody listens", curl("/unheard", version, token="good")[0], 403)
    time.sleep(3)
    check("nothing else passed", PASSED, ["/called/a?q=1&user=ann%20%26%20co", "/narrow", "/sealed"] * 2)
    secret = ["--cacert", f"{DIR}/ca.crt", "--cert", f"{DIR}/a.crt", "--key", f"{DIR}/a.key", "--resolve", f"a.example:{HTTPS}:127.0.0.1"]
    out = subprocess.run(["curl", "-sS", "-m", "20", *secret, "-H", "authorization: Bearer bare", f"https://a.example:{HTTPS}/called"], capture_output=True)
    asked = authorization.ASKED[-1].attributes
    check("of who the client is", (out.stderr, asked.source.principal, asked.request.http.scheme), (b"", "spiffe://lab/ann", "https"))


def bodies():
    """What the service is shown of a body is what passes, whatever frames it."""
    PASSED.clear()
    for version in ["--http1.1", "--http2-prior-knowledge"]:
        for name, more in [("big", []), ("big", ["-H", "transfer-encoding: chunked"]), ("small", []), ("odd", ["-H", "expect: 100-continue"]), ("none", [])]:
            sent = read(name)
            for path in ["/shown/a", "/shown/called/a"]:
                status, body, head = curl(path, version, "--data-binary", f"@{DIR}/{name}", *more, token="good" if path == "/shown/a" else "body")
                told = json.loads(body) if status == 200 else {}
                check(f"{name} passes {version} {path}", (status, told.get("sha"), "100 continue" in head), (200, hashlib.sha256(sent).hexdigest(), name == "odd" and "1.1" in version))
                if path == "/shown/a":
                    shown, said = SHOWN[-1], ASKED[-1][2].get("content-length")
                else:
                    http = authorization.ASKED[-1].attributes.request.http
                    shown, said = http.body.encode() or http.raw_body, told.get("x-size")
                    check("text is text", bool(http.body), name in ["big", "small"])
                check(f"{name} is shown {version} {path}", (shown == sent, said), (True, str(len(sent))))
        PASSED.clear()
        asked = len(ASKED), len(authorization.ASKED)
        for path in ["/little", "/little/called"]:
            if "1.1" in version:
                for more in [[], ["-H", "transfer-encoding: chunked"], ["-H", "expect: 100-continue"]]:
                    check(f"too much {path} {more}", curl(path, version, "--data-binary", f"@{DIR}/more", *more, token="good")[0], 413)
            else:
                for more in [[], ["--no-content-length"]]:
                    sent = ["nghttp", "-v", "-t", "20", "-d", f"{DIR}/more", *more, f"http://127.0.0.1:{HTTP}{path}"]
                    out = subprocess.run(sent, capture_output=True, text=True).stdout
                    check(f"too much {path} {more}", ":status: 413" in out or out[-300:], True)
        check("nobody was asked, and nothing passed", ((len(ASKED), len(authorization.ASKED)), PASSED), (asked, []))
        # A listener's first filter is shown no body, which waits meanwhile; the next ones are shown all of it.
        status, body, _ = curl("/a", version, "--data-binary", f"@{DIR}/odd", token="good", port=BOTH)
        told, http = json.loads(body) if status == 200 else {}, authorization.ASKED[-1].attributes.request.http
        check(f"three ask {version}", (status, told.get("sha"), SHOWN[-2:], http.raw_body == read("odd")),
              (200, hashlib.sha256(read("odd")).hexdigest(), [b"", read("odd")], True))
    check("refused with its body", curl("/shown/called", "-d", "body")[0], 401)


def streams():
    """A gRPC call without an end is not asked about, and one with an end is."""
    with grpc.insecure_channel(f"127.0.0.1:{HTTP}") as channel:
        asked = len(authorization.ASKED)
        call = channel.stream_stream("/shown/called", request_serializer=bytes, response_deserializer=bytes)
        gate = threading.Event()

        def sends():
            yield b"first"
            gate.wait(20)

        answers = call(sends(), timeout=0.5)
        try:
            list(answers)
        except grpc.RpcError as error:
            check("ends by its deadline", error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        gate.set()
        check("nobody was asked", len(authorization.ASKED), asked)
        try:
            channel.unary_unary("/shown/called", request_serializer=bytes, response_deserializer=bytes)(b"all", timeout=5)
        except grpc.RpcError as error:
            check("is refused in its own words", error.code(), grpc.StatusCode.UNAUTHENTICATED)
        check("and was shown", authorization.ASKED[-1].attributes.request.http.body, "\0\0\0\0\3all")


def many():
    """A hundred at a time, and none mixed up."""
    for token, want in [("good", "2xx"), ("bad", "4xx")]:
        before = metric("allowed")
        shown = ["h2load", "-n", "2000", "-c", "5", "-m", "20", "-H", f"authorization: Bearer {token}", f"http://127.0.0.1:{HTTP}/nginx"]
        out = subprocess.run(shown, capture_output=True, text=True).stdout
        check(f"h2load, {token}", f"2000 {want}" in out or out[-400:], True)
        check("and they were counted", metric("allowed") - before, 2000 if token == "good" else 0)


with open(f"{DIR}/www/files/h2/yes", "w") as file:
    file.write("yes")
with open(f"{DIR}/big", "w") as file:
    file.write("x" * 500_000)
for name, content in [("small", b"x"), ("odd", bytes(range(256)) * 1000), ("none", b""), ("more", b"x" * 1001)]:
    with open(f"{DIR}/{name}", "wb") as file:
        file.write(content)
with open(f"{DIR}/nginx.conf", "w") as file:
    file.write(CONF)
with open(f"{DIR}/gateway.yaml", "w") as file:
    file.write("\n---\n".join(json.dumps(item) for item in OBJECTS))
for port, handler in [(ECHO, Echo), (AUTH, Auth)]:
    threading.Thread(target=Server(("127.0.0.1", port), handler).serve_forever, daemon=True).start()
service_called = authorization.serve(CALLED, (read("a.key"), read("a.crt")), SEALED)
others = [subprocess.Popen(["nginx", "-c", f"{DIR}/nginx.conf"]),
          subprocess.Popen(["nghttpd", "--no-tls", "-d", f"{DIR}/www", "-a", "127.0.0.1", str(NGHTTPD)])]
with open(f"{DIR}/gateway.log", "w") as log:
    gateway = subprocess.Popen([SLUICE, "run", "-f", f"{DIR}/gateway.yaml", "--datapath=off", "--workers=2", f"--state-dir={DIR}/state",
                                f"--admin=127.0.0.1:{ADMIN}", "--set=timeouts.auth=1500ms", "--set=accessLog=json",
                                f"--set=accessLogPath={DIR}/access.log"], stdout=log, stderr=log)
with ready(ADMIN, (gateway, *others)):
    rows()
    first()
    many()
    counted = [metric(outcome) for outcome in ["allowed", "denied", "failed"]]
    check("each kind is counted", counted, [2014, 2017, 6])
    calls()
    check("and so is what ended the others", {why: metric(why, "unanswered", "reason") for why in WHY}, WHY)
    bodies()
    streams()
told = {line.get("error.type") for line in map(json.loads, open(f"{DIR}/access.log"))}
check("the log says what for", told >= {"auth_required", "auth_denied", "auth_failed"} or told, True)
finish(f"{DIR}/gateway.log")
