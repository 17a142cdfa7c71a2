"""An authorization service of Envoy's gRPC protocol: its transport is grpcio's, its messages are Google's Protocol Buffers'.
It answers as the request's token asks; `serve` starts it, `ASKED` is what it was asked."""
import concurrent.futures, os, sys, time
import grpc

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
pb = grpc.protos("ext_authz.proto")
ASKED = []


def option(key, value, **more):
    return pb.HeaderValueOption(header=pb.HeaderValue(key=key, value=value), **more)


def ok(**more):
    return pb.CheckResponse(status=pb.Status(code=0), ok_response=pb.OkHttpResponse(**more))


def denied(code=0, **more):
    return pb.CheckResponse(status=pb.Status(code=7), denied_response=pb.DeniedHttpResponse(status=pb.HttpStatus(code=code), **more))


def check(request, context):
    http = request.attributes.request.http
    ASKED.append(request)
    match http.headers.get("authorization", "").removeprefix("Bearer "):
        case "good":
            return ok(headers=[option("X-User", "ann"), option("x-roles", "b", append=pb.BoolValue(value=True)), option("x-new", "no", append_action=3),
                               option("x-first", "no", append_action=1)],
                      headers_to_remove=["Authorization", "host"], response_headers_to_add=[option("set-cookie", "seen=1"), option("set-cookie", "by=ann")],
                      query_parameters_to_set=[pb.QueryParameter(key="user", value="ann & co")], query_parameters_to_remove=["token"])
        case "bare":
            return pb.CheckResponse(status=pb.Status(code=0))
        case "body":
            return ok(headers=[option("x-size", str(len(http.body.encode() + http.raw_body)))])
        case "empty":
            return b""
        case "garbage":
            return b"\x0a\xff\xff\xff\xff\x0f"
        case "both":
            return pb.CheckResponse(status=pb.Status(code=0), denied_response=pb.DeniedHttpResponse())
        case "down":
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        case "slow":
            time.sleep(4)
            return ok()
        case "big":
            return ok(headers=[option("x-big", "x" * 200_000)])
        case "smuggle":
            return ok(headers=[option("x-user", "ann\r\nx-admin: 1")])
        case "unsure":
            return pb.CheckResponse(status=pb.Status(code=13), error_response=pb.DeniedHttpResponse(status=pb.HttpStatus(code=200)))
        case "no":
            return pb.CheckResponse(status=pb.Status(code=16))
        case "login":
            return denied(302, headers=[option("Location", "/login"), option("set-cookie", "a=b"), option("set-cookie", "c=d")])
        case _:
            return denied(401, headers=[option("www-authenticate", 'Bearer realm="lab"')], body="who are you?")


def serve(port, tls=None, tls_port=None):
    """In plain text, and over TLS by a key and its certificate."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", 32 << 20)])
    handler = grpc.unary_unary_rpc_method_handler(
        check, request_deserializer=pb.CheckRequest.FromString,
        response_serializer=lambda answer: answer if isinstance(answer, bytes) else answer.SerializeToString())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", {"Check": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    if tls:
        server.add_secure_port(f"127.0.0.1:{tls_port}", grpc.ssl_server_credentials([tls]))
    server.start()
    return server
