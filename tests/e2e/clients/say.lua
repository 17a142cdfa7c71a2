-- wrk: unary calls over HTTP/1.1; says at the end how many there were and what failed.
wrk.method = "POST"
wrk.path = "/sluice.demo.v1.Echo/Say"
wrk.body = "\0\0\0\0\7\10\5hello"
wrk.headers["content-type"] = "application/grpc"
wrk.headers["te"] = "trailers"

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\n{"ok":%d,"failed":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\n',
    summary.requests, e.connect + e.read + e.write + e.status + e.timeout, e.connect, e.read, e.write, e.status, e.timeout))
end
