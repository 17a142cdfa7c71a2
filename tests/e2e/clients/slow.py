"""slow.py TARGET bulk MEGABYTES PAUSE_MS: reads that much of one server stream, a message of 1 MiB at a time with a pause after each; says `warm`
after an eighth of it and `ok` at the end.
slow.py TARGET crowd STREAMS MESSAGES: reads so many streams at once, alone and then beside one on the same connection that hardly reads; says
as JSON the seconds of each run (the best of three) and how much the slow one took."""
import asyncio, json, sys, time
import grpc
from echo import Echo, OPTIONS, Reply, connect, request

target, what, first, second = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


def bulk(megabytes, pause_ms):
    # Without its probing the client's window stays small: what it does not read stands in the gateway or before it.
    options = OPTIONS + [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536)]
    echo = Echo(grpc.insecure_channel(target, options=options))
    size = 0
    for number, reply in enumerate(echo.repeat(request(b"z" * (1 << 20), count=megabytes), timeout=600)):
        assert reply.count == number
        size += len(reply.payload)
        if number == megabytes // 8:
            print("warm", flush=True)
        time.sleep(pause_ms / 1000)
    assert size == megabytes << 20, size
    print("ok", flush=True)


async def crowd(streams, messages):
    channel = grpc.aio.insecure_channel(target, options=OPTIONS)
    repeat = channel.unary_stream("/sluice.demo.v1.Echo/Repeat", request_serializer=lambda b: b, response_deserializer=Reply)
    slow_took = 0

    async def fast():
        took = 0
        async for reply in repeat(request(b"f" * 1024, count=messages), timeout=60):
            took += 1
        assert took == messages, took

    async def slow():
        nonlocal slow_took
        async for reply in repeat(request(b"s" * 65_536, count=10_000), timeout=60):
            slow_took += 1
            await asyncio.sleep(0.5)

    async def run():
        began = time.time()
        await asyncio.gather(*(fast() for _ in range(streams)))
        return time.time() - began

    await run()
    alone = min([await run() for _ in range(3)])
    beside = asyncio.create_task(slow())
    while not slow_took:
        await asyncio.sleep(0.01)
    # What it may have on the way is on its way.
    await asyncio.sleep(0.5)
    crowded = min([await run() for _ in range(3)])
    assert not beside.done(), beside
    beside.cancel()
    await asyncio.gather(beside, return_exceptions=True)
    await channel.close()
    print(json.dumps(dict(alone=alone, beside=crowded, slow_took=slow_took)), flush=True)


if what == "bulk":
    bulk(first, second)
else:
    asyncio.run(crowd(first, second))
