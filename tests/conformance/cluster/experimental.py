#!/usr/bin/env python3
"""Features of Gateway API v1.7.0 for which the suite has no test yet, at a real API server with real traffic.

    cargo xtask conformance --then 'python3 tests/conformance/cluster/experimental.py'

A whole run of the suite v1.7.0 ends with it. It runs where clients are, with KUBECONFIG set, beside a gateway of class
`sluice`; backends and authorization services are servers of its own. What it asks is what GEP-5093 (routability of
addresses) and GEP-5224 (filters of listeners) list as their tests. One line for what does not hold; the exit code says
whether all did.
"""

import http.client, http.server, ipaddress, json, os, socketserver, subprocess, sys, threading, time

CLUSTER_RANGE = ipaddress.ip_network("10.96.0.0/16")
POOL = ipaddress.ip_network("10.244.1.0/24")
HERE, NODE = "10.244.2.1", "10.244.2.254"
NAMESPACE = "experimental"
GROUP = "gateway.networking.k8s.io/v1"
WAIT = 60.0
HELD, FAILED = 0, []


def check(name, got, want=True):
    global HELD
    if got == want:
        HELD += 1
    else:
        FAILED.append(name)
        print(f"{name}: {str(got)[:600]}, want {str(want)[:300]}", flush=True)


# --- servers

class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    asked = None


class Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status, body, fields = self.told()
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **fields}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Ann(Quiet):
    def told(self):
        return 200, b"of ann", {}


class Others(Quiet):
    def told(self):
        return 200, b"of others", {}


class Auth(Quiet):
    """Knows one token, and whose it is."""
    def told(self):
        self.server.asked.append(self.path)
        known = self.headers.get("authorization") == "Bearer good"
        return (200, b"", {"x-user": "ann"}) if known else (401, b"who are you?", {})


def begin(handler):
    server = Server((HERE, 0), handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


# --- objects

def kubectl(*args, text=None):
    done = subprocess.run(["kubectl", *args], input=text, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def apply(*objects):
    listed = {"apiVersion": "v1", "kind": "List", "items": objects}
    code, _, error = kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=json.dumps(listed))
    if code != 0:
        sys.exit(f"kubectl apply: {error}")


def get(kind, name):
    code, out, _ = kubectl("-n", NAMESPACE, "get", kind, name, "-o", "json")
    return json.loads(out) if code == 0 else None


def object_of(kind, name, spec, version=GROUP):
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def service(name, server):
    port = server.server_address[1]
    slice_of = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": name}},
                "endpoints": [{"addresses": [HERE], "conditions": {"ready": True}}],
                "ports": [{"name": "http", "port": port, "protocol": "TCP"}]}
    return [object_of("Service", name, {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}, "v1"), slice_of]


def pod(name):
    """What packets are forwarded to: a pod, as the kernel plane does not send a client back to itself."""
    env = [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}}
           for key, path in (("POD_NAME", "metadata.name"), ("NAMESPACE", "metadata.namespace"))]
    runs = object_of("Pod", name, {"containers": [{
        "name": "echo", "image": "registry.k8s.io/gateway-api/conformance/echo-basic:v0.1.0", "env": env}]}, "v1")
    runs["metadata"]["labels"] = {"app": name}
    ports = [{"name": "http", "port": 80, "targetPort": 3000, "protocol": "TCP"}]
    return [runs, object_of("Service", "pod", {"selector": {"app": name}, "ports": ports}, "v1")]


def gateway(name, addresses, listeners=None):
    spec = {"gatewayClassName": "sluice", "listeners": listeners or [{"name": "http", "protocol": "HTTP", "port": 80}]}
    if addresses is not None:
        spec["addresses"] = addresses
    return object_of("Gateway", name, spec)


def route(name, parents, **rule):
    return object_of("HTTPRoute", name, {"parentRefs": parents, "rules": [rule]})


def to(name):
    return {"backendRefs": [{"name": name, "port": 80}]}


def ask(service):
    return {"type": "ExternalAuth", "externalAuth": {
        "protocol": "HTTP", "backendRef": {"name": service, "port": 80}, "http": {"allowedResponseHeaders": ["X-User"]}}}


# --- what is told

def conditions(status):
    return {one["type"]: (one["status"], one["reason"]) for one in status.get("conditions", [])}


def message(status, kind):
    return next((one["message"] for one in status.get("conditions", []) if one["type"] == kind), "")


def until(look, want):
    """The last value of `look`, `want` if it becomes that in time."""
    end = time.monotonic() + WAIT
    while True:
        got = look()
        if got == want or time.monotonic() > end:
            return got
        time.sleep(0.1)


def status(name, kind="gateway"):
    return (get(kind, name) or {}).get("status", {})


