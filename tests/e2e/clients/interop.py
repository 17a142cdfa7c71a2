"""interop.py TARGET [CA]: every kind of call; exits 0 when all came out right, else prints which did not."""
import sys, threading, time, traceback
import grpc
from echo import Echo, connect, request

channel = connect(*sys.argv[1:3])
echo = Echo(channel)
cases = []


def case(run):
    cases.append(run)
    return run


@case
def unary():
    reply = echo.say(request(b"hello"), timeout=10)
    assert reply.payload == b"hello" and reply.endpoint.startswith("be"), (reply.payload, reply.endpoint)


@case
def server_streaming():
    replies = list(echo.repeat(request(b"x" * 1000, count=500), timeout=20))
    assert [r.count for r in replies] == list(range(500)) and all(r.payload == b"x" * 1000 for r in replies)
    assert len({r.endpoint for r in replies}) == 1, "one stream, one endpoint"


@case
def client_streaming():
    reply = echo.collect((request(b"y" * 3000) for _ in range(300)), timeout=20)
    assert reply.count == 900_000, reply.count


@case
def bidirectional_streaming():
    replies = list(echo.chat((request(b"%d" % i) for i in range(200)), timeout=20))
    assert [r.payload for r in replies] == [b"%d" % i for i in range(200)]


@case
def ping_pong_needs_each_message_to_pass_at_once():
    gate = threading.Semaphore(1)

    def questions():
        for i in range(20):
            gate.acquire()
            yield request(b"%d" % i)

    for i, reply in enumerate(echo.chat(questions(), timeout=20)):
        assert reply.payload == b"%d" % i
        gate.release()


@case
def deadline():
    began = time.time()
    try:
        echo.say(request(b"late", delay_ms=5000), timeout=0.3)
        raise AssertionError("no deadline")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error.code()
    assert time.time() - began < 4.5


@case
def metadata():
    reply, call = echo.say.with_call(request(b"m"), timeout=10, metadata=[("x-text", "a" * 6000), ("x-raw-bin", b"\x00\xff\x10")])
    assert dict(call.initial_metadata()).get("x-endpoint", "").startswith("be"), call.initial_metadata()
    assert reply.payload == b"m"


@case
def error_status_with_message():
    for code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED):
        try:
            echo.say(request(b"", fail_with=code.value[0]), timeout=10)
            raise AssertionError("no error")
        except grpc.RpcError as error:
            assert error.code() == code and error.details() == "as demanded", (error.code(), error.details())


@case
def cancel():
    call = echo.repeat(request(b"c", count=100_000, delay_ms=20), timeout=30)
    next(call)
    call.cancel()
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.CANCELLED, error.code()
    assert echo.say(request(b"after"), timeout=10).payload == b"after"


@case
def large_message():
    payload = bytes(range(256)) * (20 * 4096)
    assert echo.say(request(payload), timeout=60).payload == payload, "20 MB come back as they went"


@case
def many_at_once():
    failed = []

    def work(n):
        for i in range(60):
            size = (n * 37 + i * 1013) % 40_000
            try:
                assert len(echo.say(request(b"z" * size), timeout=20).payload) == size
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(12)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failed, failed[:3]


wrong = 0
for run in cases:
    try:
        run()
    except Exception:
        wrong += 1
        print(f"{run.__name__}: {traceback.format_exc(limit=3)}")
print(f"{len(cases) - wrong} of {len(cases)} calls as they should")
sys.exit(1 if wrong else 0)
