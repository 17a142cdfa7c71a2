"""guarded.py SLUICE DIRECTORY: rules and listeners that ask an authorization service first, with services that others wrote.

Services are Python's HTTP server, which answers as the request's token asks, nginx and nghttpd (HTTP/2); clients are curl
and h2load. Everything runs on the loopback of the namespace this is started in. Prints one JSON line; what does not hold
is named, and the exit status is 1.
"""
import http.server, json, os, signal, socketserver, subprocess, sys, threading, time, urllib.request

SLUICE, DIR = sys.argv[1:3]
ADMIN, HTTP, ECHO, AUTH, NGINX, NGHTTPD, NOBODY, FIRST = range(8101, 8109)
FAILED, HELD, PASSED, ASKED = [], 0, [], []


def check(name, got, want=True):
    global HELD
    if got == want:
        HELD += 1
    else:
        FAILED.append(f"{name}: {str(got)[:300]}, want {str(want)[:300]}")


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

    def log_message(self, *_):
        pass


class Echo(Quiet):
    """What arrives behind the guard."""
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        PASSED.append(self.path)
        told = {"path": self.path, "len": len(body), **{name.lower(): value for name, value in self.headers.items()}}
        self.answer(200, json.dumps(told).encode())

    do_POST = do_GET


class Auth(Quiet):
    """Answers as the token says."""
    def do_GET(self):
        ASKED.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        match self.headers.get("authorization", "").removeprefix("Bearer "):
            case "good":
                self.answer(200, b"welcome", x_user="ann", x_extra="not taken")
            case "slow":
                time.sleep(1)
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


def ask(auth, **http):
    return {"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": {"name": auth, "port": 80}, "http": http}}


def rule(matched, auth, to="echo", **http):
    return {"matches": [{"path": {"value": matched}}], "backendRefs": [{"name": to, "port": 80}], "filters": [ask(auth, **http)]}


OBJECTS = [
    dict(apiVersion="gateway.networking.k8s.io/v1", kind="Gateway", metadata={"name": "edge"}, spec={
        "gatewayClassName": "sluice", "addresses": [{"type": "IPAddress", "value": "127.0.0.1"}],
        "listeners": [{"name": "http", "protocol": "HTTP", "port": HTTP}, {
            "name": "first", "protocol": "HTTP", "port": FIRST, "filters": {"requests": [
                ask("auth", path="/one", allowedResponseHeaders=["X-User"]), ask("nginx", path="/auth", allowedResponseHeaders=["X-Second"])]}}]}),
    *service("echo", ECHO), *service("auth", AUTH), *service("nginx", NGINX),
    *service("nghttpd", NGHTTPD, appProtocol="kubernetes.io/h2c"), *service("nobody", NOBODY),
    dict(apiVersion="gateway.networking.k8s.io/v1", kind="HTTPRoute", metadata={"name": "guarded"}, spec={
        "parentRefs": [{"name": "edge", "sectionName": "http"}], "rules": [
            rule("/app", "auth", path="/check", allowedHeaders=["X-Shown"], allowedResponseHeaders=["X-User"]),
            rule("/nginx", "nginx", to="nginx", path="/auth", allowedResponseHeaders=["x-user"]),
            rule("/h2", "nghttpd", path="/files"),
            rule("/nobody", "nobody"),
            rule("/missing", "missing"),
        ]}),
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
    text = subprocess.run(args, capture_output=True).stdout.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"").decode()
    head, _, body = text.partition("\r\n\r\n")
    words = head.split()
    return int(words[1]) if len(words) > 1 else 0, body, head.lower()


def metric(outcome):
    text = urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/stats/prometheus").read().decode()
    line = f'sluice_http_auth_total{{outcome="{outcome}"}} '
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
        check("its failure is a refusal", curl("/app", version, "-d", "body", token="down")[:2], (503, "out of order"))
        check("it closes", curl("/app", version, token="gone")[0], 403)
        began = time.monotonic()
        check("it is too slow", (curl("/app", version, token="slow")[0], time.monotonic() - began < 0.9), (403, True))
        check("nobody listens", curl("/nobody", version, token="good")[0], 403)
        check("no such Service", curl("/missing", version, token="good")[0], 500)
        time.sleep(1)
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


def many():
    """A hundred at a time, and none mixed up."""
    for token, want in [("good", "2xx"), ("bad", "4xx")]:
        before = metric("allowed")
        shown = ["h2load", "-n", "2000", "-c", "5", "-m", "20", "-H", f"authorization: Bearer {token}", f"http://127.0.0.1:{HTTP}/nginx"]
        out = subprocess.run(shown, capture_output=True, text=True).stdout
        check(f"h2load, {token}", f"2000 {want}" in out or out[-400:], True)
        check("and they were counted", metric("allowed") - before, 2000 if token == "good" else 0)


os.makedirs(f"{DIR}/www/files/h2", exist_ok=True)
with open(f"{DIR}/www/files/h2/yes", "w") as file:
    file.write("yes")
with open(f"{DIR}/big", "w") as file:
    file.write("x" * 500_000)
with open(f"{DIR}/nginx.conf", "w") as file:
    file.write(CONF)
with open(f"{DIR}/gateway.yaml", "w") as file:
    file.write("\n---\n".join(json.dumps(item) for item in OBJECTS))
for port, handler in [(ECHO, Echo), (AUTH, Auth)]:
    threading.Thread(target=Server(("127.0.0.1", port), handler).serve_forever, daemon=True).start()
others = [subprocess.Popen(["nginx", "-c", f"{DIR}/nginx.conf"]),
          subprocess.Popen(["nghttpd", "--no-tls", "-d", f"{DIR}/www", "-a", "127.0.0.1", str(NGHTTPD)])]
with open(f"{DIR}/gateway.log", "w") as log:
    gateway = subprocess.Popen([SLUICE, "run", "-f", f"{DIR}/gateway.yaml", "--datapath=off", "--workers=2", f"--state-dir={DIR}/state",
                                f"--admin=127.0.0.1:{ADMIN}", "--set=timeouts.auth=400ms", "--set=accessLog=json",
                                f"--set=accessLogPath={DIR}/access.log"], stdout=log, stderr=log)
try:
    end = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/ready")
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
    rows()
    first()
    many()
    counted = [metric(outcome) for outcome in ["allowed", "denied", "failed"]]
    check("each kind is counted", counted, [2014, 2017, 6])
finally:
    for process in (gateway, *others):
        process.send_signal(signal.SIGTERM)
        process.wait(10)
told = {line.get("error.type") for line in map(json.loads, open(f"{DIR}/access.log"))}
check("the log says what for", told >= {"auth_required", "auth_denied", "auth_failed"} or told, True)
print(json.dumps({"held": HELD, "failed": FAILED}))
if FAILED:
    with open(f"{DIR}/gateway.log") as log:
        print(log.read()[-2000:], file=sys.stderr)
sys.exit(1 if FAILED else 0)
