"""testservice.py TARGET ROUNDS [CA]: the cases of grpc/doc/interop-test-descriptions.md by grpcio, and a few beside
them; exits 0 when all came out right in every round, else prints which did not."""
import os, queue, sys, time, traceback
import grpc

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
pb, services = grpc.protos_and_services("testservice.proto")
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0),
           ("grpc.use_local_subchannel_pool", 1),
           ("grpc.max_metadata_size", 1 << 20), ("grpc.absolute_max_metadata_size", 1 << 20)]
target, rounds = sys.argv[1], int(sys.argv[2])


def connect():
    if len(sys.argv) > 3:
        credentials = grpc.ssl_channel_credentials(open(sys.argv[3], "rb").read())
        return grpc.secure_channel(target, credentials, OPTIONS + [("grpc.ssl_target_name_override", "lab.sluice.dev")])
    return grpc.insecure_channel(target, OPTIONS)


channel = connect()
stub = services.TestServiceStub(channel)
absent = services.UnimplementedServiceStub(channel)
LIMIT = 20
SIZES_IN, SIZES_OUT = (27182, 8, 1828, 45904), (31415, 9, 2653, 58979)
cases = []


def case(run):
    cases.append(run)
    return run


def payload(size):
    return pb.Payload(body=bytes(size))


def out(sizes, **more):
    parameters = [pb.ResponseParameters(size=size) for size in sizes]
    return pb.StreamingOutputCallRequest(response_parameters=parameters, **more)


def fails(call, code, message=None):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        assert message is None or error.details() == message, error.details()
        return error
    raise AssertionError("no error")


class Questions:
    """Requests that are sent one by one."""

    def __init__(self):
        self.waiting = queue.Queue()

    def __iter__(self):
        return iter(self.waiting.get, None)


@case
def empty_unary():
    assert stub.EmptyCall(pb.Empty(), timeout=LIMIT) == pb.Empty()


@case
def large_unary():
    reply = stub.UnaryCall(pb.SimpleRequest(response_size=314159, payload=payload(271828)), timeout=LIMIT)
    assert reply.payload.body == bytes(314159)


@case
def client_streaming():
    requests = (pb.StreamingInputCallRequest(payload=payload(size)) for size in SIZES_IN)
    assert stub.StreamingInputCall(requests, timeout=LIMIT).aggregated_payload_size == 74922


@case
def server_streaming():
    replies = stub.StreamingOutputCall(out(SIZES_OUT), timeout=LIMIT)
    assert tuple(len(reply.payload.body) for reply in replies) == SIZES_OUT


@case
def ping_pong():
    questions = Questions()
    replies = stub.FullDuplexCall(iter(questions), timeout=LIMIT)
    for sent, wanted in zip(SIZES_IN, SIZES_OUT):
        questions.waiting.put(out([wanted], payload=payload(sent)))
        assert len(next(replies).payload.body) == wanted
    questions.waiting.put(None)
    assert list(replies) == []


@case
def empty_stream():
    assert list(stub.FullDuplexCall(iter(()), timeout=LIMIT)) == []


@case
def cancel_after_begin():
    questions = Questions()
    call = stub.StreamingInputCall.future(iter(questions), timeout=LIMIT)
    call.cancel()
    questions.waiting.put(None)
    assert call.cancelled() and call.code() == grpc.StatusCode.CANCELLED


@case
def cancel_after_first_response():
    questions = Questions()
    replies = stub.FullDuplexCall(iter(questions), timeout=LIMIT)
    questions.waiting.put(out([31415], payload=payload(27182)))
    assert len(next(replies).payload.body) == 31415
    replies.cancel()
    fails(lambda: next(replies), grpc.StatusCode.CANCELLED)
    questions.waiting.put(None)


@case
def timeout_on_sleeping_server():
    questions = Questions()
    replies = stub.FullDuplexCall(iter(questions), timeout=0.001)
    questions.waiting.put(out([31415], payload=payload(27182)))
    fails(lambda: list(replies), grpc.StatusCode.DEADLINE_EXCEEDED)
    questions.waiting.put(None)


