"""How gunicorn serves the app: a few processes for requests, and a few for thousands of sockets."""

from gevent import monkey

monkey.patch_all()

from typing import Any  # noqa: E402 - everything after this line must see the patched modules

import web.app  # noqa: E402, F401 - once for all processes; each makes its own app of it
from shared import garbage  # noqa: E402
from shared import settings as settings_module  # noqa: E402
from shared.logs import configure_logging  # noqa: E402
from web.processes import Handover, WebWorker  # noqa: E402

_settings = settings_module.load_or_exit()

bind = f"{_settings.host}:{_settings.port}"
workers = _settings.web_processes + _settings.socket_processes
worker_class = WebWorker
# Sockets beyond the limit are accepted, told so and closed; requests need room too.
worker_connections = _settings.max_websocket_connections + 500
graceful_timeout = 10
timeout = 60
keepalive = 5
accesslog = None
control_socket_disable = True
proc_name = "nfctl-web"

if _settings.socket_processes:
    WebWorker.handover = Handover()


def pre_fork(server: Any, worker: Any) -> None:
    """A new process does what one does that is missing; those that a reload replaces are the oldest."""
    others = sorted(server.WORKERS.values(), key=lambda other: other.age)[1 - workers :] if workers > 1 else []
    worker.holds_sockets = sum(other.holds_sockets for other in others) < _settings.socket_processes


def post_worker_init(worker: Any) -> None:
    """The app is loaded: relay events until this worker is told to stop."""
    configure_logging()
    garbage.look_seldom()  # all sockets wait for each look
    relays = worker.holds_sockets or not _settings.socket_processes
    worker.wsgi.extensions["hub"].start(lambda: not worker.alive, when_needed=not relays)
