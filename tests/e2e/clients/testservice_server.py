"""testservice_server.py PORT: gRPC's interoperability test service over grpcio.

Answers besides what the cases ask: a call with metadata `details-bytes: N` ends with N bytes of grpc-status-details-bin.
"""
import os, sys, time
from concurrent import futures
import grpc

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
pb, services = grpc.protos_and_services("testservice.proto")
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"


def metadata(context):
    given = dict(context.invocation_metadata())
    if INITIAL in given:
        context.send_initial_metadata([(INITIAL, given[INITIAL])])
    trailing = [(TRAILING, given[TRAILING])] if TRAILING in given else []
    if "details-bytes" in given:
        trailing.append(("grpc-status-details-bin", b"\x5a" * int(given["details-bytes"])))
    if trailing:
        context.set_trailing_metadata(trailing)


def status(request, context):
    if request.HasField("response_status") and request.response_status.code:
        context.set_code({code.value[0]: code for code in grpc.StatusCode}[request.response_status.code])
        context.set_details(request.response_status.message)
        return True
    return False


def payload(size):
    return pb.Payload(body=bytes(size))


class TestService(services.TestServiceServicer):
    def EmptyCall(self, request, context):
        metadata(context)
        return pb.Empty()

    def UnaryCall(self, request, context):
        metadata(context)
        status(request, context)
        return pb.SimpleResponse(payload=payload(request.response_size))

    def StreamingOutputCall(self, request, context):
        metadata(context)
        for wanted in request.response_parameters:
            time.sleep(wanted.interval_us / 1e6)
            yield pb.StreamingOutputCallResponse(payload=payload(wanted.size))

    def StreamingInputCall(self, requests, context):
        return pb.StreamingInputCallResponse(aggregated_payload_size=sum(len(r.payload.body) for r in requests))

    def FullDuplexCall(self, requests, context):
        metadata(context)
        for request in requests:
            if status(request, context):
                return
            for wanted in request.response_parameters:
                time.sleep(wanted.interval_us / 1e6)
                yield pb.StreamingOutputCallResponse(payload=payload(wanted.size))


options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
           ("grpc.max_metadata_size", 1 << 20), ("grpc.absolute_max_metadata_size", 1 << 20)]
server = grpc.server(futures.ThreadPoolExecutor(64), options=options)
services.add_TestServiceServicer_to_server(TestService(), server)
server.add_insecure_port(f"[::]:{sys.argv[1]}")
server.start()
print("serving", flush=True)
server.wait_for_termination()
