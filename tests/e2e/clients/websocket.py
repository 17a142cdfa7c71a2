"""websocket.py SLUICE DIRECTORY: tunnels as clients and endpoints of others know them.

Endpoints are the server of `websockets` and a server of raw bytes, each with and without TLS; clients are `websockets`, and
`h2` and plain sockets (`wires.py`) with frames made here and read by `wsproto`. Everything runs on the loopback of the
namespace this is started in. Prints one JSON line; what does not hold is named, and the exit status is 1.
"""
import asyncio, collections, json, logging, os, queue, signal, socket, ssl, subprocess, sys, threading, time
import websockets.asyncio.server, websockets.sync.client
from wsproto import connection as wsproto, events as ws
from wires import Http1, Http2, OPENED, SECONDS, Tcp, Tls

SLUICE, DIR = sys.argv[1:3]
ADMIN, HTTP, HTTPS, WS, WSS, RAW, RAWS = range(8001, 8008)
CA = f"{DIR}/crt"
FAILED, HELD = [], 0
CLIENTS = {"HTTP/1.1": lambda: Http1(HTTP), "HTTP/1.1 and TLS": lambda: Http1(HTTPS, CA),
           "HTTP/2": lambda: Http2(HTTP), "HTTP/2 and TLS": lambda: Http2(HTTPS, CA)}


def check(name, got, want=True):
    global HELD
    if got == want:
        HELD += 1
    else:
        FAILED.append(f"{name}: {str(got)[:200]}, want {str(want)[:200]}")


def until(what, holds, seconds=SECONDS):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return check(what, "not in time", "in time")
        time.sleep(0.01)
    check(what, True)


# --- endpoints

HEARD = queue.Queue()
# Of those who break the protocol it would tell on and on.
logging.getLogger("websockets").setLevel(logging.CRITICAL)


def raw(pipe):
    """Agrees to anything. Says what it heard, and how much when that ends; or `x-first` speaks and ends before it listens."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += pipe.recv()
    head, _, heard = head.partition(b"\r\n\r\n")
    is_connect = head.startswith(b"CONNECT")
    pipe.send(b"HTTP/1.1 200 OK\r\n\r\n" if is_connect else b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: raw/1\r\n\r\n")
    first = b"x-first" in head.lower()
    if first:
        pipe.send(b"hello")
        pipe.finish()
    else:
        pipe.send(heard)
    total = heard
    while data := pipe.recv():
        total += data
        if not first:
            pipe.send(data)
    if not first:
        pipe.send(b"bye")
        pipe.finish()
    HEARD.put(total)
    pipe.close()


def serve_raw(port, context):
    listener = socket.create_server(("127.0.0.1", port), backlog=64)

    def one(sock):
        try:
            raw(Tls(sock, context, server_side=True) if context else Tcp(sock))
        except (OSError, ssl.SSLError) as error:
            HEARD.put(repr(error))
    while True:
        threading.Thread(target=one, args=[listener.accept()[0]], daemon=True).start()


async def serve_websockets(context):
    async def talk(it):
        if it.request.path == "/say":
            await it.send(["one ", "two ", "three"])
            await (await it.ping(b"there?"))
            return await it.close(4000, "said")
        async for message in it:
            await it.send(message)

    def may(it, request):
        return it.respond(403, "no\n") if request.path == "/no" else None
    options = {"process_request": may, "max_size": None, "ping_interval": None,
               "select_subprotocol": lambda it, asked: "chat" if "chat" in asked else None}
    async with websockets.asyncio.server.serve(talk, "127.0.0.1", WS, **options), \
            websockets.asyncio.server.serve(talk, "127.0.0.1", WSS, ssl=context, **options):
        await asyncio.get_running_loop().create_future()


# --- WebSocket

MORE, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode, data=b"", fin=True, masked=True, reserved=0):
    size = len(data)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big") if size < 1 << 16 else b"\x7f" + size.to_bytes(8, "big")
    head = bytes([fin << 7 | reserved << 4 | opcode, masked << 7 | length[0]]) + length[1:]
    if not masked:
        return head + data
    mask = os.urandom(4)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + (int.from_bytes(data, "big") ^ key).to_bytes(size, "big")


def close(code, reason=b""):
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


class Talk:
    def __init__(self, tunnel):
        assert tunnel.status in (101, 200), (tunnel.status, tunnel.fields)
        self.tunnel, self.it, self.events = tunnel, wsproto.Connection(wsproto.ConnectionType.CLIENT), collections.deque()

    def put(self, *frames):
        self.tunnel.send(b"".join(frames))

    def next(self):
        """What comes next, messages whole."""
        parts = []
        while True:
            while not self.events:
                data = self.tunnel.recv()
                if not data:
                    return "end"
                self.it.receive_data(data)
                self.events.extend(self.it.events())
            event = self.events.popleft()
            if isinstance(event, ws.CloseConnection):
                return "close", event.code, event.reason or ""
            if isinstance(event, ws.Ping | ws.Pong):
                return type(event).__name__, bytes(event.payload)
            parts.append(event.data)
            if event.message_finished:
                return "".join(parts) if isinstance(event, ws.TextMessage) else b"".join(parts)

    def closed(self, name, *want):
        """The other side's close frame and its end; then ours."""
        check(name, self.next(), ("close", *want))
        check(f"{name}, then the end", self.next(), "end")
        self.tunnel.finish()
        self.tunnel.close()