def sorts(name):
    """Of each address: where it comes from, and what it is called; never left out."""
    def sort(one):
        addr = ipaddress.ip_address(one["value"])
        origin = "cluster" if addr in CLUSTER_RANGE else "pool" if addr in POOL else "elsewhere"
        return origin, one.get("routability", "left out")
    return sorted(sort(one) for one in status(name).get("addresses", []))


def told(name):
    said = conditions(status(name))
    return said.get("AddressesAssigned"), said.get("Programmed")


ASSIGNED, PROGRAMMED = ("True", "AddressesAssigned"), ("True", "Programmed")
PARTLY, NOT = ("False", "PartiallyAssigned"), ("False", "NotAssigned")
UNASSIGNED = ("False", "AddressNotAssigned")


def address(name, routability=""):
    return next((one["value"] for one in status(name).get("addresses", []) if one.get("routability") == routability), None)


def fetch(addr, path="/", port=80, host="a.example", **fields):
    """Status and body."""
    try:
        client = http.client.HTTPConnection(addr, port, timeout=5)
        client.request("GET", path, headers={"host": host, **fields})
        answer = client.getresponse()
        return answer.status, answer.read().decode()
    except OSError as error:
        return 0, str(error)


def fetch_on_node(addr, port=80):
    """As a process of the node does, with the node's own routes."""
    url = f"http://{addr}:{port}/"
    command = ["nsenter", "--net=/run/netns/node", "curl", "-sS", "-m", "5", "-H", "host: a.example", url]
    return subprocess.run(command, capture_output=True, text=True).stdout


# --- parts

def routability():
    cluster = {"type": "IPAddress", "routability": "Cluster"}
    outside = {"type": "IPAddress", "routability": "Cluster", "value": "203.0.113.9"}
    both = [{"name": "http", "protocol": "HTTP", "port": 80}, {"name": "tcp", "protocol": "TCP", "port": 81}]
    # Only a new Gateway asks the API server for what another one holds.
    apply(
        gateway("inside", [cluster], both), gateway("mixed", [cluster, {"type": "IPAddress"}]), gateway("plain", None),
        gateway("twice", [cluster, cluster, {}, {"routability": ""}]), gateway("outside", [outside]),
        gateway("partly", [outside, {}]), gateway("static", [{**cluster, "value": "10.96.200.42"}]),
        gateway("sentinel", [{"routability": "testing.x-k8s.io/sentinel"}]),
        gateway("reserved", [{"routability": "testing.x-k8s.io/other"}]),
        gateway("vendor", [{"routability": "example.com/CorpWan"}, {}]),
        route("inside", [{"name": "inside", "sectionName": "http"}], **to("ann")),
        object_of("TCPRoute", "inside", {"parentRefs": [{"name": "inside", "sectionName": "tcp"}], "rules": [to("pod")]}),
    )
    for name, want, said in [
        ("inside", [("cluster", "Cluster")], (ASSIGNED, PROGRAMMED)),
        ("mixed", [("cluster", "Cluster"), ("pool", "")], (ASSIGNED, PROGRAMMED)),
        ("twice", [("cluster", "Cluster")] * 2 + [("pool", "")] * 2, (ASSIGNED, PROGRAMMED)),
        ("plain", [("pool", "")], (ASSIGNED, PROGRAMMED)),
        ("static", [("cluster", "Cluster")], (ASSIGNED, PROGRAMMED)),
        ("sentinel", [("pool", "testing.x-k8s.io/sentinel")], (ASSIGNED, PROGRAMMED)),
        ("outside", [], (NOT, UNASSIGNED)),
        ("partly", [("pool", "")], (PARTLY, PROGRAMMED)),
        ("reserved", [], (NOT, UNASSIGNED)),
        ("vendor", [("pool", "")], (PARTLY, PROGRAMMED)),
    ]:
        check(f"addresses of {name}", until(lambda: sorts(name), want), want)
        check(f"conditions of {name}", until(lambda: told(name), said), said)
    check("the static one", address("static", "Cluster"), "10.96.200.42")
    check("which is missing is said", "spec.addresses[0]" in message(status("partly"), "AddressesAssigned"))
    # Pods and nodes send what is for a ClusterIP to their own node.
    subprocess.run(["ip", "route", "replace", str(CLUSTER_RANGE), "via", NODE], check=True)
    inside = address("inside", "Cluster")
    check("requests to it", until(lambda: fetch(inside), (200, "of ann")), (200, "of ann"))
    echoed = lambda text: '"pod": "echo"' in text
    check("connections to it", until(lambda: echoed(fetch(inside, port=81)[1]), True))
    check("requests of the node to it", until(lambda: fetch_on_node(inside), "of ann"), "of ann")
    check("connections of the node to it", until(lambda: echoed(fetch_on_node(inside, 81)), True))
    stands = get("service", "inside-sluice-cluster") or {}
    label = stands.get("metadata", {}).get("labels", {}).get("service.kubernetes.io/service-proxy-name")
    check("kube-proxy leaves it alone", (stands.get("spec", {}).get("clusterIP"), label), (inside, "sluice.dev"))
    apply(gateway("mixed", [{"type": "IPAddress"}]))
    check("it is given back", until(lambda: (sorts("mixed"), get("service", "mixed-sluice-cluster")), ([("pool", "")], None)),
          ([("pool", "")], None))
    # What was given stays, whatever becomes of the listeners.
    apply(gateway("inside", [cluster], [{"name": "http", "protocol": "HTTP", "port": 8080}]))
    check("another port of it", until(lambda: fetch_on_node(inside, 8080), "of ann"), "of ann")
    check("it stays", (address("inside", "Cluster"), fetch(inside)[0]), (inside, 0))


