"""Configuration: what each part of the node reads and is started with."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster import keys
from cluster.build import CNI_DIRECTORY, Programs
from cluster.layout import (
    API_PORT,
    CGROUP,
    CONTEXT,
    DOMAIN,
    KUBELET_PORT,
    NODE_ADDRESS,
    NODE_NAME,
    PAUSE_IMAGE,
    POD_NETWORK,
    PROXY_HEALTH_PORT,
    PROXY_METRICS_PORT,
    SERVICE_NETWORK,
    Layout,
)

ETCD = "etcd"
CONTAINERD = "containerd"
API_SERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
KUBE_PROXY = "kube-proxy"
KUBELET = "kubelet"
COREDNS = "coredns"

_RESOLVED = Path("/run/systemd/resolve/resolv.conf")

Commands = Mapping[str, Sequence[str]]


def configure(layout: Layout, programs: Programs, log_max_size: str) -> Commands:
    """Write all configuration, and give the command of each part of the node, by its name."""
    _write_kubeconfigs(layout)
    kubernetes = _kubernetes_commands(layout)
    # Each program takes all that it is told as --name=value.
    commands = {name: [str(programs.node), name, *options] for name, options in kubernetes.items()}
    commands[CONTAINERD] = ["containerd", "--config", str(_containerd(layout))]
    commands[COREDNS] = [str(programs.coredns), "-conf", str(_coredns(layout))]
    commands[KUBELET] += [f"--config={_kubelet(layout, log_max_size)}"]
    return commands


def _kubernetes_commands(layout: Layout) -> dict[str, list[str]]:
    kubeconfig = {name: f"--kubeconfig={_kubeconfig(layout, name)}" for name in _CLIENTS}
    return {
        ETCD: _etcd_options(layout),
        API_SERVER: _api_server_options(layout),
        CONTROLLER_MANAGER: [
            kubeconfig[CONTROLLER_MANAGER],
            "--leader-elect=false",
            "--secure-port=0",
            f"--flex-volume-plugin-dir={layout.root / 'volume-plugins'}",
            "--use-service-account-credentials=true",
            f"--root-ca-file={layout.keys / 'ca.crt'}",
            f"--service-account-private-key-file={layout.keys / 'service-accounts.key'}",
        ],
        SCHEDULER: [kubeconfig[SCHEDULER], "--leader-elect=false", "--secure-port=0"],
        KUBE_PROXY: [f"--config={_kube_proxy(layout)}", f"--hostname-override={NODE_NAME}"],
        KUBELET: [kubeconfig[KUBELET], f"--hostname-override={NODE_NAME}", f"--node-ip={NODE_ADDRESS}"],
    }


# Who each part is to the API server.
_CLIENTS: Mapping[str, str] = {
    CONTROLLER_MANAGER: keys.CONTROLLERS,
    SCHEDULER: keys.SCHEDULER,
    KUBE_PROXY: keys.PROXY,
    KUBELET: keys.KUBELET,
    COREDNS: keys.DNS,
}


def _write_kubeconfigs(layout: Layout) -> None:
    for name, user in _CLIENTS.items():
        _write(_kubeconfig(layout, name), keys.kubeconfig(layout, user))
    _write(layout.kubeconfig, keys.kubeconfig(layout, keys.ADMINISTRATOR))


def _kubeconfig(layout: Layout, name: str) -> Path:
    return layout.configuration / f"{name}.kubeconfig"


def _etcd_options(layout: Layout) -> list[str]:
    # It wants to advertise a port, although it serves on sockets and has no peer to ask for it.
    nowhere = "http://127.0.0.1:1"
    return [
        f"--name={NODE_NAME}",
        f"--data-dir={layout.etcd}",
        f"--listen-client-urls=unix://{layout.etcd_socket}",
        f"--advertise-client-urls={nowhere}",
        f"--listen-peer-urls=unix://{layout.root / 'etcd-peers.sock'}",
        f"--initial-advertise-peer-urls={nowhere}",
        f"--initial-cluster={NODE_NAME}={nowhere}",
        # What a crash of the machine would cost here is a test cluster.
        "--unsafe-no-fsync",
    ]


def _api_server_options(layout: Layout) -> list[str]:
    certificates = layout.keys
    return [
        f"--etcd-servers=unix://{layout.etcd_socket}",
        f"--secure-port={API_PORT}",
        # Pods reach it here; the machine's own clients do at 127.0.0.1.
        f"--advertise-address={NODE_ADDRESS}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        f"--tls-cert-file={certificates / 'server.crt'}",
        f"--tls-private-key-file={certificates / 'server.key'}",
        f"--client-ca-file={certificates / 'ca.crt'}",
        f"--token-auth-file={certificates / 'tokens.csv'}",
        # Node is for the kubelet alone; all others go by RBAC.
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--service-account-key-file={certificates / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={certificates / 'service-accounts.key'}",
        f"--kubelet-certificate-authority={certificates / 'ca.crt'}",
        f"--kubelet-client-certificate={certificates / 'kubelet-client.crt'}",
        f"--kubelet-client-key={certificates / 'kubelet-client.key'}",
        # The node's name is in no DNS.
        "--kubelet-preferred-address-types=InternalIP",
        # Or it would wait for its watchers for a minute when it is to stop.
        "--shutdown-watch-termination-grace-period=1s",
        f"--audit-policy-file={_audit_policy(layout)}",
        f"--audit-log-path={layout.audit_log}",
        "--audit-log-maxsize=200",
        "--audit-log-maxbackup=1",
    ]


def _audit_policy(layout: Layout) -> Path:
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        # One line a request, at its end; a watch has one at its start too, with the same auditID.
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    }
    return _write(layout.configuration / "audit-policy.json", policy)


def _kube_proxy(layout: Layout) -> Path:
    configuration = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_NETWORK,
        "healthzBindAddress": f"127.0.0.1:{PROXY_HEALTH_PORT}",
        "metricsBindAddress": f"127.0.0.1:{PROXY_METRICS_PORT}",
        "clientConnection": {"kubeconfig": str(_kubeconfig(layout, KUBE_PROXY))},
        # 0: leave the machine's own settings as they are.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return _write(layout.configuration / "kube-proxy.json", configuration)


def _kubelet(layout: Layout, log_max_size: str) -> Path:
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "port": KUBELET_PORT,
        "healthzPort": 0,
        "tlsCertFile": str(layout.keys / "server.crt"),
        "tlsPrivateKeyFile": str(layout.keys / "server.key"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.keys / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": str(_machine_resolv_conf()),
        "containerLogMaxSize": log_max_size,
        # The shortest that it takes: tests wait for a log to turn over.
        "containerLogMonitorInterval": "3s",
        "maxPods": 110,
        "makeIPTablesUtilChains": False,
        "volumePluginDir": str(layout.root / "volume-plugins"),
        # A disk that is fairly full is no reason to evict a test's pods, nor to remove its images.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
            "imagefs.inodesFree": "1%",
        },
        # A test that brings pressure does not want to wait for its end.
        "evictionPressureTransitionPeriod": "3s",
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }
    return _write(layout.configuration / "kubelet.json", configuration)


def _containerd(layout: Layout) -> Path:
    _write(layout.configuration / "cni" / "10-pods.conflist", _pod_network(layout))
    # TOML has JSON's strings, so none of these paths needs more care.
    text = f"""version = 2
