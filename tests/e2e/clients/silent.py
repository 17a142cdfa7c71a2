"""silent.py TARGET SECONDS [frozen]: takes three messages of a server stream that says something only every SECONDS, and then shows that a limit
of 64 KiB is one of messages and not of streams. With `frozen`: says `open` at the first message of a long stream and reads on."""
import sys, time
import grpc
from echo import Echo, connect, request

target, seconds = sys.argv[1], float(sys.argv[2])
echo = Echo(connect(target))
if len(sys.argv) > 3:
    for number, reply in enumerate(echo.repeat(request(b"x" * 60_000, count=100_000), timeout=None)):
        if number == 0:
            print("open", flush=True)
        time.sleep(0.001)
replies = echo.repeat(request(b"x", count=3, delay_ms=int(seconds * 1000)), timeout=None)
began = time.time()
assert [reply.count for reply in replies] == [0, 1, 2]
assert time.time() - began > 2.5 * seconds

taken = echo.collect((request(b"y" * 30_000) for _ in range(100)), timeout=20)
assert taken.count == 3_000_000, taken.count
big = request(b"y" * 100_000)
for send in (lambda: echo.say(big, timeout=10), lambda: echo.collect(iter([request(b"y"), big]), timeout=10)):
    try:
        send()
        raise AssertionError("a message over the limit passed")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, (error.code(), error.details())
print("ok")
