"""What tests put on the cluster: the project's own manifests, with the test's images and storage."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cluster.images import Images
from cluster.node import Node

from nfctl.client import Client

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "k8s-manifests"
SERVICE, RUNS = "nextflow-controller", "nextflow-runs"
_USER, _REDIS_USER = 1000, 999


@dataclass(frozen=True, slots=True)
class Deployed:
    """The service on the cluster: where it is reached from the machine, and its secrets."""

    url: str
    flower: str
    client: Client
    secrets: Mapping[str, str]


def deploy_service(node: Node, images: Images, directory: Path) -> Deployed:
    """The whole service by `kubectl apply -k`, from a copy of the manifests, as a newcomer would."""
    for namespace in (SERVICE, RUNS):
        node.run_kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s")
    volumes = ("nextflow-work", "nextflow-redis", "runs-of-nextflow")
    node.run_kubectl("delete", "persistentvolume", *volumes, "--ignore-not-found")
    copy_manifests(directory)
    overlay = _overlay(images, _storage(node, "work", _USER), _storage(node, "redis", _REDIS_USER))
    apply(node, directory / "k8s-manifests" / "overlays" / "test", {"kustomization.yaml": [overlay]})
    for kind, name in (("statefulset", "redis"), *(("deployment", name) for name in _DEPLOYMENTS)):
        node.run_kubectl("-n", SERVICE, "rollout", "status", kind, name, "--timeout=180s")
    lines = (directory / "k8s-manifests" / "secrets" / "secrets.env").read_text().splitlines()
    secrets = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    url = f"http://{_address(node, 'web')}"
    return Deployed(url, f"http://{_address(node, 'flower')}:5555", Client(url, secrets["AUTH_TOKENS"]), secrets)


def copy_manifests(directory: Path) -> None:
    """The manifests as a newcomer has them, with Secrets made by their script."""
    for name in ("k8s-manifests", "examples"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("secrets.env"))
    subprocess.run([directory / "k8s-manifests" / "make-secrets"], check=True)


def runner_settings(node: Node, image: str, namespace: str, pipelines: Path) -> dict[str, str]:
    """The settings of a service on this machine whose runs work in a namespace of the cluster."""
    return {
        "RUNNER": "kubernetes",
        "KUBECONFIG": str(node.kubeconfig),
        "KUBE_CONTEXT": node.context,
        "NEXTFLOW_NAMESPACE": namespace,
        "NEXTFLOW_IMAGE": image,
        "NEXTFLOW_CPU": "100m",
        "NEXTFLOW_MEMORY": "800Mi",
        "PIPELINES_DIR": str(pipelines),
    }


_DEPLOYMENTS = ("web", "worker", "reconciler", "flower")


def _overlay(images: Images, work: Path, redis: Path) -> Mapping[str, Any]:
    def at(volume: str, path: Path) -> Mapping[str, Any]:
        change = [
            {"op": "remove", "path": "/spec/nfs"} if volume == "runs-of-nextflow" else _NOTHING,
            {"op": "add", "path": "/spec/hostPath", "value": {"path": str(path), "type": "Directory"}},
        ]
        patch = yaml.safe_dump([step for step in change if step is not _NOTHING])
        return {"target": {"kind": "PersistentVolume", "name": volume}, "patch": patch}

    settings = [f"NEXTFLOW_IMAGE={images.nextflow.name}", "NEXTFLOW_CPU=100m", "NEXTFLOW_MEMORY=800Mi"]
    return {
        "resources": ["../small"],
        "components": ["../../components/host-storage", "../../components/shared-work"],
        "images": [
            {"name": "nextflow-controller", "newTag": images.service.name.partition(":")[2]},
            {"name": "redis", "newTag": images.redis.name.partition(":")[2]},
        ],
        "configMapGenerator": [
            {
                "name": "settings",
                "namespace": SERVICE,
                "behavior": "merge",
                "literals": [*settings, "RATE_LIMIT=60000/minute"],
            }
        ],
        "patches": [at("nextflow-work", work), at("nextflow-redis", redis), at("runs-of-nextflow", work)],
    }


_NOTHING: Mapping[str, Any] = {}


def _storage(node: Node, name: str, user: int) -> Path:
    directory = node.storage / SERVICE / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    os.chown(directory, user, user)
    return directory


def _address(node: Node, service: str) -> str:
    return node.run_kubectl("-n", SERVICE, "get", "service", service, "-o", "jsonpath={.spec.clusterIP}")


def deploy_runs(node: Node, directory: Path, namespace: str) -> Path:
    """A namespace for runs, from the manifests, on a directory of the node, which is returned."""
    storage = node.storage / namespace
    storage.mkdir(parents=True, exist_ok=True)
    os.chown(storage, _USER, _USER)
    overlay = {
        "resources": [_relative(MANIFESTS / "base" / "runs", directory), "volume.yaml"],
        "namespace": namespace,
        "patches": [use_volume("nextflow-work", f"{namespace}-work"), _own_account(namespace)],
    }
    volume = host_volume(f"{namespace}-work", storage, namespace, "nextflow-work")
    apply(node, directory, {"kustomization.yaml": [overlay], "volume.yaml": [volume]})
    return storage


def apply(node: Node, directory: Path, files: Mapping[str, Sequence[Any]]) -> None:
    """Write the files of an overlay and apply it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, documents in files.items():
        (directory / name).write_text(yaml.safe_dump_all(documents, sort_keys=False))
    node.run_kubectl("apply", "-k", str(directory))


def use_volume(claim: str, volume: str) -> dict[str, Any]:
    """A patch that binds a claim to a volume."""
    change = [
        {"op": "add", "path": "/spec/storageClassName", "value": ""},
        {"op": "add", "path": "/spec/volumeName", "value": volume},
    ]
    return {"target": {"kind": "PersistentVolumeClaim", "name": claim}, "patch": yaml.safe_dump(change)}


def host_volume(name: str, path: Path, namespace: str, claim: str) -> dict[str, Any]:
    """A volume in a directory of the node, for one claim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "100Gi"},
            "accessModes": ["ReadWriteMany", "ReadWriteOnce", "ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"namespace": namespace, "name": claim},
            "hostPath": {"path": str(path), "type": "Directory"},
        },
    }


def _own_account(namespace: str) -> dict[str, Any]:
    change = [{"op": "replace", "path": "/subjects/0/namespace", "value": namespace}]
    return {"target": {"kind": "RoleBinding", "name": "nextflow"}, "patch": yaml.safe_dump(change)}


def _relative(path: Path, directory: Path) -> str:
    # kustomize takes no absolute path.
    return os.path.relpath(path, directory)