@case
def status_code_and_message():
    wanted = pb.EchoStatus(code=2, message="test status message")
    request = pb.SimpleRequest(response_status=wanted)
    fails(lambda: stub.UnaryCall(request, timeout=LIMIT), grpc.StatusCode.UNKNOWN, wanted.message)
    request = pb.StreamingOutputCallRequest(response_status=wanted)
    fails(lambda: list(stub.FullDuplexCall(iter([request]), timeout=LIMIT)), grpc.StatusCode.UNKNOWN, wanted.message)


@case
def special_status_message():
    text = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
    request = pb.SimpleRequest(response_status=pb.EchoStatus(code=2, message=text))
    fails(lambda: stub.UnaryCall(request, timeout=LIMIT), grpc.StatusCode.UNKNOWN, text)


@case
def unimplemented_method():
    fails(lambda: stub.UnimplementedCall(pb.Empty(), timeout=LIMIT), grpc.StatusCode.UNIMPLEMENTED)


@case
def unimplemented_service():
    fails(lambda: absent.UnimplementedCall(pb.Empty(), timeout=LIMIT), grpc.StatusCode.UNIMPLEMENTED)


@case
def custom_metadata():
    initial, trailing = ("x-grpc-test-echo-initial", "test_initial_metadata_value"), b"\xab\xab\xab"
    sent = (initial, ("x-grpc-test-echo-trailing-bin", trailing))
    request = pb.SimpleRequest(response_size=314159, payload=payload(271828))
    _, call = stub.UnaryCall.with_call(request, timeout=LIMIT, metadata=sent)
    assert dict(call.initial_metadata()).get(initial[0]) == initial[1]
    assert dict(call.trailing_metadata()).get("x-grpc-test-echo-trailing-bin") == trailing
    stream = stub.FullDuplexCall(iter([out([314159], payload=payload(271828))]), timeout=LIMIT, metadata=sent)
    list(stream)
    assert dict(stream.initial_metadata()).get(initial[0]) == initial[1]
    assert dict(stream.trailing_metadata()).get("x-grpc-test-echo-trailing-bin") == trailing


@case
def error_details_pass_whole():
    # 60,000 octets in base64; the limit of a response's fields, 64 KiB, counts them all.
    size = 45_000
    wanted = pb.SimpleRequest(response_status=pb.EchoStatus(code=9, message="details"))
    error = fails(lambda: stub.UnaryCall(wanted, timeout=LIMIT, metadata=(("details-bytes", str(size)),)),
                  grpc.StatusCode.FAILED_PRECONDITION, "details")
    assert dict(error.trailing_metadata())["grpc-status-details-bin"] == b"\x5a" * size


@case
def every_status():
    for code in grpc.StatusCode:
        if code != grpc.StatusCode.OK:
            wanted = pb.EchoStatus(code=code.value[0], message=code.name)
            fails(lambda: stub.UnaryCall(pb.SimpleRequest(response_status=wanted), timeout=LIMIT), code, code.name)


wrong = ran = 0
for _ in range(rounds):
    for run in cases:
        ran += 1
        try:
            run()
        except Exception:
            wrong += 1
            print(f"{run.__name__}: {traceback.format_exc(limit=3)}")

# 1,000 deadlines, 50 at a time over ten connections (each is a RST_STREAM, of which a client may not send floods): each
# is told as such, and not much late.
stubs = [services.TestServiceStub(connect()) for _ in range(10)]
late = []
sleepy = pb.StreamingOutputCallRequest(response_parameters=[pb.ResponseParameters(size=1, interval_us=150_000)])
for _ in range(20):
    calls = [(time.time(), stub.StreamingOutputCall(sleepy, timeout=0.1)) for stub in stubs for _ in range(5)]
    for started, call in calls:
        ran += 1
        try:
            fails(lambda: list(call), grpc.StatusCode.DEADLINE_EXCEEDED)
        except Exception:
            wrong += 1
            print(f"deadline: {traceback.format_exc(limit=2)}")
    late.append(time.time() - calls[0][0])
if max(late) > 2:
    wrong += 1
    print(f"deadlines of 100 ms took up to {max(late):.1f} s")
print(f"{ran - wrong} of {ran} calls as they should")
sys.exit(1 if wrong else 0)
