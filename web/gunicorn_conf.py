"""How gunicorn serves the app: many sockets in few processes, each with its hub."""

from gevent import monkey

monkey.patch_all()

from typing import Any  # noqa: E402 - everything after this line must see the patched modules

from shared import settings as settings_module  # noqa: E402
from shared.logs import configure_logging  # noqa: E402

_settings = settings_module.load_or_exit()

bind = f"{_settings.host}:{_settings.port}"
workers = _settings.web_processes
worker_class = "gevent"
# Sockets beyond the limit are accepted, told so and closed; requests need room too.
worker_connections = _settings.max_websocket_connections + 500
graceful_timeout = 10
timeout = 60
# Idle connections hold up a stop for so long.
keepalive = 5
accesslog = None
control_socket_disable = True
proc_name = "nfctl-web"


def post_worker_init(worker: Any) -> None:
    """The app is loaded: relay events until this worker is told to stop."""
    configure_logging()
    worker.wsgi.extensions["hub"].start(lambda: not worker.alive)