root = {json.dumps(str(layout.containerd))}
state = {json.dumps(str(layout.containerd_run))}

[grpc]
address = {json.dumps(str(layout.containerd_socket))}

[plugins."io.containerd.internal.v1.opt"]
path = {json.dumps(str(layout.root / "opt"))}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = {json.dumps(PAUSE_IMAGE)}
# Without CAP_SYS_RESOURCE nobody may lower the score that the kernel kills by, and runc would die of trying.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {json.dumps(str(CNI_DIRECTORY))}
conf_dir = {json.dumps(str(layout.configuration / "cni"))}

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""
    return _write_text(layout.configuration / "containerd.toml", text)


def _pod_network(layout: Layout) -> Mapping[str, Any]:
    # A link of its own for each pod and no common bridge: all that pods send to each other is routed, so a reply
    # passes the rules of kube-proxy again, on kernels without br_netfilter too.
    addresses = {
        "type": "host-local",
        "dataDir": str(layout.address_leases),
        "ranges": [[{"subnet": POD_NETWORK, "gateway": NODE_ADDRESS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": addresses}]}


def _coredns(layout: Layout) -> Path:
    upstream = _machine_resolv_conf()
    # Without a name server there, CoreDNS would refuse to start.
    forward = f"forward . {upstream}" if "nameserver" in upstream.read_text() else ""
    text = f""".:53 {{
    errors
    bind {NODE_ADDRESS}
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {_kubeconfig(layout, COREDNS)} {CONTEXT}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }}
    {forward}
}}
"""
    return _write_text(layout.configuration / "Corefile", text)


def _machine_resolv_conf() -> Path:
    # Where systemd-resolved runs, /etc/resolv.conf names an address that only the machine itself can ask.
    return _RESOLVED if _RESOLVED.exists() else Path("/etc/resolv.conf")


def _write(path: Path, content: Mapping[str, Any]) -> Path:
    """JSON is YAML too, so every part reads it."""
    return _write_text(path, json.dumps(content, indent=2) + "\n")


def _write_text(path: Path, text: str) -> Path:
    # kube-proxy ends when its file is written, even with what was there.
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return path
