"""Attackers, one after the other, against a gateway in front of nghttpd, on loopback.

usage: abuse.py SLUICE FOLDER

Frames are made by hyperframe and hpack, so that they can say what no client would. Of each attack it is asserted that
its connection is ended in time and for the reason it should be, that the counter of that limit went up, that a client
on another connection is served all the while, that the connection to the endpoint stays, and that memory does not grow.
Prints one line of JSON per attack, and `ok` at the end.
"""

import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request

import hpack
from hyperframe import frame as f

SLUICE, FOLDER = sys.argv[1], sys.argv[2]
CALM = 11
MIB = 1 << 20
CONFIG = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: sluice
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: http, protocol: HTTP, port: %(port)d}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: web}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /}}]
    backendRefs: [{name: app, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec: {ports: [{port: 80, targetPort: %(origin)d, appProtocol: kubernetes.io/h2c}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: app-1, labels: {kubernetes.io/service-name: app}}
addressType: IPv4
ports: [{port: %(origin)d}]
endpoints: [{addresses: [127.0.0.1]}]
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port):
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"nobody listens on {port}")


class Gateway:
    """A gateway of its own, with settings."""

    def __init__(self, origin, *settings):
        self.port, self.admin = free_port(), free_port()
        config = os.path.join(FOLDER, f"abuse-{self.port}.yaml")
        with open(config, "w") as file:
            file.write(CONFIG % {"port": self.port, "origin": origin})
        command = [SLUICE, "run", "-f", config, "--datapath=off", "--workers=1", f"--admin=127.0.0.1:{self.admin}"]
        command += [f"--set={setting}" for setting in ("accessLog=off", *settings)]
        self.log = open(config + ".log", "w")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        wait_for(self.port)
        wait_for(self.admin)
        self.good = Good(self.port)

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats/prometheus", timeout=5) as answer:
            return answer.read().decode()

    def metric(self, name, label=""):
        text = self.metrics()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if re.match(rf"{name}[{{ ]", line) and label in line
        )

    def rss(self):
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * 4096

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            parts = file.read().rsplit(")", 1)[1].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        failures = self.good.stop()
        self.process.terminate()
        self.process.wait(10)
        assert not failures, f"the good client: {failures[:3]}"


class Peer:
    """A connection on which frames are written by hand."""

    def __init__(self, port, settings=None, rcvbuf=None):
        self.sock = socket.socket()
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.read, self.sent, self.next_id = b"", 0, 1
        self.ended, self.goaway = False, None
        self.resets = []
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + f.SettingsFrame(settings=settings or {}).serialize())

    def send(self, data):
        """False when the peer took no more."""
        try:
            self.sock.settimeout(0.3)
            self.sock.sendall(data)
            self.sent += len(data)
            return True
        except TimeoutError:
            return False
        except OSError:
            self.ended = True
            return False

    def request(self, method="GET", path="/", end=True, more=()):
        head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a.b"), *more]
        frame = f.HeadersFrame(self.next_id, self.encoder.encode(head), flags=["END_HEADERS"])
        if end:
            frame.flags.add("END_STREAM")
        self.next_id += 2
        return frame.serialize()

    def frames(self, timeout):
        """Frames that come within `timeout`, and the end."""
        until = time.monotonic() + timeout
        while not self.ended:
            while len(self.read) >= 9:
                frame, length = f.Frame.parse_frame_header(memoryview(self.read[:9]))
                if len(self.read) < 9 + length:
                    break
                body, self.read = self.read[9 : 9 + length], self.read[9 + length :]
                frame.parse_body(memoryview(body))
                if isinstance(frame, f.GoAwayFrame):
                    self.goaway = (frame.error_code, frame.additional_data.decode())
                if isinstance(frame, f.RstStreamFrame):
                    self.resets.append((frame.stream_id, frame.error_code))
                if isinstance(frame, f.HeadersFrame):
                    frame.fields = self.decoder.decode(frame.data)
                yield frame
            self.sock.settimeout(max(until - time.monotonic(), 0.0001))
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                return
            except OSError:
                data = b""
            self.ended |= not data
            self.read += data

    def drain(self, timeout=0.0):
        for _ in self.frames(timeout):
            pass

    def status(self, timeout=5):
        for frame in self.frames(timeout):
            if isinstance(frame, f.HeadersFrame):
                return dict(frame.fields)[":status"]
        return None

    def close(self):
        self.sock.close()