def messages(name, client, host):
    """In one tunnel: every opcode, sizes, cuts."""
    talk = Talk(client.open("websocket", "/chat?x=1", host, [("sec-websocket-protocol", "chat, other")]))
    check(f"{name} opens", talk.tunnel.status, 101 if isinstance(client, Http1) else 200)
    check(f"{name} subprotocol", talk.tunnel.fields.get("sec-websocket-protocol"), "chat")
    for size in (0, 1, 125, 126, 127, 128, 65535, 65536, 1 << 20):
        data = (bytes(range(256)) * (size // 256 + 1))[:size]
        talk.put(frame(BINARY, data))
        check(f"{name} {size} bytes", talk.next(), data)
        text = ("aß€𝄞" * (size // 10 + 1))[:size // 3]
        talk.put(frame(TEXT, text.encode()))
        check(f"{name} {size} bytes of text", talk.next(), text)
    text = "aß€𝄞"
    for cut in range(len(text.encode()) + 1):
        one, two = text.encode()[:cut], text.encode()[cut:]
        talk.put(frame(TEXT, one, False), frame(PING, b"%d" % cut), frame(MORE, two))
        check(f"{name} pong within a message cut at {cut}", talk.next(), ("Pong", b"%d" % cut))
        check(f"{name} a message cut at {cut}", talk.next(), text)
    talk.put(frame(BINARY, b"", False), frame(MORE, b"", False), frame(MORE, b"x", False), frame(MORE))
    check(f"{name} empty fragments", talk.next(), b"x")
    piece = b"y" * 1000
    talk.put(frame(BINARY, piece, False), *[frame(MORE, piece, False) for _ in range(255)], frame(MORE))
    check(f"{name} 257 fragments", talk.next(), piece * 256)
    for byte in frame(TEXT, text.encode()) + frame(PING, b"slow"):
        talk.put(bytes([byte]))
    check(f"{name} byte by byte", {talk.next(), talk.next()}, {text, ("Pong", b"slow")})
    for size in (0, 125):
        talk.put(frame(PONG, b"z" * size), frame(PING, b"z" * size))
        check(f"{name} a ping of {size}", talk.next(), ("Pong", b"z" * size))
    other = Talk(client.open("websocket", "/", host))
    for n in range(20):
        for at in (talk, other):
            at.put(frame(TEXT, b"%d" % n))
        check(f"{name} two tunnels", (other.next(), talk.next()), (str(n), str(n)))
    for at in (talk, other):
        at.put(close(1000, b"done"))
        at.closed(f"{name} 1000", 1000, "done")


def ends(name, client, host):
    """Who closes, with which code; and what a server does not forgive."""
    talk = Talk(client.open("websocket", "/say", host))
    check(f"{name} the server's fragments", talk.next(), "one two three")
    check(f"{name} the server's ping", talk.next(), ("Ping", b"there?"))
    talk.put(frame(PONG, b"there?"))
    check(f"{name} the server closes", talk.next(), ("close", 4000, "said"))
    talk.put(close(4000))
    check(f"{name} the server ends", talk.next(), "end")
    talk.tunnel.finish()
    for code in (None, 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
        reason = b"" if code in (None, 1000) else b"r" * 123
        talk = Talk(client.open("websocket", "/", host))
        talk.put(close(code, reason))
        talk.closed(f"{name} close {code}", 1005 if code is None else code, reason.decode())
    for what, data, code in [
            ("text that is not UTF-8", frame(TEXT, b"\xce\xba\xed\xa0\x80"), 1007), ("a reserved bit", frame(TEXT, b"x", reserved=2), 1002),
            ("a reserved opcode", frame(3), 1002), ("a reserved control frame", frame(11), 1002), ("no mask", frame(TEXT, b"x", masked=False), 1002),
            ("a long ping", frame(PING, b"x" * 126), 1002), ("a ping in fragments", frame(PING, b"x", False), 1002),
            ("a fragment of nothing", frame(MORE, b"x"), 1002), ("a message in a message", frame(TEXT, b"x", False) + frame(TEXT, b"y"), 1002),
            ("close 1005", close(1005), 1002), ("close 999", close(999), 1002), ("half a code", frame(CLOSE, b"x"), 1002)]:
        talk = Talk(client.open("websocket", "/", host))
        talk.put(data)
        check(f"{name} {what}", talk.next()[:2], ("close", code))
        talk.tunnel.finish()
        check(f"{name} {what} ends", talk.next(), "end")
        talk.tunnel.close()


def refused(name, client, host):
    tunnel = client.open("websocket", "/no", host)
    check(f"{name} refused", (tunnel.status, tunnel.body()), (403, b"no\n"))
    check(f"{name} serves on", tunnel.again(), 426)
    tunnel.close()


def others(name, tls, host):
    """The client of `websockets`, which compresses."""
    sock = socket.create_connection(("127.0.0.1", HTTPS if tls else HTTP), SECONDS)
    context = ssl.create_default_context(cafile=CA) if tls else None
    uri = f"{'wss' if tls else 'ws'}://{host}/"
    with websockets.sync.client.connect(uri, sock=sock, ssl=context, server_hostname="plain.example" if tls else None, max_size=None) as it:
        OPENED.append(it)
        check(f"{name} compresses", [str(one.name) for one in it.protocol.extensions], ["permessage-deflate"])
        for message in ("", "x", "grüße" * 50_000, b"", os.urandom(1 << 20), ["in ", "three ", "parts"]):
            it.send(message)
            check(f"{name} message", it.recv(SECONDS), "".join(message) if isinstance(message, list) else message)
        check(f"{name} ping", it.ping().wait(SECONDS))
        it.close(4001, "enough")
    check(f"{name} close", (it.close_code, it.close_reason), (4001, "enough"))


# --- half of a tunnel

LAGS = []


def halves(name, client, what, host):
    tunnel = client.open(what, "/raw", host)
    total = b""
    for size in (1, 1000, 60_000, 0):
        tunnel.send(b"x" * size)
        total += b"x" * size
        heard = b""
        while len(heard) < size:
            heard += tunnel.recv()
        check(f"{name} echo", heard, b"x" * size)
    tunnel.finish()
    rest = b""
    while data := tunnel.recv():
        rest += data
    check(f"{name} what comes after our end", rest, b"bye")
    check(f"{name} all was heard", HEARD.get(timeout=SECONDS), total)
    tunnel.close()
    tunnel = client.open(what, "/raw", host, [("x-first", "1")])
    heard = b""
    while data := tunnel.recv():
        heard += data
    check(f"{name} what came before its end", heard, b"hello")
    for _ in range(3):
        tunnel.send(b"late")
        time.sleep(0.02)
    began = time.monotonic()
    tunnel.finish()
    check(f"{name} what we say after its end", HEARD.get(timeout=SECONDS), b"late" * 3)
    LAGS.append(time.monotonic() - began)
    tunnel.close()


# --- the gateway


def get(path):
    done = subprocess.run(["curl", "-sSf", "-m", "5", f"http://127.0.0.1:{ADMIN}{path}"], capture_output=True, check=True)
    return done.stdout.decode()


def metric(name):
    return next(int(line.split()[1]) for line in get("/stats/prometheus").splitlines() if line.startswith(name + " "))


def config():
    crt, key = (open(f"{DIR}/{name}").read() for name in ("crt", "key"))
    api = "gateway.networking.k8s.io"
    yield {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "tls"}, "stringData": {"tls.crt": crt, "tls.key": key}}
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": crt}}
    yield {"apiVersion": f"{api}/v1", "kind": "Gateway", "metadata": {"name": "gw"}, "spec": {
        "gatewayClassName": "sluice", "addresses": [{"type": "IPAddress", "value": "127.0.0.1"}], "listeners": [
            {"name": "http", "protocol": "HTTP", "port": HTTP},
            {"name": "https", "protocol": "HTTPS", "port": HTTPS, "tls": {"certificateRefs": [{"name": "tls"}]}}]}}
    for host, secure, plain, bytes_ in (("plain", False, WS, RAW), ("secure", True, WSS, RAWS)):
        for name, port in ((f"{host}-ws", plain), (f"{host}-raw", bytes_)):
            yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {
                "ports": [{"port": 80, "appProtocol": f"kubernetes.io/{'wss' if secure else 'ws'}"}]}}
            yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                   "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                   "ports": [{"port": port}], "endpoints": [{"addresses": ["127.0.0.1"]}]}
            if secure:
                yield {"apiVersion": f"{api}/v1", "kind": "BackendTLSPolicy", "metadata": {"name": name}, "spec": {
                    "targetRefs": [{"group": "", "kind": "Service", "name": name}],
                    "validation": {"hostname": "plain.example", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}}}
        yield {"apiVersion": f"{api}/v1", "kind": "HTTPRoute", "metadata": {"name": host}, "spec": {
            "parentRefs": [{"name": "gw"}], "hostnames": [f"{host}.example"], "rules": [
                {"matches": [{"method": "CONNECT"}, {"path": {"type": "PathPrefix", "value": "/raw"}}], "backendRefs": [{"name": f"{host}-raw", "port": 80}]},
                {"backendRefs": [{"name": f"{host}-ws", "port": 80}]}]}}


def listening(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def seen():
    """What the admin shows of open tunnels."""
    until("all tunnels ended", lambda: metric("sluice_http_tunnels_active") == 0)
    check("each tunnel was counted", metric("sluice_http_tunnels_total"), len(OPENED))
    open_, talks = [], []
    for client in (make() for make in CLIENTS.values()):
        open_ += [client.open(what, "/raw", "secure.example") for what in ("raw/1", "connect")]
        talks.append(Talk(client.open("websocket")))
    kinds = collections.Counter(stream["kind"] for stream in json.loads(get("/api/v1/streams"))["items"])
    check("kinds of streams", kinds, {"websocket": 4, "upgrade": 4, "connect": 4})
    check("tunnels now", metric("sluice_http_tunnels_active"), 12)
    for tunnel in open_:
        tunnel.finish()
        check("bye", tunnel.recv() + tunnel.recv(), b"bye")
        HEARD.get(timeout=SECONDS)
    return talks


def drain(gateway, talks):
    """WebSocket clients are told, and the gateway waits for them."""
    talks[0].put(frame(TEXT, b"half a ", False))
    gateway.send_signal(signal.SIGTERM)
    talks[0].put(frame(MORE, b"message"))
    first = talks[0].next()
    check("a message under way", first in ("half a message", ("close", 1001, "")), True)
    for n, talk in enumerate(talks):
        check(f"going away {n}", first if n == 0 and first[0] == "close" else talk.next(), ("close", 1001, ""))
        if n >= 2:
            check("GOAWAY", talk.tunnel.http2.gone)
    time.sleep(0.3)
    check("the gateway waits", gateway.poll(), None)
    for n, talk in enumerate(talks):
        talk.put(close(1001))
        check(f"going away {n} ends", talk.next(), "end")
        talk.tunnel.finish()
        talk.tunnel.close()
    began = time.monotonic()
    check("the gateway's exit status", gateway.wait(SECONDS), 0)
    return round((time.monotonic() - began) * 1000)


os.makedirs(DIR, exist_ok=True)
subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", "/CN=tunnels",
                "-addext", "subjectAltName=DNS:plain.example", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", f"{DIR}/key", "-out", CA], check=True, capture_output=True)
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(CA, f"{DIR}/key")
threading.Thread(target=lambda: asyncio.run(serve_websockets(server)), daemon=True).start()
for port, context in ((RAW, None), (RAWS, server)):
    threading.Thread(target=serve_raw, args=(port, context), daemon=True).start()
with open(f"{DIR}/gateway.yaml", "w") as file:
    file.write("\n---\n".join(json.dumps(document) for document in config()))
with open(f"{DIR}/gateway.log", "w") as log:
    gateway = subprocess.Popen([SLUICE, "run", "-f", f"{DIR}/gateway.yaml", "--datapath=off", f"--admin=127.0.0.1:{ADMIN}", "--set=accessLog=off"], stdout=log, stderr=log)
took, exited = {}, None
try:
    for port in (HTTP, HTTPS, WS, WSS):
        until(f"somebody listens on {port}", lambda: listening(port))
    for kind, make in CLIENTS.items():
        began = time.monotonic()
        for host in ("plain.example", "secure.example"):
            for part in (messages, ends, refused):
                part(f"{kind} {host}", make(), host)
            for what in ("raw/1", "connect"):
                halves(f"{kind} {host} {what}", make(), what, host)
        took[kind] = round(time.monotonic() - began, 2)
    for tls in (False, True):
        for host in ("plain.example", "secure.example"):
            others(f"websockets {tls} {host}", tls, host)
    # Half of them, for the machine may be busy: it used to be the next tick of a timer.
    check("the last end is passed on at once", sorted(LAGS)[len(LAGS) // 2] < 0.2)
    exited = drain(gateway, seen())
except BaseException:
    print(open(f"{DIR}/gateway.log").read()[-2000:], *FAILED, sep="\n", file=sys.stderr)
    raise
finally:
    if gateway.poll() is None:
        gateway.kill()
print(json.dumps({"held": HELD, "failed": FAILED, "tunnels": len(OPENED), "seconds": took, "exitMs": exited}))
sys.exit(1 if FAILED else 0)
