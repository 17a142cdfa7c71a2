"""Calls of every kind against a server that echoes messages, by grpcio. Usage: grpc_echo.py TARGET [CA-FILE]"""

import sys
import time

import grpc


def same(got, expected):
    if got != expected:
        raise AssertionError(f"got {len(got)} bytes or items, expected {len(expected)}")


def main(target, ca=None):
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    if ca:
        with open(ca, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        options.append(("grpc.ssl_target_name_override", "localhost"))
        channel = grpc.secure_channel(target, credentials, options)
    else:
        channel = grpc.insecure_channel(target, options)

    unary = channel.unary_unary("/two.Echo/Unary")
    for size in [0, 1, 100, 16_384, 70_000, 1_000_000]:
        same(unary(bytes(size), timeout=20), bytes(size))
    big = bytes(range(256)) * 78_125
    same(unary(big, timeout=20), big)

    response, call = unary.with_call(b"x", timeout=20, metadata=[("x-one", "1"), ("x-two-bin", b"\x00\xff")])
    same(response, b"x")
    if call.code() is not grpc.StatusCode.OK or dict(call.initial_metadata())["x-endpoint"] != "two":
        raise AssertionError(call)

    messages = [bytes([n]) * n for n in range(200)]
    stream = channel.stream_stream("/two.Echo/Stream")
    same(list(stream(iter(messages), timeout=20)), messages)

    # Message by message: each is answered before the next is sent.
    def slowly(answers):
        for message in messages[:20]:
            yield message
            same(answers.get(), message)

    import queue

    answers = queue.Queue()
    for answer in stream(slowly(answers), timeout=20):
        answers.put(answer)

    def never_ending():
        yield b"first"
        time.sleep(5)

    began = time.monotonic()
    try:
        list(stream(never_ending(), timeout=0.3))
        raise AssertionError("no deadline")
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED or time.monotonic() - began > 3:
            raise

    call = stream(never_ending())
    same(next(call), b"first")
    call.cancel()

    try:
        channel.unary_unary("/nowhere.Echo/Unary")(b"", timeout=20)
        raise AssertionError("no route, and yet an answer")
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
    print("every call answered")


main(*sys.argv[1:])