def filters(auth):
    def listener(name, port, *requests):
        return {"name": name, "protocol": "HTTP", "port": port, "filters": {"requests": list(requests)}}

    unknown = {"type": "ExtensionRef", "extensionRef": {"group": "example.com", "kind": "SetRequestHeader", "name": "a"}}
    whole = gateway("asking", None, [
        listener("asked", 80, ask("auth"), ask("auth")), listener("missing", 81, ask("none")), listener("extended", 82, ask("auth"), unknown)])
    whole["spec"]["allowedListeners"] = {"namespaces": {"from": "Same"}}
    parent = lambda section, **more: [{"name": "asking", "sectionName": section, **more}]
    apply(
        whole, object_of("ListenerSet", "asking", {"parentRef": {"name": "asking"}, "listeners": [listener("more", 83, ask("auth"))]}),
        route("of-ann", parent("asked"), matches=[{"path": {"value": "/any"}, "headers": [{"name": "x-user", "value": "ann"}]}], **to("ann")),
        route("of-others", parent("asked"), matches=[{"path": {"value": "/any"}}], **to("others")),
        route("of-missing", parent("missing"), **to("others")), route("of-extended", parent("extended"), **to("others")),
        route("of-set", [{"kind": "ListenerSet", "name": "asking", "sectionName": "more"}], **to("others")),
    )

    def listeners(name, kind="gateway"):
        found = {one["name"]: conditions(one) for one in status(name, kind).get("listeners", [])}
        return {name: (said.get("Accepted"), said.get("ResolvedRefs")) for name, said in found.items()}

    fine = (("True", "Accepted"), ("True", "ResolvedRefs"))
    want = {"asked": fine, "missing": (fine[0], ("False", "InvalidListenerFilterRef")),
            "extended": (("False", "UnsupportedValue"), ("False", "InvalidListenerFilterRef"))}
    check("listeners", until(lambda: listeners("asking"), want), want)
    check("of the set", until(lambda: listeners("asking", "listenerset"), {"more": fine}), {"more": fine})
    addr = address("asking")
    good = {"authorization": "Bearer good"}
    check("who is known, by the route of that one", until(lambda: fetch(addr, "/any", **good), (200, "of ann")), (200, "of ann"))
    auth.asked.clear()
    fetch(addr, "/any", **good)
    check("each filter asks once", auth.asked, ["/any"] * 2)
    auth.asked.clear()
    check("who is not known", [fetch(addr, path) for path in ("/any", "/none")], [(401, "who are you?")] * 2)
    check("the second filter was not reached", auth.asked, ["/any", "/none"])
    check("no route", fetch(addr, "/none", **good)[0], 404)
    check("nobody can be asked", [until(lambda: fetch(addr, port=port, **good)[0], 500) for port in (81, 82)], [500, 500])
    want = [401, 200]
    check("at the set", until(lambda: [fetch(addr, port=83)[0], fetch(addr, port=83, **good)[0]], want), want)
    # A filter that comes or goes changes nothing but what it is about.
    del whole["spec"]["listeners"][0]["filters"]
    apply(whole)
    check("without filters", until(lambda: fetch(addr, "/any"), (200, "of others")), (200, "of others"))


def main():
    code, out, error = kubectl("get", "gatewayclass", "sluice", "-o", "jsonpath={.status.supportedFeatures[*].name}")
    claimed = {"GatewayAddressRoutability", "GatewayAddressRoutabilityCluster", "GatewayListenerFilters"}
    check("claimed", claimed - set(out.split()) or error, "")
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    auth = begin(Auth)
    apply(*service("ann", begin(Ann)), *service("others", begin(Others)), *service("auth", auth), *pod("echo"))
    began = time.monotonic()
    try:
        routability()
        filters(auth)
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    print(json.dumps({"held": HELD, "failed": FAILED, "seconds": round(time.monotonic() - began, 1)}), flush=True)
    sys.exit(1 if FAILED else 0)


main()
