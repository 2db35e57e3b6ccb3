"""The tests' cluster as the stage of a trial: a namespace of its own, and a proxy that breaks on demand before it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from cluster.deployment import deploy_runs, runner_settings
from cluster.images import Image
from cluster.layout import API_PORT
from cluster.node import Node
from faults.proxy import Proxy
from faults.trial import MakeStage, Stage
from faults.witness import Witness

# Files on the work claim tell it to harm itself, or to wait no more between its lines.
_PIPELINE = """
process HOLD { input: val seconds
 script: "sleep $seconds" }
workflow {
    def tail = '.' * (params.width as int)
    if( params.hold ) HOLD(channel.of(params.hold))
    channel.of(1..(params.lines as int)).map { n ->
        if( !new File('/workspace/hurry').exists() ) sleep(params.pause as long)
        if( new File('/workspace/eat').exists() ) {
            def kept = []
            45.times { kept << java.nio.ByteBuffer.allocateDirect(10485760) }
            35.times { kept << new byte[10485760] }
            sleep 60000
        }
        if( n == 1 && params.children ) (params.children as int).times { ['sleep', '300'].execute() }
        "number ${n} ${tail}"
    }.view()
}
"""
_CONFIG = """
params { hold = 0; children = 0; width = 0 }
process.cpus = 0.1
process.memory = '32 MB'
k8s.cpuLimits = false
"""


class ClusterStage:
    """One namespace of a node. `proxy` is the way from the service to the API server; the witness goes past it."""

    def __init__(self, node: Node, image: Image, namespace: str, directory: Path) -> None:
        self.node = node
        self.namespace = namespace
        self.storage = deploy_runs(node, directory / "overlay", namespace)
        self._tell_nothing()  # one that was killed may have left word
        self.proxy = Proxy("127.0.0.1", API_PORT, node.layout.keys / "ca.crt")
        self.witness = Witness(node, namespace)
        self.witness.start()
        self.journal, self.printed, self.left_of = self.witness.journal, self.witness.printed, self.witness.left_of
        pipelines = directory / "pipelines"
        self.pipeline = "numbered"
        (pipelines / self.pipeline).mkdir(parents=True)
        (pipelines / self.pipeline / "main.nf").write_text(_PIPELINE)
        (pipelines / self.pipeline / "nextflow.config").write_text(_CONFIG)
        own = {"KUBECONFIG": str(self._kubeconfig(directory))}
        self.settings: Mapping[str, str] = runner_settings(node, image.name, namespace, pipelines) | own

    def close(self) -> None:
        """Let go of it, and leave nothing of its runs on the node."""
        self.witness.dismiss()
        self.proxy.close()
        for kind in ("jobs", "pods", "leases"):
            self.node.run_kubectl("-n", self.namespace, "delete", kind, "--all", "--grace-period=1", "--timeout=60s")
        self._tell_nothing()

    def hurry(self) -> None:
        """See `Stage.hurry`."""
        (self.storage / "hurry").touch()

    def kubectl(self, *arguments: str) -> str:
        """Do something in the namespace, past the proxy."""
        return self.node.run_kubectl("-n", self.namespace, *arguments)

    def head_of(self, run_id: str) -> dict[str, Any] | None:
        """The run's head pod, if there is one."""
        found = self.kubectl("get", "pods", "-l", f"nextflow-controller/run-id={run_id}", "-o", "json")
        items: list[dict[str, Any]] = json.loads(found)["items"]
        return items[0] if items else None

    def _tell_nothing(self) -> None:
        for told in ("eat", "hurry"):
            (self.storage / told).unlink(missing_ok=True)

    def _kubeconfig(self, directory: Path) -> Path:
        """The administrator's, but by way of the proxy."""
        content = yaml.safe_load(self.node.kubeconfig.read_text())
        content["clusters"][0]["cluster"] = {"server": self.proxy.url}
        path = directory / "kubeconfig"
        path.write_text(yaml.safe_dump(content))
        return path


def cluster_stage(node: Node, image: Image, namespace: str) -> MakeStage:
    """Makes stages in one namespace, one at a time."""

    @contextmanager
    def make(directory: Path) -> Iterator[Stage]:
        stage = ClusterStage(node, image, namespace, directory)
        try:
            yield stage
        finally:
            stage.close()

    return make
