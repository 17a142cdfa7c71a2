"""drain.py HOST H1_PORT H2_PORT SECONDS: calls over HTTP/1.1 (8 connections) and HTTP/2 (4 of 10 streams each) until each server says goodbye, at
most SECONDS. A request failed if it was sent on a connection that had not said goodbye and got no whole answer; streams above the last id of a
GOAWAY are safe to send elsewhere and are not counted as failed."""
import http.client, json, socket, sys, threading, time
import h2.config, h2.connection, h2.events
from h2.connection import ConnectionInputs, ConnectionState, H2ConnectionStateMachine

# The library hears nothing more after a GOAWAY; RFC 9113 6.8 has the streams up to its last id go on.
H2ConnectionStateMachine._transitions[(ConnectionState.CLIENT_OPEN, ConnectionInputs.RECV_GOAWAY)] = (None, ConnectionState.CLIENT_OPEN)

host, h1_port, h2_port, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
body = b"\0\0\0\0\7\x0a\5hello"
path = "/sluice.demo.v1.Echo/Say"
end = time.time() + seconds
result = dict(ok=0, failed=0, safe=0, goodbyes=0, first=None)
lock = threading.Lock()


def count(**more):
    with lock:
        for key, value in more.items():
            if key == "first":
                result[key] = result[key] or value
            else:
                result[key] += value


def http1():
    connection = http.client.HTTPConnection(host, h1_port, timeout=10)
    connection.connect()
    try:
        while time.time() < end:
            connection.request("POST", path, body, {"content-type": "application/grpc", "te": "trailers"})
            response = connection.getresponse()
            response.read()
            assert response.status == 200, response.status
            count(ok=1)
            if response.will_close:
                return count(goodbyes=1)
    except Exception as error:
        count(failed=1, first=f"HTTP/1.1: {error!r}")


def http2():
    sock = socket.create_connection((host, h2_port), timeout=10)
    connection = h2.connection.H2Connection(h2.config.H2Configuration())
    connection.initiate_connection()
    open_streams, last = set(), None
    head = [(":method", "POST"), (":scheme", "http"), (":authority", host), (":path", path),
            ("content-type", "application/grpc"), ("te", "trailers")]
    ended = ""
    while True:
        while last is None and len(open_streams) < 10 and time.time() < end:
            stream = connection.get_next_available_stream_id()
            connection.send_headers(stream, head)
            connection.send_data(stream, body, end_stream=True)
            open_streams.add(stream)
        if not open_streams:
            break
        try:
            sock.sendall(connection.data_to_send())
            data = sock.recv(65536)
        except OSError as error:
            ended = repr(error)
            break
        if not data:
            ended = "the end of the connection"
            break
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                open_streams.discard(event.stream_id)
                count(ok=1)
            elif isinstance(event, h2.events.StreamReset):
                open_streams.discard(event.stream_id)
                count(failed=1, first=f"HTTP/2: reset {event.error_code}")
            elif isinstance(event, h2.events.DataReceived):
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.ConnectionTerminated):
                if last is None:
                    count(goodbyes=1)
                last = event.last_stream_id
                over = {stream for stream in open_streams if stream > last}
                open_streams -= over
                count(safe=len(over))
    if open_streams:
        count(failed=len(open_streams), first=f"HTTP/2: {len(open_streams)} streams, {ended}")


threads = [threading.Thread(target=http1) for _ in range(8)] + [threading.Thread(target=http2) for _ in range(4)]
[thread.start() for thread in threads]
print("open", flush=True)
[thread.join() for thread in threads]
print(json.dumps(result), flush=True)
