"""recorder.py PORT GRPC_PORT: an HTTP/1.1 server and a gRPC server that write what they are asked as JSON lines and refuse all of it."""
import http.server, json, sys, threading
from concurrent import futures
import grpc

turn = threading.Lock()


def tell(by, path, body, fields):
    with turn:
        print(json.dumps(dict(by=by, path=path, body=body.hex(), fields=fields)), flush=True)


class Recorder(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        tell("h1", self.path, body, {name.lower(): value for name, value in self.headers.items()})
        self.send_response(500)
        self.send_header("x-endpoint", "recorder")
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"fail")

    def log_message(self, *_):
        pass


class Any(grpc.GenericRpcHandler):
    def service(self, details):
        def refuse(message, context):
            tell("h2", details.method, message, {name: str(value) for name, value in context.invocation_metadata()})
            context.abort(grpc.StatusCode.INTERNAL, "the recorder refuses")

        return grpc.unary_unary_rpc_method_handler(refuse)


server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[Any()])
server.add_insecure_port(f"[::]:{sys.argv[2]}")
server.start()
http1 = http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Recorder)
tell("ready", "", b"", {})
http1.serve_forever()
