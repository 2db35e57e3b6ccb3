"""What the doors work with."""

from dataclasses import dataclass

from shared.broker import Broker, make_celery
from shared.feed import Feed
from shared.redis_client import Client, connect
from shared.settings import Settings
from shared.store import Store


@dataclass(frozen=True, slots=True)
class Service:
    """The connections of a web process, made once."""

    settings: Settings
    redis: Client
    store: Store
    feed: Feed
    broker: Broker


def connect_service(settings: Settings) -> Service:
    """Everything, ready; nothing is contacted yet."""
    redis = connect(settings.redis_url)
    broker = Broker(make_celery(settings), redis)
    return Service(settings, redis, Store(redis, settings), Feed(redis, settings), broker)
