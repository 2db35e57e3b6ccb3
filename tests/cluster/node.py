"""Node: a real one-node Kubernetes on this machine, in a pid and mount namespace of its own.

`up` starts it and returns once pods can run; it stays until `down`, whoever started it. Root is needed.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cluster import configuration, control, host, keys
from cluster.archive import containerd_answers, has_image, import_archive, write_program_image
from cluster.build import Programs, programs
from cluster.configuration import API_SERVER, CONTAINERD, ETCD, KUBELET, Commands
from cluster.control import NodeFailed
from cluster.layout import API_PORT, API_SERVICE_ADDRESS, CONTEXT, NODE_ADDRESS, NODE_NAME, PAUSE_IMAGE, Layout, layout

from nfctl.cache import Say, locked

__all__ = ["LOG_MAX_SIZE", "Node", "NodeFailed", "down", "running", "up"]

LOG_MAX_SIZE = "10Mi"
"""The size at which the kubelet begins a new file of a container's log, unless `up` is told another."""

_SECONDS_TO_START = 90.0


@dataclass(frozen=True)
class Node:
    """A running node, and what a test does with it."""

    layout: Layout
    kubectl: Path
    context: str = CONTEXT

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.layout.kubeconfig

    @property
    def storage(self) -> Path:
        """A directory for hostPath volumes: the same path for pods' volumes and for tests."""
        return self.layout.storage

    @property
    def audit_log(self) -> Path:
        """One JSON object a line for each request that the API server answered."""
        return self.layout.audit_log

    @property
    def logs(self) -> Path:
        """A log for each part of the node."""
        return self.layout.logs

    @property
    def pod_logs(self) -> Path:
        """Where the kubelet keeps what containers print, as seen from outside the node."""
        return self.layout.private / "var/log/pods"

    @property
    def pids(self) -> Mapping[str, int]:
        """The pid of each part of the node that runs now."""
        return control.part_pids(self.layout)

    @property
    def pid(self) -> int:
        """The pid of the process that all others end with."""
        found = control.supervisor_pid(self.layout)
        if found is None:
            raise NodeFailed("the node does not run")
        return found

    def run_kubectl(self, *arguments: str, given: str | None = None) -> str:
        """What kubectl printed, as the administrator, with `given` as its input; fails with what it said on stderr."""
        command = [str(self.kubectl), f"--context={self.context}", *arguments]
        ended = subprocess.run(
            command, input=given, env=self.environment(), capture_output=True, text=True, check=False
        )
        if ended.returncode:
            raise NodeFailed(f"kubectl {' '.join(arguments)}: {ended.stderr.strip()}")
        return ended.stdout

    def environment(self) -> Mapping[str, str]:
        """This process's environment, in which kubectl and the service find the node."""
        here = {"KUBECONFIG": str(self.kubeconfig), "KUBE_CONTEXT": self.context}
        return {**os.environ, **here, "KUBECACHEDIR": str(self.layout.root / "kubectl-cache")}

    def import_image(self, archive: Path) -> None:
        """Bring the images of a docker-archive into the node."""
        import_archive(self.layout, archive)

    def stop(self, part: str) -> None:
        """End one part by SIGTERM (after 5 s by SIGKILL); returns when it has ended. It stays so until `start`."""
        control.stop_part(self.layout, part)

    def start(self, part: str) -> None:
        """Start one part with the arguments it had; returns when the API server and the kubelet are well.

        A part that was stopped is not waited for.
        """
        control.start_part(self.layout, part, _commands(self.layout)[part])
        if {ETCD, API_SERVER} <= self.pids.keys():
            _wait_for_api_server(self.layout)
            if {CONTAINERD, KUBELET} <= self.pids.keys():
                _wait_for_kubelet(self.layout)

    def restart(self, part: str) -> None:
        """`stop` and `start`."""
        self.stop(part)
        self.start(part)

    @contextmanager
    def kubelet_with(self, **settings: Any) -> Iterator[None]:
        """The kubelet with other settings (of KubeletConfiguration), for a while; it is started anew for them."""
        file = _kubelet_file(self.layout)
        before = file.read_text()
        file.write_text(json.dumps(json.loads(before) | settings))
        self.restart(KUBELET)
        try:
            yield
        finally:
            file.write_text(before)
            self.restart(KUBELET)

    def ask(self, path: str) -> Any:
        """What the API server answers the administrator to a GET, as JSON values; None when it does not."""
        answer = _get(self.layout, path)
        return None if answer is None else answer.json()


def up(say: Say, log_max_size: str = LOG_MAX_SIZE) -> Node:
    """The node: the running one, or one started now with whatever an earlier one kept; a minute at most, once built.

    `log_max_size` counts for a running node too: its kubelet is started anew when it has another.
    """
    if os.geteuid() != 0:
        raise NodeFailed("a Kubernetes node needs root")
    built = programs(say)
    where = layout()
    node = Node(where, built.kubectl)
    with locked("cluster", say):
        if control.obeys(where):
            # Also when the one who started it was killed halfway: all that is up already stays.
            _start_parts(where, _commands(where))
            _set_log_max_size(node, built, log_max_size)
        else:
            control.kill_supervisor(where)
            say("Kubernetes: starting a node …")
            _start(where, built, log_max_size)
    return node


