"""A peer: flask-sock as its documentation has it, with a subscription to Redis for each socket."""

import os
from typing import Any

from flask import Flask
from flask_sock import Sock
from redis import Redis
from simple_websocket import Server

app = Flask(__name__)
sock = Sock(app)
# A subscription keeps its connection, and a pool may have a hundred of them unless told otherwise.
_redis: Any = Redis.from_url(os.environ["BENCH_REDIS"], decode_responses=True, max_connections=100_000)


@sock.route("/socket")  # type: ignore[untyped-decorator]  # flask-sock has no types
def stream(ws: Server) -> None:
    """Write each message of the channel to this socket."""
    with _redis.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(os.environ["BENCH_CHANNEL"])
        for message in channel.listen():
            ws.send(message["data"])
