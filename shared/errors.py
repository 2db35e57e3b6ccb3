"""Every error the service raises on purpose, in one tree.

ControllerError
├── BadSetting          a setting in the environment has a value that cannot be used
├── StoreAway           Redis does not answer; the same call may work later
├── RunNotFound         no run of that id is kept
├── IllegalMove         a run cannot go from its status to the one asked for
├── Conflict            another writer moved the run first, more often than is patient to retry
├── RunRefused          the run was not taken in
│   ├── Busy            a run is active and the caller asked to be refused then
│   ├── QueueFull       the queue holds as many runs as it may
│   └── KeyReused       an Idempotency-Key came back with another request
├── Fenced              a newer supervisor has taken over the run
├── StateMoved          the kept place in a run's log is not where this supervisor left it
├── CannotStart         the run can never start; the message says why and what to do
├── ClusterAway         the Kubernetes API server does not answer as it should; the same call may work later
└── ClusterRefused      the Kubernetes API server understood the call and refused it
"""


class ControllerError(Exception):
    """The root of all errors raised on purpose."""


class BadSetting(ControllerError):
    """{key}={value!r}: {takes}."""

    def __init__(self, key: str, value: str, takes: str) -> None:
        super().__init__(f"{key}={value!r}: {takes}")
        self.key = key


class StoreAway(ControllerError):
    """Redis does not answer; the same call may work later."""


class RunNotFound(ControllerError):
    """No run {run_id} is kept."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"No run {run_id!r} is kept. It never existed, or its time in the history is over.")
        self.run_id = run_id


class IllegalMove(ControllerError):
    """A run that is {before} cannot become {after}."""

    def __init__(self, before: str, after: str) -> None:
        super().__init__(f"A run that is {before} cannot become {after}.")


class Conflict(ControllerError):
    """Run {run_id} was moved by others faster than it could be read."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"Run {run_id} was moved by others faster than it could be read; try again.")


class RunRefused(ControllerError):
    """The run was not taken in; nothing changed."""


class Busy(RunRefused):
    """Run {active} is active."""

    def __init__(self, active: str) -> None:
        super().__init__(
            f"Run {active} is active. Wait for its end, "
            "or ask to wait in the queue (when_busy=queue) or to join it (attach)."
        )
        self.active = active


class QueueFull(RunRefused):
    """{waiting} runs wait already."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} runs wait already, which is all the queue may hold. Try again later.")


class KeyReused(RunRefused):
    """The Idempotency-Key was used for a different request."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"This Idempotency-Key already stands for a different request (run {run_id}). Use a new key.")


class Fenced(ControllerError):
    """A newer supervisor has taken over run {run_id}."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"A newer supervisor has taken over run {run_id}.")


class StateMoved(ControllerError):
    """The kept place in the log of run {run_id} is not where this supervisor left it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"The kept place in the log of run {run_id} is not where this supervisor left it.")


class CannotStart(ControllerError):
    """The run can never start; the message says why and what to do.

    `sure` when nothing of it is at work; else an earlier supervisor may have started it, if there was one.
    """

    def __init__(self, message: str, *, sure: bool = True) -> None:
        super().__init__(message)
        self.sure = sure


class ClusterAway(ControllerError):
    """The Kubernetes API server does not answer as it should; the same call may work later."""


class ClusterRefused(ControllerError):
    """The Kubernetes API server refused a call; `status` is HTTP's, `reason` Kubernetes' own word."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