class Good:
    """A client that asks all the time, on one connection."""

    def __init__(self, port):
        self.failures, self.slowest, self.count, self.stopped = [], 0.0, 0, False
        self.peer = Peer(port)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopped:
            began = time.monotonic()
            self.peer.send(self.peer.request())
            status = body = None
            for frame in self.peer.frames(5):
                if isinstance(frame, f.HeadersFrame):
                    status = dict(frame.fields)[":status"]
                if isinstance(frame, f.DataFrame):
                    window = f.WindowUpdateFrame(0, window_increment=max(frame.flow_controlled_length, 1))
                    self.peer.send(window.serialize() if frame.flow_controlled_length else b"")
                if frame.stream_id and "END_STREAM" in frame.flags:
                    body = True
                    break
            if status != "200" or not body:
                self.failures.append((self.count, status, self.peer.goaway))
                return
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.count += 1
            time.sleep(0.02)

    def stop(self):
        self.stopped = True
        self.thread.join(10)
        return self.failures


def raw(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def watched(gateway, name, act, rss_max=8 * MIB, floods=None, faults=None):
    """Runs an attack and asserts what holds for all of them."""
    label, family = (floods, "sluice_http_floods_total") if floods else (faults, "sluice_http_faults_total")
    counted = lambda: gateway.metric(family, f'"{label}') if label else 0
    upstream = lambda: gateway.metric("sluice_endpoint_connections_active")
    before, connections, rss, cpu = counted(), upstream(), gateway.rss(), gateway.cpu()
    own, began, good = time.process_time(), time.monotonic(), gateway.good.count
    told = act() or {}
    told.update(
        attack=name,
        seconds=round(time.monotonic() - began, 3),
        cpu=round(gateway.cpu() - cpu, 3),
        attackers_cpu=round(time.process_time() - own, 3),
        rss_growth=gateway.rss() - rss,
    )
    if told.get("sent", 0) > 100_000:
        told["held_by_sent"] = round(max(told["rss_growth"], 0) / told["sent"], 2)
    print(json.dumps(told), flush=True)
    if label:
        assert counted() > before, f"{name}: {family} of {label} did not grow"
    # Another one beside it is no loss: it was full.
    assert upstream() >= connections, f"{name}: the endpoint's connection was lost"
    assert told["rss_growth"] <= rss_max, f"{name}: {told}"
    deadline = time.monotonic() + 5
    while gateway.good.count == good and not gateway.good.failures and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gateway.good.count > good and not gateway.good.failures, f"{name}: the good client {gateway.good.failures}"


def flood(gateway, limit, batch, most, setup=None, settings=None, code=CALM, seconds=2.0, name=None, reads=True, rss_max=8 * MIB):
    """Sends `batch(peer)` (bytes, count) until the connection ends; about `most` of it
    is needed, and some of it is sent before the end is seen."""

    def act():
        peer = Peer(gateway.port, settings, None if reads else 4096)
        peer.drain(0.05)
        if setup:
            setup(peer)
        began, count = time.monotonic(), 0
        while not peer.ended and time.monotonic() - began < 5:
            data, units = batch(peer)
            took = peer.send(data)
            count += units
            if reads:
                peer.drain(0.002)
            elif not took:
                time.sleep(0.01)
            if peer.goaway:
                break
        took = time.monotonic() - began
        if reads:
            peer.drain(1)
            assert peer.ended, f"{limit}: not closed after {count} in {took:.2f} s"
            assert peer.goaway and peer.goaway[0] == code, f"{limit}: {peer.goaway}"
        assert peer.ended and took <= seconds, f"{limit}: {took:.3f} s, {count}"
        assert count <= 20 * most, f"{limit}: {count} of {most}"
        peer.close()
        return {"count": count, "sent": peer.sent, "goaway": peer.goaway and peer.goaway[1], "closed_after": round(took, 3)}

    watched(gateway, name or limit, act, rss_max=rss_max, floods=limit)


def opened(peer):
    """A request whose body is still to come."""
    peer.send(peer.request("POST", end=False))


def many(data, count):
    return lambda peer: (data * count, count)


def made(reset, count=20):
    """Requests that hang because their response has no window, each with something wrong behind it."""

    def batch(peer):
        parts = []
        for _ in range(count):
            stream = peer.next_id
            parts += [peer.request(), reset(stream)]
        return b"".join(parts), count

    return batch


NO_WINDOW = {f.SettingsFrame.INITIAL_WINDOW_SIZE: 0}
TRAILER = hpack.Encoder().encode([("x", "y")], huffman=False)


def floods(gateway):
    def resets(peer):
        parts = []
        for _ in range(50):
            stream = peer.next_id
            parts += [peer.request(), f.RstStreamFrame(stream, error_code=8).serialize()]
        return b"".join(parts), 50

    before = gateway.metric("sluice_endpoint_requests_total"), gateway.good.count
    flood(gateway, "resets", resets, 200, name="rapid reset")
    worked = gateway.metric("sluice_endpoint_requests_total") - before[0] - (gateway.good.count - before[1])
    assert worked <= 110, f"the endpoint saw {worked} requests of the rapid reset"
    primitives = {
        "WINDOW_UPDATE of 0": lambda stream: raw(8, 0, stream, bytes(4)),
        "window overflow": lambda stream: raw(8, 0, stream, b"\x7f\xff\xff\xff") * 2,
        "PRIORITY of 4 bytes": lambda stream: raw(2, 0, stream, bytes(4)),
        "PRIORITY on itself": lambda stream: raw(2, 0, stream, struct.pack(">IB", stream, 1)),
        "HEADERS behind the end": lambda stream: raw(1, 5, stream, TRAILER),
        "DATA behind the end": lambda stream: raw(0, 0, stream, bytes(17)),
    }
    for name, reset in primitives.items():
        flood(gateway, "made_resets", made(reset), 200, settings=NO_WINDOW, name=f"made reset: {name}")
    flood(gateway, "settings", many(raw(4, 0, 0), 200), 400)
    flood(gateway, "pings", many(raw(6, 0, 0, bytes(8)), 200), 400)
    flood(gateway, "priorities", many(raw(2, 0, 1, struct.pack(">IB", 0, 1)), 200), 400)
    flood(gateway, "window_updates", many(raw(8, 0, 0, struct.pack(">I", 1)), 200), 400)
    flood(gateway, "unknown_frames", many(raw(0x77, 0, 0, b"x"), 200), 400)
    flood(gateway, "empty_data", many(raw(0, 0, 1), 200), 400, setup=opened)
    flood(gateway, "small_data", many(raw(0, 0, 1, b"x"), 2000), 40_000, setup=opened)
    flood(gateway, "refused_streams", lambda peer: (b"".join(peer.request() for _ in range(100)), 100), 1500, settings=NO_WINDOW)


def blocks(gateway):
    # GET http / from the static table, and the authority without a place in the dynamic one.
    head = b"\x82\x86\x84\x01\x03a.b"
    begun = raw(1, 1, 1, head)
    flood(gateway, "continuations", many(raw(9, 0, 1), 20), 40, setup=lambda peer: peer.send(begun), name="CONTINUATION, empty")
    flood(gateway, "field_block", many(raw(9, 0, 1, bytes(16384)), 1), 12, setup=lambda peer: peer.send(begun), name="CONTINUATION, huge")

    def never_ended():
        peer = Peer(gateway.port)
        peer.send(begun)
        began = time.monotonic()
        peer.drain(3)
        took = time.monotonic() - began
        assert peer.ended and 0.4 < took < 2.9, f"a field block that does not end: {took}"

    watched(gateway, "CONTINUATION, never ended", never_ended, floods="field_block_time")

    def bomb(peer):
        table = raw(1, 5, 1, head + b"\x40\x01a\x7f" + hpack_int(3900 - 127) + b"v" * 3900)
        return table + raw(1, 5, 3, head + b"\xbe" * 4000), 1

    flood(gateway, "field_block", bomb, 2, name="HPACK bomb")

    def bombs():
        sent = 0
        for _ in range(20):
            peer = Peer(gateway.port)
            peer.send(bomb(peer)[0])
            peer.drain(1)
            assert peer.ended and peer.goaway[0] == CALM, peer.goaway
            sent += peer.sent
        return {"sent": sent}

    watched(gateway, "HPACK bombs", bombs, floods="field_block", rss_max=8 * MIB)
    answers = {
        "HPACK bomb, small": (b"\x40\x01a\x7f" + hpack_int(3900 - 127) + b"v" * 3900 + b"\xbe" * 20, "431"),
        "cookie crumbs": (b"\x00\x06cookie\x03a=b" * 1000, "431"),
        "tiny fields": (b"\x00\x01x\x00" * 3500, "431"),
        "table size churn": (None, "200"),
    }
    for name, (fields, wanted) in answers.items():
        def act():
            peer = Peer(gateway.port)
            block = head + fields if fields else (b"\x20\x3f\xe1\x1f" * 1000) + head
            peer.send(raw(1, 5, 1, block))
            status = peer.status()
            assert status == wanted, f"{name}: {status} {peer.goaway}"
            peer.next_id = 3
            peer.send(raw(1, 5, 3, head))
            assert peer.status() == "200", f"{name}: the connection serves no more"
            return {"sent": peer.sent, "status": status}

        watched(gateway, name, act)

    def end_of_string():
        peer = Peer(gateway.port)
        peer.send(raw(1, 5, 1, head + b"\x00\x01x\x84\xff\xff\xff\xff"))
        peer.drain(1)
        assert peer.ended and peer.goaway[0] == 9, peer.goaway

    watched(gateway, "Huffman EOS", end_of_string)


def hpack_int(rest):
    out = bytearray()
    while rest >= 128:
        out.append(rest % 128 + 128)
        rest //= 128
    out.append(rest)
    return bytes(out)


def unread(gateway):
    """Clients that do not read what they make the gateway say. The limits of the asking are off."""
    for name, data in {
        "PING": raw(6, 0, 0, bytes(8)),
        "SETTINGS": raw(4, 0, 0),
        "stream errors": raw(2, 0, 1, bytes(4)),
    }.items():
        flood(gateway, "outbound_", many(data, 2000), 10_000_000, seconds=4, name=f"unread answers to {name}", reads=False, rss_max=32 * MIB)


def taken(gateway, attackers, streams, act_on, name, rss_max, read=False, expect="stalled", limit=6):
    """Clients that ask for large bodies and do not take them."""

    def act():
        peers = [Peer(gateway.port, {f.SettingsFrame.INITIAL_WINDOW_SIZE: act_on["window"]}, rcvbuf=act_on.get("rcvbuf")) for _ in range(attackers)]
        for peer in peers:
            if act_on["window"]:
                peer.send(f.WindowUpdateFrame(0, window_increment=1 << 30).serialize())
            peer.send(b"".join(peer.request(path="/10m") for _ in range(streams)))
        began, peak = time.monotonic(), 0
        while time.monotonic() - began < limit:
            if act_on.get("drip"):
                for peer in peers:
                    peer.send(b"".join(f.WindowUpdateFrame(2 * n + 1, window_increment=1).serialize() for n in range(streams)))
            time.sleep(0.1)
            peak = max(peak, gateway.rss())
            if gateway.metric("sluice_http_streams_active") <= 1 and time.monotonic() - began > 1:
                break
        took = time.monotonic() - began
        left = gateway.metric("sluice_http_streams_active")
        assert left <= 1, f"{name}: {left} streams after {took:.1f} s"
        sent = sum(peer.sent for peer in peers)
        for peer in peers:
            peer.close()
        return {"sent": sent, "peak": peak, "ended_after": round(took, 1)}

    before = gateway.rss()
    peak = {}

    def wrapped():
        peak.update(act())
        return dict(peak)

    watched(gateway, name, wrapped, rss_max=rss_max, faults=expect)
    assert peak["peak"] - before <= rss_max, f"{name}: {peak['peak'] - before} bytes at its peak"


def slow(gateway):
    """HTTP/1.1 by drips. `timeouts.head` and `timeouts.body` are one second."""

    def drip(first, rest, pause, wanted, at_least, at_most):
        def act():
            sock = socket.create_connection(("127.0.0.1", gateway.port))
            sock.sendall(first)
            began, answer = time.monotonic(), b""
            sock.settimeout(pause)
            while time.monotonic() - began < 5:
                try:
                    data = sock.recv(4096)
                    if not data:
                        break
                    answer += data
                except TimeoutError:
                    try:
                        sock.sendall(rest)
                    except OSError:
                        break
                except OSError:
                    break
            took = time.monotonic() - began
            assert wanted in answer, f"{first}: {answer}"
            assert at_least <= took <= at_most, f"{first}: {took}"
            return {"closed_after": round(took, 2)}

        return act

    timed = dict(at_least=0.95, at_most=3)
    cut = b"HTTP/1.1 408"
    watched(gateway, "slow head", drip(b"GET / HTTP/1.1\r\n", b"x", 0.1, cut, **timed), faults="request_timeout")
    watched(gateway, "half a head", drip(b"GET / HTTP/1.1\r\nHost: a", b"", 0.1, cut, **timed), faults="request_timeout")
    body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
    watched(gateway, "slow body", drip(body, b"x", 0.1, cut, **timed), faults="request_timeout")
    chunks = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    watched(gateway, "slow chunks", drip(chunks, b"1\r\nx\r\n", 0.1, cut, **timed), faults="request_timeout")
    watched(gateway, "nothing at all", drip(b"", b"", 0.1, b"", 0.9, 3))

    def crowd():
        socks = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(1000)]
        for sock in socks:
            sock.sendall(b"GET / HTTP/1.1\r\nX: ")
        time.sleep(0.3)
        held = gateway.rss() - rss
        for sock in socks:
            sock.close()
        assert held <= 1000 * 16 * 1024, f"{held} bytes for a thousand slow heads"
        return {"held_per_connection": held // 1000}

    rss = gateway.rss()
    watched(gateway, "a thousand slow heads", crowd, rss_max=16 * MIB)


def messages(gateway):
    """A stream of small messages at a pace that is real: it must not be taken for a flood."""

    def act():
        peer = Peer(gateway.port)
        opened(peer)
        sent, began = 0, time.monotonic()
        message = raw(0, 0, 1, bytes(8))
        while sent < 100_000 and not peer.ended:
            due = int((time.monotonic() - began) * 30_000) + 20
            if sent < due:
                peer.send(message * (due - sent))
                sent = due
            peer.drain(0.005)
        assert not peer.ended and not peer.goaway, f"after {sent}: {peer.goaway}"
        return {"messages": sent}

    watched(gateway, "a stream of small messages", act)


def main():
    www = os.path.join(FOLDER, "abuse-www")
    os.makedirs(www, exist_ok=True)
    with open(os.path.join(www, "index.html"), "w") as file:
        file.write("hello")
    with open(os.path.join(www, "10m"), "wb") as file:
        file.truncate(10 * MIB)
    port = free_port()
    origin = subprocess.Popen(["nghttpd", "--no-tls", "-d", www, str(port)], stdout=subprocess.DEVNULL)
    gateways = []

    def gateway(*settings):
        gateways.append(Gateway(port, *settings))
        return gateways[-1]

    try:
        wait_for(port)
        strict = gateway("timeouts.fieldBlock=500ms")
        floods(strict)
        blocks(strict)
        messages(strict)
        strict.stop()
        open_ = "pingsBurst settingsBurst madeResetsBurst refusedStreamsBurst".split()
        unread(gateway(*(f"limits.{name}=100000000" for name in open_)))
        gateways[-1].stop()
        timed = gateway("timeouts.stall=1s", "timeouts.head=1s", "timeouts.body=1s")
        slow(timed)
        zero, dripping, unread_ = {"window": 0}, {"window": 1, "drip": True}, {"window": (1 << 31) - 1, "rcvbuf": 4096}
        taken(timed, 1, 100, zero, "no window", 64 * MIB)
        taken(timed, 1, 100, dripping, "window by drips", 64 * MIB)
        taken(timed, 1, 100, unread_, "nothing is read", 64 * MIB, expect=None)
        taken(timed, 100, 10, zero, "a hundred attackers without window", 96 * MIB, limit=10)
        timed.stop()
    finally:
        origin.terminate()
        for one in gateways:
            one.process.poll() is None and one.process.kill()
    print("ok")


main()
