"""Celery on Redis: a message is only a poke that says which run to look at; the record says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.exceptions import OperationalError as CeleryOperationalError
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from shared import keys
from shared.errors import StoreAway
from shared.redis_client import Client, store_errors
from shared.settings import Settings

RUN_TASK = "run"
RUN_QUEUE = "runs"
CHECK_COMMAND = "runner_check"
WORKS_COMMAND = "what_works"


def make_celery(settings: Settings) -> Celery:
    """The Celery app that web sends with and worker works with."""
    app = Celery("nextflow-controller", broker=settings.redis_url, set_as_current=False)
    app.conf.update(
        task_queues=[Queue(RUN_QUEUE, Exchange(RUN_QUEUE), routing_key=RUN_QUEUE)],
        task_default_queue=RUN_QUEUE,
        task_ignore_result=True,
        # Early acknowledgement, and nothing taken ahead: redelivery by Redis would run a long task twice.
        task_acks_late=False,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        task_track_started=True,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "global_keyprefix": keys.CELERY_PREFIX,
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
        },
    )
    return app


class Broker:
    """Sends pokes, and asks workers how they are. A lost poke is sent again by the reconciler."""

    def __init__(self, app: Celery, redis: Client) -> None:
        self._app = app
        self._redis = redis

    def waiting(self) -> int:
        """How many pokes no worker has taken yet. Raises StoreAway."""
        with store_errors():
            return int(self._redis.llen(keys.CELERY_PREFIX + RUN_QUEUE))

    def poke(self, run_id: str) -> None:
        """Ask a worker to look at a run; the Celery task bears the run's id. Raises StoreAway."""
        with _broker_errors():
            self._app.send_task(
                RUN_TASK,
                args=[run_id],
                task_id=run_id,
                retry=True,
                retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.1},
            )

    def ask_worker(self, seconds: float) -> tuple[str, dict[str, Any]] | None:
        """The name of a worker that answers in time, and whether it could execute a run: `{ok, detail}`.

        Raises StoreAway.
        """
        return self._ask(CHECK_COMMAND, seconds)

    def ask_what_works(self, seconds: float) -> dict[str, str] | None:
        """What works where a worker's runs do, in words, by the run's id; None when no worker can tell in time.

        Raises StoreAway.
        """
        answer = self._ask(WORKS_COMMAND, seconds)
        return answer[1].get("working") if answer is not None else None

    def _ask(self, command: str, seconds: float) -> tuple[str, dict[str, Any]] | None:
        with _broker_errors():
            replies = self._app.control.broadcast(
                command,
                reply=True,
                limit=1,
                timeout=seconds,
                pattern="worker@*",
                matcher="glob",  # type: ignore[arg-type]  # Celery looks the name up; its annotation is wrong
            )
        for reply in replies or []:
            for name, answer in reply.items():
                return name, answer
        return None


@contextmanager
def _broker_errors() -> Iterator[None]:
    with store_errors():
        try:
            yield
        except (OperationalError, CeleryOperationalError) as error:
            raise StoreAway("The Celery queue cannot be reached.") from error
