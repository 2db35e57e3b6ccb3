"""A peer: the `websockets` library, whose `broadcast()` writes each message of a Redis channel to every socket."""

import argparse

import uvloop  # type: ignore[import-not-found]  # of this peer alone: build.py installs it apart
from redis.asyncio import Redis
from websockets.asyncio.server import (  # type: ignore[import-not-found]  # as uvloop
    ServerConnection,
    broadcast,
    serve,
)


async def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--channel", required=True)
    arguments = parser.parse_args()
    connections: set[ServerConnection] = set()

    async def stay(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    redis = Redis.from_url(arguments.redis)
    async with serve(stay, "127.0.0.1", arguments.port, compression=None), redis.pubsub() as channel:
        await channel.subscribe(arguments.channel)
        async for message in channel.listen():
            if message["type"] == "message":
                broadcast(connections, message["data"], text=True)


if __name__ == "__main__":
    uvloop.run(main())
