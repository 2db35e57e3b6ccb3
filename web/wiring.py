"""What the doors work with."""

from dataclasses import dataclass

from celery import Celery
from redis import Redis

from shared.broker import Pokes, make_celery
from shared.feed import Feed
from shared.redis_client import connect
from shared.settings import Settings
from shared.store import Store


@dataclass(frozen=True, slots=True)
class Service:
    """The connections of a web process, made once."""

    settings: Settings
    redis: Redis
    celery: Celery
    store: Store
    feed: Feed
    pokes: Pokes


def connect_service(settings: Settings) -> Service:
    """Everything, ready; nothing is contacted yet."""
    redis = connect(settings.redis_url)
    celery = make_celery(settings)
    return Service(
        settings, redis, celery, Store(redis, settings), Feed(redis, settings), Pokes(celery, redis)
    )
