"""Connections on which tunnels are opened: of HTTP/1.1 and HTTP/2 (RFC 8441), in plain text and in TLS, byte by byte and half by half.

A side that ends says so (FIN, close_notify, END_STREAM); an end of another kind is an error here.
"""
import base64, hashlib, os, socket, ssl
import h2.config, h2.connection, h2.events

SECONDS = 10
# Tunnels that were opened.
OPENED = []

# --- transports


class Tcp:
    def __init__(self, sock):
        self.sock = sock
        sock.settimeout(SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data):
        self.sock.sendall(data)

    def recv(self):
        return self.sock.recv(65536)

    def finish(self):
        self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.sock.close()


class Tls(Tcp):
    """Whose directions end one by one, by close_notify; an end without it is an error."""

    def __init__(self, sock, context, **more):
        super().__init__(sock)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.it = context.wrap_bio(self.incoming, self.outgoing, **more)
        self.turn(self.it.do_handshake)

    def turn(self, call, *args):
        while True:
            try:
                done = call(*args)
                self.sock.sendall(self.outgoing.read())
                return done
            except ssl.SSLWantReadError:
                self.sock.sendall(self.outgoing.read())
                data = self.sock.recv(65536)
                self.incoming.write(data) if data else self.incoming.write_eof()

    def send(self, data):
        for at in range(0, len(data), 1 << 16):
            self.turn(self.it.write, data[at:at + (1 << 16)])

    def recv(self):
        try:
            return self.turn(self.it.read, 65536)
        except ssl.SSLZeroReturnError:
            return b""

    def finish(self):
        try:
            self.it.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.sock.sendall(self.outgoing.read())


def connect(port, ca, alpn):
    """TLS, if there is an authority for it."""
    sock = socket.create_connection(("127.0.0.1", port), SECONDS)
    if not ca:
        return Tcp(sock)
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols([alpn])
    return Tls(sock, context, server_hostname="plain.example")


# --- clients


class Http1:
    """A tunnel is a connection."""

    def __init__(self, port, ca=None):
        self.at = port, ca

    def open(self, what, path="/", host="plain.example", more=()):
        return Tunnel1(connect(*self.at, "http/1.1"), what, path, host, more)


class Tunnel1:
    def __init__(self, pipe, what, path, host, more):
        self.pipe, self.got = pipe, b""
        if what == "connect":
            head = f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n"
        else:
            head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\nUpgrade: {what}\r\n"
        key = base64.b64encode(os.urandom(16)).decode()
        if what == "websocket":
            head += f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        pipe.send((head + "".join(f"{name}: {value}\r\n" for name, value in more) + "\r\n").encode())
        self.answer()
        if what == "websocket" and self.status == 101:
            accept = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
            assert self.fields["sec-websocket-accept"] == base64.b64encode(accept).decode(), "the answer to another key"
        if self.status in (101, 200):
            OPENED.append(self)

    def answer(self):
        while b"\r\n\r\n" not in self.got:
            self.more()
        head, _, self.got = self.got.partition(b"\r\n\r\n")
        start, *lines = head.decode().split("\r\n")
        self.status = int(start.split()[1])
        self.fields = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}

    def more(self):
        data = self.pipe.recv()
        if not data:
            raise EOFError
        self.got += data

    def body(self):
        while len(self.got) < int(self.fields["content-length"]):
            self.more()
        body, self.got = self.got, b""
        return body

    def again(self):
        """Status of a GET behind what was refused."""
        self.pipe.send(b"GET / HTTP/1.1\r\nHost: plain.example\r\n\r\n")
        self.answer()
        return self.status

    def recv(self):
        data, self.got = self.got or self.pipe.recv(), b""
        return data

    def send(self, data):
        self.pipe.send(data)

    def finish(self):
        self.pipe.finish()

    def close(self):
        self.pipe.close()


class Http2:
    """A tunnel is a stream."""

    def __init__(self, port, ca=None):
        self.pipe = connect(port, ca, "h2")
        self.it = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.it.initiate_connection()
        self.raw, self.streams, self.settled, self.gone = b"", {}, False, False
        while not self.settled:
            self.turn()
        assert self.it.remote_settings.enable_connect_protocol == 1, "extended CONNECT is not offered"

    def flush(self):
        self.pipe.send(self.it.data_to_send())

    def turn(self):
        self.flush()
        data = self.pipe.recv()
        if not data:
            raise EOFError
        self.raw, whole = self.raw + data, b""
        while len(self.raw) >= 9 and len(self.raw) >= (size := 9 + int.from_bytes(self.raw[:3], "big")):
            # h2 takes a GOAWAY for the end of all streams (RFC 9113 6.8 does not): it is not told.
            if self.raw[3] == 7:
                self.gone = True
            else:
                whole += self.raw[:size]
            self.raw = self.raw[size:]
        for event in self.it.receive_data(whole):
            stream = self.streams.get(getattr(event, "stream_id", None))
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self.settled = True
            elif isinstance(event, h2.events.ResponseReceived):
                stream.fields = dict(event.headers)
                stream.status = int(stream.fields[":status"])
            elif isinstance(event, h2.events.DataReceived):
                stream.got += event.data
                self.it.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                stream.ended = True
            elif isinstance(event, h2.events.StreamReset):
                stream.ended = stream.ended or f"reset with {event.error_code!r}"
        self.flush()

    def open(self, what, path="/", host="plain.example", more=()):
        return Tunnel2(self, what, path, host, more)


class Tunnel2:
    def __init__(self, http2, what, path, host, more):
        self.http2, self.id = http2, http2.it.get_next_available_stream_id()
        self.status, self.got, self.ended = None, b"", False
        http2.streams[self.id] = self
        head = [(":method", "CONNECT"), (":authority", f"{host}:443" if what == "connect" else host)]
        if what != "connect":
            head += [(":protocol", what), (":scheme", "http"), (":path", path)]
        if what == "websocket":
            head.append(("sec-websocket-version", "13"))
        http2.it.send_headers(self.id, head + list(more))
        while self.status is None:
            http2.turn()
        if self.status == 200:
            OPENED.append(self)

    def body(self):
        body = b""
        while data := self.recv():
            body += data
        return body

    def again(self):
        """Status of a GET behind what was refused."""
        stream = self.http2.it.get_next_available_stream_id()
        self.http2.streams[stream], self.status = self, None
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", "plain.example"), (":path", "/")]
        self.http2.it.send_headers(stream, fields, end_stream=True)
        while self.status is None:
            self.http2.turn()
        return self.status

    def recv(self):
        while not self.got and not self.ended:
            self.http2.turn()
        if not self.got and self.ended is not True:
            raise OSError(self.ended)
        data, self.got = self.got, b""
        return data

    def send(self, data):
        while data:
            room = min(len(data), self.http2.it.local_flow_control_window(self.id), self.http2.it.max_outbound_frame_size)
            if room:
                self.http2.it.send_data(self.id, data[:room])
                data = data[room:]
                self.http2.flush()
            else:
                self.http2.turn()

    def finish(self):
        self.http2.it.end_stream(self.id)
        self.http2.flush()

    def close(self):
        pass
