"""calls.py TARGET SECONDS CHANNELS RATE: unary calls over CHANNELS connections, RATE a second on each, for SECONDS; says at the end how many
there were and how many failed. There is no retry policy: grpcio repeats by itself what provably reached no server, and nothing else."""
import asyncio, json, sys, time
import grpc
from echo import Reply, request

target, seconds, channels, rate = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100),
           ("grpc.min_reconnect_backoff_ms", 100)]


async def one(result, end, ready):
    channel = grpc.aio.insecure_channel(target, options=OPTIONS)
    say = channel.unary_unary("/sluice.demo.v1.Echo/Say", request_serializer=lambda b: b, response_deserializer=Reply)
    due = time.time()
    while time.time() < end:
        try:
            await say(request(b"x" * 64), timeout=10, wait_for_ready=True)
            result["ok"] += 1
        except grpc.RpcError as error:
            result["failed"] += 1
            result["first"] = result["first"] or f"{error.code()}: {error.details()}"[:300]
        if not ready:
            ready.append(1)
            print("open", flush=True)
        due += 1 / rate
        await asyncio.sleep(max(0, due - time.time()))
    await channel.close()


async def main():
    result = dict(ok=0, failed=0, first=None)
    end, ready = time.time() + seconds, []
    await asyncio.gather(*(one(result, end, ready) for _ in range(channels)))
    print(json.dumps(result), flush=True)


asyncio.run(main())
