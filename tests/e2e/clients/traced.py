"""Calls with and without a trace of their own.

    traced.py HOST:PORT CALLS TRACEPARENT
"""

import sys

import grpc

target, calls, parent = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with grpc.insecure_channel(target) as channel:
    say = channel.unary_unary("/sluice.demo.v1.Echo/Say")
    for number in range(calls):
        metadata = [("traceparent", parent)] if number == 0 else []
        say(b"", timeout=10, metadata=metadata)
    try:
        channel.unary_unary("/no.such.Service/Method")(b"", timeout=10)
        sys.exit("a call without a route was answered")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
