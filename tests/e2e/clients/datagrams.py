"""UDP peers over Python's own sockets.

    datagrams.py serve NAME PORT             answers `NAME CLIENT-ADDRESS` and the datagram, over IPv4 and IPv6, UDP and TCP
    datagrams.py spread ADDRESS PORT FLOWS   one datagram from each of so many ports; prints how often each name answered
    datagrams.py ask KIND ADDRESS PORT TIMES OWN   so many datagrams (udp) or connections (tcp) from the address OWN; counts by name
    datagrams.py hold ADDRESS PORT           one flow, a datagram every 10 ms until stdin ends; prints what it saw
"""
import collections
import json
import resource
import selectors
import socket
import sys
import threading
import time

BATCH = 100
# No flow of a test is held for longer.
HOLD_SECONDS = 30
# What is not answered after so long without any answer is lost.
LATE_SECONDS = 2
# Each listener is asked from ports of its own: hashes are the same in every run, and no port comes back through another VIP.
FIRST_PORT = 20000


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def answer(sock, name):
    while True:
        try:
            body, client = sock.recvfrom(65536)
            sock.sendto(f"{name} {client[0]}\n".encode() + body, client)
        except OSError:
            pass


def accept(server, name):
    while True:
        sock, _ = server.accept()
        with sock:
            sock.sendall(name.encode())


def serve(name, port):
    for address in ("0.0.0.0", "::"):
        sock = socket.socket(family(address), socket.SOCK_DGRAM)
        if address == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((address, port))
        threading.Thread(target=answer, args=(sock, name), daemon=True).start()
    server = socket.create_server(("", port))
    print("serving", flush=True)
    accept(server, name)


def connected(address, port, own=0):
    sock = socket.socket(family(address), socket.SOCK_DGRAM)
    sock.bind(("", own))
    # Connected: an answer from anywhere else than the asked address and port is not read.
    sock.connect((address, port))
    return sock


def spread(address, port, flows):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    seen = collections.Counter()
    wrong = 0
    for start in range(0, flows, BATCH):
        waiting = selectors.DefaultSelector()
        for number in range(start, min(start + BATCH, flows)):
            sock = connected(address, port, FIRST_PORT + port % 10 * 1000 + number)
            sock.send(f"datagram {number}".encode())
            waiting.register(sock, selectors.EVENT_READ, number)
        while waiting.get_map() and (ready := waiting.select(timeout=LATE_SECONDS)):
            for key, _ in ready:
                waiting.unregister(key.fileobj)
                head, _, body = key.fileobj.recv(65536).partition(b"\n")
                wrong += body != f"datagram {key.data}".encode()
                seen[head.decode().split()[0]] += 1
                key.fileobj.close()
        for key in list(waiting.get_map().values()):
            seen["lost"] += 1
            key.fileobj.close()
    print(json.dumps({"seen": seen, "wrong": wrong}))


def hold(address, port):
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    sock = connected(address, port)
    names, waiting, newest, longest, answered = [], set(), -1, 0, time.monotonic()

    def hear(seconds):
        """Takes one answer; a late one is as good as any, only the newest says who serves now."""
        nonlocal newest, longest, answered
        sock.settimeout(seconds)
        try:
            head, _, body = sock.recv(65536).partition(b"\n")
        except OSError:
            return False
        now, number, name = time.monotonic(), int(body), head.split()[0].decode()
        longest, answered = max(longest, now - answered), now
        waiting.discard(number)
        if number > newest:
            newest = number
            if names[-1:] != [name]:
                names.append(name)
                print(name, flush=True)
        return True

    number, over = 0, time.monotonic() + HOLD_SECONDS
    while not ended.is_set() and time.monotonic() < over:
        waiting.add(number)
        try:
            sock.send(b"%d" % number)
        except OSError:
            pass  # what the host said of an earlier one
        while hear(0.25) and number in waiting:
            pass
        number += 1
        time.sleep(0.01)
    while waiting and hear(LATE_SECONDS):
        pass
    print(json.dumps({"names": names, "lost": len(waiting), "longest_ms": int(longest * 1000)}))


def ask(kind, address, port, times, own):
    """So many flows of one client at once; a flow that nobody answers within a second is lost."""
    seen = collections.Counter()
    waiting = selectors.DefaultSelector()
    for _ in range(times):
        sock = socket.socket(family(address), socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((own, 0))
        sock.connect_ex((address, port))
        if kind == "udp":
            sock.send(b"who?")
        waiting.register(sock, selectors.EVENT_READ)
    until = time.monotonic() + 1
    while waiting.get_map() and time.monotonic() < until:
        for key, _ in waiting.select(timeout=0.1):
            waiting.unregister(key.fileobj)
            try:
                answer = key.fileobj.recv(65536)
            except OSError:
                answer = b""
            seen[answer.split()[0].decode() if answer else "lost"] += 1
            key.fileobj.close()
    for key in list(waiting.get_map().values()):
        seen["lost"] += 1
        key.fileobj.close()
    print(json.dumps(seen))


if sys.argv[1] == "serve":
    serve(sys.argv[2], int(sys.argv[3]))
elif sys.argv[1] == "spread":
    spread(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
elif sys.argv[1] == "ask":
    ask(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
else:
    hold(sys.argv[2], int(sys.argv[3]))
