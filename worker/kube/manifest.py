"""The Job of a run and the Secret with its files: pure functions from the record and the settings.

The Job is made suspended, so that making it starts nothing; `carriage` lets it go when the cluster's slot
is known to be the run's. docs/kubernetes.md shows one.
"""

import base64
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from shared.errors import CannotStart
from shared.places import run_places
from shared.runs import Run
from shared.settings import Settings
from worker import command
from worker.command import Command, quoted

CONTAINER = "nextflow"
COMPONENT_LABEL = "app.kubernetes.io/component"
RUN_LABEL = "nextflow-controller/run-id"
# Nextflow's own label of its task pods. The head pod bears it too, so that one watch sees all pods of a run.
RUN_NAME_LABEL = "nextflow.io/runName"
SESSION_LABEL = "nextflow.io/sessionId"
GRACE_SECONDS = 120
LOG_CONTAINER = "log"
_LOG_SECONDS = 3_600
_USER = 1000
_AS_USER = {
    "runAsNonRoot": True,
    "runAsUser": _USER,
    "runAsGroup": _USER,
    "fsGroup": _USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_FILES = PurePosixPath("/etc/nextflow-run")
_LAST_WORD = "/dev/termination-log"
# The API server takes a Secret of a mebibyte, and base64 makes four bytes of three.
_MOST_BYTES = 700_000
_HEAP_SHARE = 0.6

# The shell makes directories as the run's own user, which a volume's `subPath` would not. Then all that Nextflow says
# goes to the container's log and, for good, to the claim. The signal that ends the pod reaches the shell, which hands
# it on. What a pipeline leaves behind may hold the pipe open for ever, so its end is not waited for without end. At
# last it leaves word of how many lines it wrote there: a kubelet that turns a log over may lose some, and gives no sign
# of it. Another head of the run may have written before, when somebody suspended its Job and let it go again.
_SCRIPT = """\
trap 'exit 143' TERM
mkdir -p "$NXF_HOME" "$HOME" "$RUN_DIRECTORY" "$LAUNCH_DIRECTORY"
cp -f "$RUN_FILES/defaults.config" "$NXF_HOME/config"
cd "$LAUNCH_DIRECTORY"
if [ -d "$RUN_FILES/pipeline" ]; then rm -rf pipeline; cp -rL "$RUN_FILES/pipeline" pipeline; fi
history="${NXF_CACHE_DIR:-.nextflow}/history"
if [ -n "${SESSION_MAY_BE_NEW:-}" ] && [ -e "$history" ]; then
  found=0
  grep -qsF "$NXF_UUID" "$history" || found=$?
  if [ "$found" != 1 ]; then set -- "$@" -resume "$NXF_UUID"; unset NXF_UUID; fi
fi
lines() { if [ -f "$RUN_DIRECTORY/log" ]; then wc -l < "$RUN_DIRECTORY/log"; else echo 0; fi; }
before=$(lines) || before=
console=$(mktemp -u)
mkfifo "$console"
tee -a "$RUN_DIRECTORY/log" < "$console" &
keeper=$!
head=
trap 'stopped=yes; [ -z "$head" ] || kill -TERM "$head" 2> /dev/null || :' TERM
"$@" > "$console" 2>&1 &
head=$!
[ -z "${stopped:-}" ] || kill -TERM "$head" 2> /dev/null || :
code=0
while wait "$head" || code=$?; kill -0 "$head" 2> /dev/null; do code=0; done
trap '' TERM
(sleep 5; kill "$keeper") > /dev/null 2>&1 &
wait "$keeper" 2> /dev/null || true
after=$(lines) || after=
[ -z "$before" ] || [ -z "$after" ] || printf '%d lines printed' "$((after - before))" > "$LAST_WORD" || true
exit "$code"
"""

# A run that printed nothing has no log. First its length, so that whoever reads it knows whether they have it all.
_PRINT = '[ -e "$2" ] || { echo 0; exit; }; wc -l < "$2"; exec tail -n "+$1" "$2"'


@dataclass(frozen=True, slots=True)
class Order:
    """All that the objects of a run are made from, read once. `files` has content and mode of each, by its path."""

    run: Run
    settings: Settings
    command: Command
    files: Mapping[str, tuple[bytes, int]]


def order(run: Run, settings: Settings) -> Order:
    """Read what a run needs. Raises CannotStart."""
    places = replace(run_places(settings.work_mount_path, run.run_id, run.session_id), settings=Path(_FILES))
    packed = _own_pipeline(run, settings)
    pipeline = run.pipeline
    if packed is not None:
        pipeline = str(places.launch / "pipeline" / ("" if packed.is_dir() else packed.name))
    # Whether there is a session to resume, only the head can see.
    named = replace(run, resumes=run.resumes and not run.session_may_be_new)
    made = command.build(named, "nextflow", places, pipeline, settled=_settled(settings))
    files = {path.name: (content, 0o444) for path, content in made.files.items()}
    files["defaults.config"] = (_defaults(settings).encode(), 0o444)
    if packed is not None:
        files |= {f"pipeline/{name}": file for name, file in _packed(packed)}
    size = sum(len(content) for content, _ in files.values())
    if size > _MOST_BYTES:
        raise CannotStart(
            f"The pipeline and its parameters take more than the {_MOST_BYTES} bytes that fit into a Secret. Put the "
            f"pipeline on the claim {settings.work_pvc} and name it by its path there, or put it into a Git repository."
        )
    return Order(run, settings, made, files)


def labels(run: Run) -> dict[str, str]:
    """What marks the objects of a run."""
    return _common_labels("head") | {RUN_LABEL: run.run_id}


def _common_labels(component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "nextflow",
        COMPONENT_LABEL: component,
        "app.kubernetes.io/managed-by": "nextflow-controller",
    }


def job(order: Order) -> dict[str, Any]:
    """The Job of a run, suspended."""
    run, settings = order.run, order.settings
    pod_labels = labels(run) | {RUN_NAME_LABEL: run.run_id}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": run.job_name, "namespace": settings.nextflow_namespace, "labels": labels(run)},
        "spec": {
            "suspend": True,
            # A second attempt would run the whole pipeline again; resuming is the way to go on.
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": settings.job_active_deadline_seconds,
            "ttlSecondsAfterFinished": settings.job_ttl_seconds_after_finished,
            "template": {
                "metadata": {
                    "labels": pod_labels,
                    "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
                },
                "spec": _pod(order),
            },
        },
    }


