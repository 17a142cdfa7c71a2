#!/usr/bin/env python3
"""What the cluster source promises, measured at a real API server and a real gateway.

    cargo xtask conformance --then 'python3 tests/conformance/cluster/acceptance.py [latency] [scale] [outage] [crash] [restart]'

It runs where clients are, with KUBECONFIG set, beside a gateway of class `sluice`, and needs nothing but Python. Its
endpoints are servers of its own. One JSON line for each part; the exit code says whether every promise was kept.

latency   an HTTPRoute is created; how long until a request is served by it: p99 <= 100 ms over 100 routes
scale     the same among 10,000 routes, and the gateway's memory: RSS <= 250 MiB
outage    the API server stands still for OUTAGE seconds (60) under load: no request fails; then nothing is written
crash     the API server is killed and begun again after OUTAGE seconds: likewise
restart   the gateway ends and comes back: nothing is written, the statuses stand as they stood
"""

import base64, http.client, http.server, json, os, re, signal, socket, ssl, subprocess, sys, tempfile, threading, time

ROUTES = int(os.environ.get("ROUTES", "100"))
OUTAGE = float(os.environ.get("OUTAGE", "60"))
SCALE = int(os.environ.get("SCALE", "10000"))
P99_MS_MAX = 100.0
RSS_MIB_MAX = 250
SETTLE = 5.0  # seconds in which a status that flaps would have been written
NAMESPACE = "acceptance"
GROUP = "/apis/gateway.networking.k8s.io/v1"
KIND = lambda kind: {"apiVersion": GROUP.removeprefix("/apis/"), "kind": kind}


class Api:
    """The API server, by the kubeconfig's client certificate."""

    def __init__(self):
        text = open(os.environ["KUBECONFIG"]).read()
        field = lambda name: re.search(name + r'"?:\s*"?([^\s",}]+)', text).group(1)
        self.host, port = re.match(r"https://(.+):(\d+)$", field("server")).groups()
        self.port = int(port)
        self.tls = ssl.create_default_context(cadata=base64.b64decode(field("certificate-authority-data")).decode())
        with tempfile.TemporaryDirectory() as folder:
            for name in ("client-certificate-data", "client-key-data"):
                with open(f"{folder}/{name}", "wb") as file:
                    file.write(base64.b64decode(field(name)))
            self.tls.load_cert_chain(f"{folder}/client-certificate-data", f"{folder}/client-key-data")
        self.connection = None

    def call(self, method, path, body=None, kind="application/json", timeout=30):
        for attempt in (1, 2):
            if self.connection is None:
                self.connection = http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self.tls)
            try:
                data = None if body is None else json.dumps(body)
                self.connection.request(method, path, data, {"content-type": kind})
                answer = self.connection.getresponse()
                text = answer.read()
                break
            except (OSError, http.client.HTTPException):
                self.connection = None
                if attempt == 2:
                    raise
        if answer.status >= 400 and not (method, answer.status) in (("DELETE", 404), ("POST", 409), ("GET", 404)):
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]}")
        return json.loads(text)


class Backend(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one segment: in two, Nagle's algorithm costs 40 ms

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


class World:
    """A Gateway with one Service, whose endpoint is this process."""

    def __init__(self, api):
        self.api = api
        probe = socket.create_connection((api.host, api.port))
        self.own = probe.getsockname()[0]
        probe.close()
        self.server = http.server.ThreadingHTTPServer((self.own, 0), Backend)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        port = self.server.server_address[1]
        meta = lambda name, **more: {"name": name, "namespace": NAMESPACE, **more}
        put = api.call
        put("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        put("POST", f"/api/v1/namespaces/{NAMESPACE}/services", {
            "metadata": meta("here"), "spec": {"ports": [{"port": 80, "targetPort": port}]}})
        put("POST", f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices", {
            "metadata": meta("here-1", labels={"kubernetes.io/service-name": "here"}), "addressType": "IPv4",
            "ports": [{"name": "", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [self.own], "conditions": {"ready": True}}]})
        put("POST", f"{GROUP}/namespaces/{NAMESPACE}/gateways", {
            **KIND("Gateway"), "metadata": meta("gate"), "spec": {"gatewayClassName": "sluice", "listeners": [
                {"name": "http", "port": 80, "protocol": "HTTP"}]}})
        self.address = wait("the Gateway is Programmed", 30, self.programmed)
        self.route("steady")
        wait("the steady route serves", 10, lambda: self.ask(self.connect(), "steady") == 200)

    def programmed(self):
        status = self.api.call("GET", f"{GROUP}/namespaces/{NAMESPACE}/gateways/gate")["status"]
        told = {one["type"]: one["status"] for one in status.get("conditions", [])}
        return told.get("Programmed") == "True" and status["addresses"][0]["value"]

    def route(self, name, api=None):
        (api or self.api).call("POST", f"{GROUP}/namespaces/{NAMESPACE}/httproutes", {
            **KIND("HTTPRoute"), "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"parentRefs": [{"name": "gate"}], "hostnames": [f"{name}.test"],
                     "rules": [{"backendRefs": [{"name": "here", "port": 80}]}]}})

    def connect(self):
        return http.client.HTTPConnection(self.address, 80, timeout=10)

    def ask(self, connection, name):
        connection.request("GET", "/", headers={"host": f"{name}.test"})
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def end(self):
        self.api.call("DELETE", f"/api/v1/namespaces/{NAMESPACE}")

    def versions(self):
        """resourceVersion of everything that has a status of ours."""
        found = {}
        for kind in ("gatewayclasses", "gateways", "httproutes"):
            for item in self.api.call("GET", f"{GROUP}/{kind}")["items"]:
                meta = item["metadata"]
                found[kind, meta.get("namespace", ""), meta["name"]] = meta["resourceVersion"]
        return found


