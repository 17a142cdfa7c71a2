"""An OpenTelemetry collector for one test: takes OTLP over HTTP, decodes it with opentelemetry-proto and prints one JSON
line for each span. Ends after so many spans, or with an error after the time limit.

    collector.py PORT SPANS SECONDS
"""

import http.server
import json
import sys
import threading

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

port, wanted, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
seen = 0
enough = threading.Event()


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        global seen
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
        request = ExportTraceServiceRequest.FromString(body)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
        for group in request.resource_spans:
            resource = {pair.key: value(pair.value) for pair in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    line = {
                        "trace": span.trace_id.hex(),
                        "span": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "name": span.name,
                        "kind": span.kind,
                        "nanos": span.end_time_unix_nano - span.start_time_unix_nano,
                        "error": span.status.code == 2,
                        "resource": resource,
                        "attributes": {pair.key: value(pair.value) for pair in span.attributes},
                    }
                    print(json.dumps(line), flush=True)
                    seen += 1
        if seen >= wanted:
            enough.set()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("listening", flush=True)
if not enough.wait(seconds):
    sys.exit(f"{seen} of {wanted} spans came in {seconds} s")
