"""Layout: the node's addresses and names, and where in its state directory everything lies."""

import os
from dataclasses import dataclass
from pathlib import Path

NODE_NAME = "node"
CONTEXT = "nextflow-controller"
"""The context of the kubeconfig, and the name of its cluster."""

LINK = "nfctl-node"
NODE_ADDRESS = "10.244.0.1"
POD_NETWORK = "10.244.0.0/24"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DOMAIN = "cluster.local"

API_PORT = 6443
KUBELET_PORT = 10250
PROXY_METRICS_PORT = 10249
PROXY_HEALTH_PORT = 10256

FIREWALL_TABLE = "nextflow_controller_cluster"
CGROUP = "nextflow-controller-cluster"

PAUSE_IMAGE = "docker.io/nextflow-controller/pause:1"

_DEFAULT_ROOT = Path("/var/lib/nextflow-controller-cluster")


@dataclass(frozen=True)
class Layout:
    """The paths below one state directory."""

    root: Path

    @property
    def keys(self) -> Path:
        """Certificates, keys and tokens."""
        return self.root / "keys"

    @property
    def configuration(self) -> Path:
        """What each part reads at its start."""
        return self.root / "configuration"

    @property
    def logs(self) -> Path:
        """A log for each part."""
        return self.root / "logs"

    @property
    def etcd(self) -> Path:
        """The cluster's data."""
        return self.root / "etcd"

    @property
    def etcd_socket(self) -> Path:
        """Where etcd serves the API server."""
        return self.root / "etcd.sock"

    @property
    def containerd(self) -> Path:
        """Images and containers, which outlive a restart of the node."""
        return self.root / "containerd"

    @property
    def containerd_run(self) -> Path:
        """What containerd knows of running containers: nothing, when the node starts."""
        return self.root / "containerd-run"

    @property
    def containerd_socket(self) -> Path:
        """Where containerd serves the kubelet and ctr."""
        return self.root / "containerd.sock"

    @property
    def address_leases(self) -> Path:
        """Which pod has which address."""
        return self.root / "address-leases"

    @property
    def private(self) -> Path:
        """What the node's own mount namespace shows in the system's places."""
        return self.root / "private"

    @property
    def storage(self) -> Path:
        """For hostPath volumes: the same path in the node and outside."""
        return self.root / "storage"

    @property
    def audit_log(self) -> Path:
        """One JSON object a line for each request that the API server answered."""
        return self.logs / "audit.jsonl"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.root / "kubeconfig"

    @property
    def control_socket(self) -> Path:
        """Where the supervisor takes commands."""
        return self.root / "control.sock"

    @property
    def record(self) -> Path:
        """The supervisor's pid, and when it was born."""
        return self.root / "supervisor.json"

    @property
    def before(self) -> Path:
        """What the machine was like before the first start, so that `down` can put it back."""
        return self.root / "before.json"


def layout() -> Layout:
    """The layout in NFCTL_CLUSTER_DIR, or else in /var/lib."""
    chosen = os.environ.get("NFCTL_CLUSTER_DIR", "")
    return Layout(Path(chosen).absolute() if chosen else _DEFAULT_ROOT)


PRIVATE_PLACES = ("/run/containerd", "/var/lib/kubelet", "/var/lib/cni", "/var/log")
"""Where programs of the node write whatever their flags say: each is a directory of `private` inside the node."""