class Load:
    """Requests on a few connections until it is told to end; every failure is kept."""

    def __init__(self, world, connections=4):
        self.world, self.served, self.failures, self.on = world, 0, [], True
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(connections)]
        for thread in self.threads:
            thread.start()

    def run(self):
        connection = self.world.connect()
        while self.on:
            try:
                status = self.world.ask(connection, "steady")
                if status != 200:
                    raise RuntimeError(f"status {status}")
                self.served += 1
            except Exception as error:  # any is a failed request
                self.failures.append(f"{time.time():.3f} {error!r}")
                connection = self.world.connect()
            time.sleep(0.005)

    def end(self):
        self.on = False
        for thread in self.threads:
            thread.join()
        return {"served": self.served, "failed": len(self.failures), "first": self.failures[:3]}


def wait(what, seconds, done):
    until = time.time() + seconds
    last = None
    while time.time() < until:
        try:
            last = done()
            if last:
                return last
        except (OSError, KeyError, IndexError, RuntimeError, http.client.HTTPException) as error:
            last = error
        time.sleep(0.02)
    raise SystemExit(f"{what}: not within {seconds} s ({last!r})")


def process(world, *words):
    """Pid and command line of the one process whose arguments begin with these words, of this cluster alone: a gateway has
    its KUBECONFIG, the API server listens on its address and shares the cluster's network. More than one is nobody's."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            args = open(f"/proc/{pid}/cmdline").read().split("\0")[:-1]
            if args[1:1 + len(words)] != list(words):
                continue
            environment = open(f"/proc/{pid}/environ").read().split("\0")
        except OSError:
            continue
        ours = f"KUBECONFIG={os.environ['KUBECONFIG']}" in environment
        if "apiserver" in words:
            folder = os.path.dirname(os.path.dirname(os.environ["KUBECONFIG"]))
            ours = f"--bind-address={world.api.host}" in args and any(folder in one for one in args)
        if ours and os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid"):
            found.append((int(pid), args))
    if len(found) != 1:
        raise SystemExit(f"{len(found)} processes `{' '.join(words)}` of this cluster are to be seen from here, not one")
    return found[0]


def latency(world, prefix="r"):
    times = []
    connection = world.connect()
    for number in range(ROUTES):
        # A name that nothing serves yet: what exists already would answer at once.
        name = f"{prefix}{number}"
        assert world.ask(connection, name) != 200, f"{name} is served before it exists"
        world.route(name)
        begin = time.perf_counter()
        while world.ask(connection, name) != 200:
            time.sleep(0.001)
        times.append((time.perf_counter() - begin) * 1e3)
        time.sleep(0.02)
    times.sort()
    at = lambda share: round(times[min(len(times) - 1, int(len(times) * share))], 1)
    figures = {"routes": ROUTES, "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": round(times[-1], 1)}
    return figures, at(0.99) <= P99_MS_MAX


def scale(world):
    """SCALE routes (10,000) are created; then the gateway's memory, and the latency of a change among them."""
    begin = time.perf_counter()

    def some(own):
        api = Api()
        for number in own:
            world.route(f"s{number}", api)

    parts = [threading.Thread(target=some, args=(range(first, SCALE, 8),), daemon=True) for first in range(8)]
    [part.start() for part in parts]
    [part.join() for part in parts]
    created = time.perf_counter() - begin
    connection = world.connect()
    wait("the last routes serve", 60, lambda: all(world.ask(connection, f"s{SCALE - n}") == 200 for n in range(1, 9)))

    def unsaid():
        items = world.api.call("GET", f"{GROUP}/namespaces/{NAMESPACE}/httproutes?resourceVersion=0")["items"]
        return sum(not item["status"]["parents"] for item in items if "status" in item) == 0

    wait("every route has its status", 240, lambda: time.sleep(2) or unsaid())
    told = time.perf_counter() - begin
    pid, _ = process(world, "run", "--kube")
    status = open(f"/proc/{pid}/status").read()
    mib = lambda name: int(re.search(name + r":\s+(\d+) kB", status).group(1)) // 1024
    figures, good = latency(world, "among")
    figures |= {"among": SCALE, "created_s": round(created, 1), "statuses_s": round(told, 1), "rss_mib": mib("VmRSS"),
                "peak_mib": mib("VmHWM")}
    return figures, good and mib("VmRSS") <= RSS_MIB_MAX