def secret(order: Order, job_uid: str) -> dict[str, Any]:
    """The Secret with the files of a run, which goes when its Job goes."""
    run = order.run
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": run.job_name, "uid": job_uid}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": {
            "name": run.job_name,
            "namespace": order.settings.nextflow_namespace,
            "labels": labels(run),
            "ownerReferences": [owner],
        },
        "data": {_key(n): base64.b64encode(data).decode() for n, (data, _) in enumerate(order.files.values())},
    }


def log_job(run: Run, settings: Settings, start: int) -> dict[str, Any]:
    """A Job that prints how many lines of the run's log the claim has, then those after `start`, and does no more.

    It has a name of its own each time.
    """
    marks = _common_labels(LOG_CONTAINER) | {RUN_NAME_LABEL: run.run_id}
    name = f"{run.job_name}-log-{secrets.token_hex(3)}"
    container = {
        "name": LOG_CONTAINER,
        "image": settings.nextflow_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", _PRINT, "log", str(start + 1), _literal(str(log_path(run, settings)))],
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": _CONFINED,
        "volumeMounts": [{"name": "work", "mountPath": str(settings.work_mount_path), "readOnly": True}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": settings.nextflow_namespace, "labels": marks},
        "spec": {
            "activeDeadlineSeconds": _LOG_SECONDS,
            "ttlSecondsAfterFinished": _LOG_SECONDS,
            "template": {
                "metadata": {"labels": marks},
                "spec": {
                    "restartPolicy": "Never",
                    # Its secrets for the image; it talks to nobody.
                    "serviceAccountName": settings.nextflow_service_account,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 1,
                    "securityContext": _AS_USER,
                    "containers": [container],
                    "volumes": [_work(settings)],
                },
            },
        },
    }


def log_path(run: Run, settings: Settings) -> Path:
    """Where the claim has all that a run said, as its pods see it."""
    return run_places(settings.work_mount_path, run.run_id, run.session_id).directory / "log"


def _work(settings: Settings) -> dict[str, Any]:
    return {"name": "work", "persistentVolumeClaim": {"claimName": settings.work_pvc}}


def _pod(order: Order) -> dict[str, Any]:
    run, settings = order.run, order.settings
    return {
        "restartPolicy": "Never",
        "serviceAccountName": settings.nextflow_service_account,
        # Asked for here, so that the account need not give its token to every task's pod.
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        # Or Nextflow were process 1 of its own, which a signal does not reach before it is ready to handle it.
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": max(settings.cancel_grace_seconds, GRACE_SECONDS),
        "securityContext": _AS_USER,
        "containers": [_container(order)],
        "volumes": [
            _work(settings),
            {"name": "files", "secret": {"secretName": run.job_name, "items": list(_items(order))}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _container(order: Order) -> dict[str, Any]:
    settings, made = order.settings, order.command
    mount = settings.work_mount_path
    environment = {
        **made.environment,
        "NXF_HOME": str(mount / ".nextflow"),
        "HOME": str(mount / ".home"),
        "NXF_OPTS": f"-Xmx{_heap_mebibytes(settings.nextflow_memory)}m -Duser.home={mount / '.home'}",
        "RUN_DIRECTORY": str(log_path(order.run, settings).parent),
        "LAUNCH_DIRECTORY": str(made.directory),
        "RUN_FILES": str(_FILES),
        "LAST_WORD": _LAST_WORD,
    }
    if order.run.session_may_be_new:
        environment["SESSION_MAY_BE_NEW"] = "yes"
    return {
        "name": CONTAINER,
        "image": settings.nextflow_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-euc", _SCRIPT, "head"],
        "args": [_literal(argument) for argument in made.arguments],
        "env": [{"name": name, "value": _literal(value)} for name, value in environment.items()],
        "terminationMessagePath": _LAST_WORD,
        "resources": {
            "requests": {"cpu": settings.nextflow_cpu, "memory": settings.nextflow_memory},
            "limits": {"memory": settings.nextflow_memory},
        },
        "securityContext": _CONFINED,
        "volumeMounts": [
            {"name": "work", "mountPath": str(mount)},
            {"name": "files", "mountPath": str(_FILES), "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - inside the pod, and its own
        ],
    }


def _literal(text: str) -> str:
    """Text that Kubernetes takes as it is: it would put variables in place of `$(NAME)`, and one dollar for two."""
    return text.replace("$", "$$")


def _settled(settings: Settings) -> str:
    return f"""\
process.executor = 'k8s'
k8s {{
    namespace = '{quoted(settings.nextflow_namespace)}'
    serviceAccount = '{quoted(settings.nextflow_service_account)}'
    storageClaimName = '{quoted(settings.work_pvc)}'
    storageMountPath = '{quoted(settings.work_mount_path)}'
}}
"""


def _defaults(settings: Settings) -> str:
    """What any configuration of a pipeline may change: Nextflow reads it first, from NXF_HOME."""
    return f"""\
process.container = '{quoted(settings.nextflow_image)}'
k8s.securityContext = [
    runAsNonRoot: true, runAsUser: {_USER}, runAsGroup: {_USER}, fsGroup: {_USER},
    seccompProfile: [type: 'RuntimeDefault']
]
"""


def _own_pipeline(run: Run, settings: Settings) -> Path | None:
    """What the run means in PIPELINES_DIR, and nowhere else on this machine: its files go to whom the run belongs."""
    named = Path(run.pipeline)
    found = named if named.is_absolute() else command.local_pipeline(run.pipeline, settings.pipelines_dir)
    inside = found is not None and found.resolve().is_relative_to(settings.pipelines_dir.resolve())
    return found if inside and os.path.exists(str(found)) else None  # noqa: PTH110 - takes a name of any length


def _packed(pipeline: Path) -> Iterator[tuple[str, tuple[bytes, int]]]:
    """The files of a pipeline: one script, or all of a directory but what is hidden, in the order of their names."""
    size = 0
    for path in [pipeline] if pipeline.is_file() else sorted(pipeline.rglob("*")):
        name = path.relative_to(pipeline.parent if pipeline.is_file() else pipeline)
        if not path.is_file() or any(part.startswith(".") for part in name.parts):
            continue
        size += path.stat().st_size
        if size > _MOST_BYTES:  # `order` says so; what is left need not be read
            yield name.as_posix(), (b"\0" * (_MOST_BYTES + 1), 0o444)
            return
        try:
            yield name.as_posix(), (path.read_bytes(), 0o555 if path.stat().st_mode & 0o100 else 0o444)
        except OSError as error:
            raise CannotStart(f"The pipeline's file {path} cannot be read: {error.strerror}.") from error


def _items(order: Order) -> Iterator[Mapping[str, Any]]:
    for number, (path, (_, mode)) in enumerate(order.files.items()):
        yield {"key": _key(number), "path": path, "mode": mode}


def _key(number: int) -> str:
    return f"file-{number:04}"


def _heap_mebibytes(memory: str) -> int:
    """Java's heap in mebibytes: a share of the container's memory, the rest is for Java itself."""
    amount, unit = re.fullmatch(r"(\d+)([MG])i", memory).groups()  # type: ignore[union-attr] # the setting's own check
    return int(int(amount) * (1024 if unit == "G" else 1) * _HEAP_SHARE)
