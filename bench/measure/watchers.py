"""A process with watchers of one batch, for measure.lists: `watchers.py ADDRESS CA KEY WATCHERS REQUEST`, REQUEST being the encoded
request in hexadecimal. Prints "ready" when each has got a message, and for each line it reads how many messages came so far."""
import asyncio
import sys

from grpc import aio, ssl_channel_credentials


def same(message):
    return message


async def run(address, ca, key, watchers, request):
    seen = [0] * watchers
    with open(ca, "rb") as f:
        channel = aio.secure_channel(address, ssl_channel_credentials(f.read()))
    watch = channel.unary_stream("/muster.v1.CommandService/WatchBatch", request_serializer=same, response_deserializer=same)

    async def read(n):
        async for _ in watch(request, metadata=(("authorization", f"Bearer {key}"),)):
            seen[n] += 1

    async def report():
        while not all(seen):
            await asyncio.sleep(0.02)
        print("ready", flush=True)
        while await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
            print(sum(seen), flush=True)

    tasks = [asyncio.create_task(read(n)) for n in range(watchers)]
    await report()
    for t in tasks:
        t.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await channel.close()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:4], int(sys.argv[4]), bytes.fromhex(sys.argv[5])))