def running() -> Node | None:
    """The node, if it runs."""
    where = layout()
    if not control.obeys(where):
        return None
    kubectl = Path(_commands(where)[KUBELET][0]).with_name("kubectl")
    return Node(where, kubectl)


def down(say: Say) -> None:
    """End the node and remove all that it made on this machine, its data too; it need not run."""
    where = layout()
    with locked("cluster", say):
        if not where.root.exists():
            return
        control.kill_supervisor(where)
        # What is to be taken back would be the link and the rules of whoever uses them now.
        host.check_ports()
        host.take_back(where)
        host.remove_state(where)


def _start(where: Layout, built: Programs, log_max_size: str) -> None:
    host.check_ports()
    where.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    # What was true only while the last node ran: nobody has an address now, and no container runs.
    for gone in (where.containerd_run, where.address_leases):
        shutil.rmtree(gone, ignore_errors=True)
    for directory in (where.configuration, where.logs, where.storage):
        directory.mkdir(exist_ok=True)
    host.prepare(where)
    keys.make_keys(where)
    commands = configuration.configure(where, built, log_max_size)
    _commands_file(where).write_text(json.dumps(commands))
    _write_pause_image(where, built)
    control.start_supervisor(where)
    _start_parts(where, commands)


def _start_parts(where: Layout, commands: Commands) -> None:
    for name in (ETCD, CONTAINERD, API_SERVER):
        control.start_part(where, name, commands[name])
    _wait_until(lambda: containerd_answers(where), "containerd", where)
    if not has_image(where, PAUSE_IMAGE):
        import_archive(where, _pause_archive(where))
    _wait_for_api_server(where)
    # Before the API server answers, these would only try, fail and wait.
    for name in commands:
        control.start_part(where, name, commands[name])
    _wait_for_kubelet(where)
    _wait_until(lambda: _has_default_account(where), "the service account that pods get", where)
    _wait_until(lambda: _service_answers(where), "kube-proxy to route the API server's service", where)
    _wait_until(_dns_answers, "the cluster's DNS", where)


def _set_log_max_size(node: Node, built: Programs, log_max_size: str) -> None:
    file = _kubelet_file(node.layout)
    before = file.read_text()
    configuration.configure(node.layout, built, log_max_size)
    if file.read_text() != before:
        node.restart(KUBELET)


def _kubelet_file(where: Layout) -> Path:
    return where.configuration / "kubelet.json"


def _commands_file(where: Layout) -> Path:
    return where.root / "commands.json"


def _commands(where: Layout) -> Commands:
    commands: Commands = json.loads(_commands_file(where).read_text())
    return commands


def _pause_archive(where: Layout) -> Path:
    return where.root / "pause.tar"


def _write_pause_image(where: Layout, built: Programs) -> None:
    write_program_image(built.pause, PAUSE_IMAGE, _pause_archive(where))


def _wait_until(true: Callable[[], bool], what: str, where: Layout) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not true():
        if time.monotonic() > deadline:
            raise NodeFailed(f"waited {_SECONDS_TO_START:.0f} s for {what}; the logs are in {where.logs}")
        time.sleep(0.1)


def _wait_for_api_server(where: Layout) -> None:
    _wait_until(lambda: _get(where, "/readyz") is not None, "the API server", where)


def _wait_for_kubelet(where: Layout) -> None:
    # After a restart the node is still called ready from before, so the kubelet itself is asked too.
    healthz = f"/api/v1/nodes/{NODE_NAME}/proxy/healthz"
    _wait_until(lambda: _node_is_ready(where) and _get(where, healthz) is not None, "the kubelet", where)


def _get(where: Layout, path: str, server: str = f"127.0.0.1:{API_PORT}") -> httpx.Response | None:
    """What the API server answers the administrator, or None when it does not, or with an error."""
    context = ssl.create_default_context(cafile=str(where.keys / "ca.crt"))
    bearer = {"Authorization": f"Bearer {keys.token(where, keys.ADMINISTRATOR)}"}
    try:
        # Whatever proxy the environment names, it does not lead to this machine.
        answer = httpx.get(f"https://{server}{path}", headers=bearer, verify=context, timeout=5, trust_env=False)
    except httpx.HTTPError:
        return None
    return answer if answer.is_success else None


def _node_is_ready(where: Layout) -> bool:
    answer = _get(where, f"/api/v1/nodes/{NODE_NAME}")
    conditions: list[dict[str, Any]] = answer.json()["status"].get("conditions", []) if answer else []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _has_default_account(where: Layout) -> bool:
    return _get(where, "/api/v1/namespaces/default/serviceaccounts/default") is not None


def _service_answers(where: Layout) -> bool:
    return _get(where, "/readyz", server=API_SERVICE_ADDRESS) is not None


def _dns_answers() -> bool:
    try:
        with socket.create_connection((NODE_ADDRESS, 53), timeout=1):
            return True
    except OSError:
        return False
