"""streams.py TARGET COUNT SECONDS [connections]: holds COUNT bidirectional streams open, a message each way on every one of them ten times
a second, and says at the end how many failed and whether any stream changed its endpoint. With `connections`, each stream has one of its own."""
import asyncio, json, sys, time
import grpc
from echo import OPTIONS, Reply, request

target, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
own_connections = len(sys.argv) > 4
# A connection takes no more streams than its server allows, 100 unless configured.
STREAMS_PER_CONNECTION = 50


async def one(channel, result, end, ready):
    call = channel.stream_stream("/sluice.demo.v1.Echo/Chat", request_serializer=lambda b: b, response_deserializer=Reply)()
    endpoint = None
    try:
        number = 0
        while time.time() < end:
            await asyncio.wait_for(call.write(request(b"%d" % number)), 10)
            reply = await asyncio.wait_for(call.read(), 10)
            if reply is grpc.aio.EOF:
                raise RuntimeError("the stream was cut")
            if reply.payload != b"%d" % number:
                raise RuntimeError("another message came back")
            if endpoint is None:
                endpoint = reply.endpoint
                ready.append(1)
                if len(ready) == count:
                    print("open", flush=True)
            elif endpoint != reply.endpoint:
                result["moved"] += 1
            result["messages"] += 1
            number += 1
            await asyncio.sleep(0.1)
        await call.done_writing()
    except Exception as error:
        result["failed"] += 1
        result["first"] = result["first"] or repr(error)[:300]
    result["endpoints"][endpoint or "none"] = result["endpoints"].get(endpoint or "none", 0) + 1


async def main():
    result = dict(streams=count, failed=0, moved=0, messages=0, first=None, endpoints={})
    end, ready = time.time() + seconds, []
    connections = count if own_connections else -(-count // STREAMS_PER_CONNECTION)
    channels = [grpc.aio.insecure_channel(target, options=OPTIONS) for _ in range(connections)]
    await asyncio.gather(*(one(channels[i % len(channels)], result, end, ready) for i in range(count)))
    for channel in channels:
        await channel.close()
    print(json.dumps(result), flush=True)


asyncio.run(main())