def changed(before, after):
    return sorted("/".join(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def outage(world):
    pid, _ = process(world, "apiserver")

    def away():
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(OUTAGE)
        finally:
            os.kill(pid, signal.SIGCONT)

    return lost(world, "outage", away)


def crash(world):
    pid, args = process(world, "apiserver")
    again = Again(pid, args)

    def away():
        os.kill(pid, signal.SIGKILL)
        time.sleep(OUTAGE)
        again.begin()
        # It answers before it knows all of its kinds and rights.
        wait("the API server is whole again", 60, lambda: world.versions() and world.api.call("GET", "/api/v1/namespaces"))

    return lost(world, "crash", away)


def lost(world, name, away):
    """The API server is away, then back: what was served is served, and nobody's status is written again."""
    before, load = world.versions(), Load(world)
    away()
    # It is told again, and hears again.
    begin = time.perf_counter()
    world.api.connection = None
    world.route(f"after-{name}")
    connection = world.connect()
    wait(f"a route made after the {name} serves", 30, lambda: world.ask(connection, f"after-{name}") == 200)
    heard = time.perf_counter() - begin
    time.sleep(SETTLE)
    requests = load.end()
    flaps = [one for one in changed(before, world.versions()) if not one.endswith((f"/after-{name}", f"{NAMESPACE}/gate"))]
    figures = {"seconds": OUTAGE, **requests, "flaps": flaps, "heard_again_after_s": round(heard, 2)}
    return figures, requests["failed"] == 0 and not flaps


class Again:
    """Begins a process anew, as it was and where it was."""

    def __init__(self, pid, args):
        environment = open(f"/proc/{pid}/environ").read().split("\0")
        self.environment = dict(pair.split("=", 1) for pair in environment if "=" in pair)
        self.spaces = [open(f"/proc/{pid}/ns/{name}") for name in ("net", "mnt")]
        self.args = [os.path.realpath(f"/proc/{pid}/exe"), *args[1:]]
        self.log = tempfile.TemporaryFile()

    def begin(self):
        flags = zip(("net", "mount"), self.spaces)
        enter = [f"--{name}=/proc/{os.getpid()}/fd/{space.fileno()}" for name, space in flags]
        return subprocess.Popen(["nsenter", *enter, "--", *self.args], env=self.environment, stdout=self.log, stderr=self.log,
                                pass_fds=[space.fileno() for space in self.spaces])


def restart(world):
    time.sleep(SETTLE)
    before = world.versions()
    pid, args = process(world, "run", "--kube")
    again = Again(pid, args)
    os.kill(pid, signal.SIGTERM)
    begin = time.perf_counter()

    def ended():
        try:
            return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            return True

    wait("the gateway ends", 40, ended)
    down = time.perf_counter() - begin
    new = again.begin()
    began = time.perf_counter()
    wait("the new process serves", 30, lambda: world.ask(world.connect(), "steady") == 200)
    serving = time.perf_counter() - began
    time.sleep(SETTLE + 16)  # beyond a lease that was not given back
    flaps = changed(before, world.versions())
    again.log.seek(0)
    lines = again.log.read().decode(errors="replace").splitlines()
    writes = [line for line in lines if "writes statuses" in line]
    figures = {"ended_after_s": round(down, 2), "served_after_s": round(serving, 2), "flaps": flaps, "alive": new.poll() is None,
               "leads": bool(writes)}
    return figures, not flaps and new.poll() is None and bool(writes)


def main():
    parts = {"latency": latency, "scale": scale, "outage": outage, "crash": crash, "restart": restart}
    asked = sys.argv[1:] or ["latency", "outage", "restart"]
    world = World(Api())
    kept = True
    for name in asked:
        figures, good = parts[name](world)
        print(json.dumps({"part": name, "kept": good, **figures}), flush=True)
        kept = kept and good
    world.end()
    sys.exit(0 if kept else 1)


main()
