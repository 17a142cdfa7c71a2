"""spread.py TARGET CALLS CALLERS: CALLS unary calls over one connection, CALLERS at once; says how many each endpoint answered. Then goes on
until its input ends, and says so again for every 200 ms. A call that fails ends it all."""
import asyncio, collections, json, sys
import grpc
from echo import OPTIONS, Reply, request

target, calls, callers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


async def main():
    channel = grpc.aio.insecure_channel(target, options=OPTIONS)
    say = channel.unary_unary("/sluice.demo.v1.Echo/Say", request_serializer=lambda b: b, response_deserializer=Reply)
    answered, left, over = collections.Counter(), calls, asyncio.Event()

    def tell():
        print(json.dumps(answered), flush=True)
        answered.clear()

    async def first():
        nonlocal left
        while left > 0:
            left -= 1
            answered[(await say(request(b"x" * 64), timeout=10)).endpoint] += 1

    async def then():
        while not over.is_set():
            answered[(await say(request(b"x" * 64), timeout=10)).endpoint] += 1

    async def clock():
        input_ends = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        while not input_ends.done():
            await asyncio.sleep(0.2)
            tell()
        over.set()

    await asyncio.gather(*(first() for _ in range(callers)))
    tell()
    await asyncio.gather(clock(), *(then() for _ in range(callers)))
    await channel.close()


asyncio.run(main())
