"""retries.py SLUICE DIRECTORY: failed attempts, timeouts and sessions with endpoints that others wrote.

Endpoints are nginx, which fails always, never or by closing the connection, and Python's HTTP server, which fails as often
as a request asks; clients are curl and h2load. Everything runs on the loopback of the namespace this is started in.
Prints one JSON line; what does not hold is named, and the exit status is 1.
"""
import collections, http.server, json, os, socketserver, subprocess, sys, threading, time, urllib.parse, urllib.request
from beside import check, finish, ready

SLUICE, DIR = sys.argv[1:3]
ADMIN, HTTP, FLAKY, FAILS, SERVES, CLOSES, NOBODY = range(8001, 8008)


# --- endpoints

SEEN = collections.Counter()


class Flaky(http.server.BaseHTTPRequestHandler):
    """Fails `fail` times per `id` with `code`, each after `delay` seconds; keeps its connections."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        SEEN[asked["id"]] += 1
        fails = SEEN[asked["id"]] <= int(asked.get("fail", 0))
        if fails:
            time.sleep(float(asked.get("delay", 0)))
        told = b"failed" if fails else b"%d:" % SEEN[asked["id"]] + body
        try:
            self.send_response(int(asked.get("code", 503)) if fails else 200)
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)
        except OSError:
            pass

    do_POST = do_GET

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 512


NGINX = f"""
worker_processes 1; error_log {DIR}/nginx.log; pid {DIR}/nginx.pid; daemon off; user root;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {DIR}/body; proxy_temp_path {DIR}/proxy; fastcgi_temp_path {DIR}/f; uwsgi_temp_path {DIR}/u; scgi_temp_path {DIR}/s;
  server {{ listen 127.0.0.1:{FAILS}; location / {{ return 503 "nginx fails"; }} }}
  server {{ listen 127.0.0.1:{CLOSES}; location / {{ return 444; }} }}
  server {{ listen 127.0.0.1:{SERVES}; location / {{ return 200 "nginx serves"; }} }}
}}
"""


# --- configuration

def service(name, ports):
    ends = [dict(apiVersion="discovery.k8s.io/v1", kind="EndpointSlice", addressType="IPv4", ports=[{"port": port}],
                 metadata={"name": f"{name}-{port}", "labels": {"kubernetes.io/service-name": name}},
                 endpoints=[{"addresses": ["127.0.0.1"]}]) for port in ports]
    return [dict(apiVersion="v1", kind="Service", metadata={"name": name}, spec={"ports": [{"port": 80}]})] + ends


def rule(path, to, **more):
    return {"matches": [{"path": {"value": path}}], "backendRefs": [{"name": to, "port": 80}], **more}


ALL = {"codes": [500, 502, 503, 504], "backoff": "10ms"}
OBJECTS = [
    dict(apiVersion="gateway.networking.k8s.io/v1", kind="Gateway", metadata={"name": "edge"}, spec={
        "gatewayClassName": "sluice", "addresses": [{"type": "IPAddress", "value": "127.0.0.1"}],
        "listeners": [{"name": "http", "protocol": "HTTP", "port": HTTP}]}),
    *service("flaky", [FLAKY]), *service("mixed", [FAILS, SERVES]), *service("broken", [CLOSES, NOBODY, SERVES]),
    *service("dead", [FAILS]), *service("pinned", [FLAKY, SERVES]),
    dict(apiVersion="gateway.networking.k8s.io/v1", kind="HTTPRoute", metadata={"name": "retries"}, spec={
        "parentRefs": [{"name": "edge"}], "rules": [
            rule("/codes", "flaky", retry={**ALL, "attempts": 3}),
            rule("/off", "flaky", retry={**ALL, "attempts": 0}),
            rule("/whole", "flaky", retry={**ALL, "attempts": 5}, timeouts={"request": "500ms"}),
            rule("/each", "flaky", retry={"attempts": 3, "backoff": "10ms"}, timeouts={"backendRequest": "300ms", "request": "10s"}),
            rule("/once", "flaky", timeouts={"backendRequest": "300ms"}),
            rule("/mixed", "mixed", retry={**ALL, "attempts": 1}),
            rule("/broken", "broken", retry={"attempts": 3, "backoff": "10ms"}),
            rule("/dead", "dead", retry={**ALL, "attempts": 3}),
            rule("/pinned", "pinned", sessionPersistence={"cookie": {"name": "pin"}}),
            {**rule("/outer", "flaky"), "backendRefs": [{"name": "flaky", "port": 80, "filters": [
                {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/codes"}}}]}]},
        ]}),
]


# --- clients

def curl(path, *more):
    """Status, body, and the time it took."""
    shown = ["curl", "-sS", "-m", "20", "-w", "\\n%{http_code} %{time_total}", *more, f"http://127.0.0.1:{HTTP}{path}"]
    text = subprocess.run(shown, capture_output=True, text=True).stdout
    body, _, rest = text.rpartition("\n")
    status, took = rest.split()
    return int(status), body, float(took)


def metric(name, **labels):
    want = ",".join(f'{key}="{value}"' for key, value in labels.items())
    text = urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/stats/prometheus").read().decode()
    line = f"{name}{{{want}}} " if want else f"{name} "
    return next((int(float(found[len(line):])) for found in text.splitlines() if found.startswith(line)), None)


def rows():
    for version in ["--http1.1", "--http2-prior-knowledge"]:
        key = version[-1]
        check("fails twice", curl(f"/codes?id=a{key}&fail=2", version, "-d", "x" * 5000)[:2], (200, "3:" + "x" * 5000))
        check("fails too often", curl(f"/codes?id=b{key}&fail=4", version)[:2], (503, "failed"))
        check("asked as often as may be", SEEN[f"b{key}"], 4)
        check("another code", curl(f"/codes?id=c{key}&fail=1&code=501", version)[:2], (501, "failed"))
        check("switched off", curl(f"/off?id=d{key}&fail=1", version)[:2], (503, "failed"))
        status, _, took = curl(f"/whole?id=e{key}&fail=5&delay=0.2", version)
        check("the whole has its time", (status, 0.5 <= took < 5), (504, True))
        status, body, took = curl(f"/each?id=f{key}&fail=1&delay=8", version)
        check("each attempt has its time", (status, body, 0.3 <= took < 6), (200, "2:", True))
        status, _, took = curl(f"/once?id=g{key}&fail=1&delay=8", version)
        check("and without retries it is the answer", (status, took < 6), (504, True))
        check("a body above what is kept", curl(f"/codes?id=h{key}&fail=1", version, "-d", "x" * 100_000)[:2], (503, "failed"))
    check("nginx that fails and nginx that serves", {curl("/mixed")[:2] for _ in range(20)}, {(200, "nginx serves")})
    check("nginx that closes, and nobody", {curl("/broken")[:2] for _ in range(20)}, {(200, "nginx serves")})
    check("a backendRef's own rewrite", curl("/outer?id=i&fail=0")[:2], (200, "1:"))
    check("why", [metric("sluice_http_retries_granted_total", reason=why) > 0 for why in ["status", "reset", "timeout"]], [True] * 3)
    check("why not", [metric("sluice_http_retries_denied_total", reason=why) for why in ["limit", "body"]], [2, 2])
    check("as Envoy's", metric("envoy_cluster_upstream_rq_retry_limit_exceeded", envoy_cluster_name="default/flaky:80"), 2)
    jar = f"{DIR}/jar"
    first = curl("/pinned?id=j", "-c", jar)[1]
    kind = first.startswith("nginx")
    again = [curl(f"/pinned?id=j", "-b", jar)[1].startswith("nginx") for _ in range(20)]
    check("a cookie's client comes back", again, [kind] * 20)
    check("and nobody else", len({curl("/pinned?id=j")[1].startswith("nginx") for _ in range(8)}), 2)


def outage():
    """Everything fails for a while: the endpoint gets a fifth more than the requests, and what was saved up."""
    before, count = metric("sluice_http_retries_granted_total", reason="status"), 3000
    run = subprocess.run(["h2load", "-n", str(count), "-c", "4", "-m", "20", f"http://127.0.0.1:{HTTP}/dead"], capture_output=True, text=True)
    check("h2load", f"{count} 5xx" in run.stdout or run.stdout[-500:], True)
    made = metric("sluice_http_retries_granted_total", reason="status") - before
    # 20 %, and of each worker what ten seconds save up and the seconds it took.
    check(f"{made} retries are bounded", 0 < made <= count * 0.2 + WORKERS * 20 * 15, True)
    check("the rest was denied", metric("sluice_http_retries_denied_total", reason="retry_budget") > count / 2)


WORKERS = 2
os.makedirs(DIR, exist_ok=True)
with open(f"{DIR}/nginx.conf", "w") as file:
    file.write(NGINX)
with open(f"{DIR}/gateway.yaml", "w") as file:
    file.write("\n---\n".join(json.dumps(item) for item in OBJECTS))
threading.Thread(target=Server(("127.0.0.1", FLAKY), Flaky).serve_forever, daemon=True).start()
nginx = subprocess.Popen(["nginx", "-c", f"{DIR}/nginx.conf"])
with open(f"{DIR}/gateway.log", "w") as log:
    gateway = subprocess.Popen([SLUICE, "run", "-f", f"{DIR}/gateway.yaml", "--datapath=off", f"--workers={WORKERS}", f"--state-dir={DIR}/state",
                                f"--admin=127.0.0.1:{ADMIN}", f"--set=accessLog=json", f"--set=accessLogPath={DIR}/access.log"], stdout=log, stderr=log)
with ready(ADMIN, (gateway, nginx)):
    rows()
    outage()
lines = [json.loads(line) for line in open(f"{DIR}/access.log")]
tried = [line for line in lines if "id=a1" in line.get("url.query", "")]
check("the log says how often and why", [(line["upstream_attempts"], line.get("upstream_retried")) for line in tried], [(3, "status")])
finish(f"{DIR}/gateway.log")
