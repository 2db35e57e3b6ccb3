"""Overlays that are not deployed here are at least taken by a real API server: schemas, admission, cross-checks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster.deployment import RUNS, SERVICE, copy_manifests
from cluster.node import Node

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]

# So that what another test has deployed is neither changed nor in the way.
_ASIDE = {SERVICE: f"{SERVICE}-dry-run", RUNS: f"{RUNS}-dry-run"}


@pytest.fixture
def aside(node: Node) -> Iterator[None]:
    """Two empty namespaces."""
    for name in _ASIDE.values():
        node.run_kubectl("create", "namespace", name)
    yield
    node.run_kubectl("delete", "namespace", *_ASIDE.values(), "--timeout=120s")


@pytest.mark.parametrize("overlay", ["small", "production"])
def test_every_object_is_taken(node: Node, aside: None, overlay: str, tmp_path: Path) -> None:
    """Each has its schema, and all fit together."""
    copy_manifests(tmp_path)
    rendered = node.run_kubectl("kustomize", str(tmp_path / "k8s-manifests" / "overlays" / overlay))
    objects = [found for found in yaml.safe_load_all(rendered) if found["kind"] != "Namespace"]
    for found in objects:
        if "namespace" in found["metadata"]:
            found["metadata"]["namespace"] = _ASIDE[found["metadata"]["namespace"]]
    said = node.run_kubectl("create", "--dry-run=server", "-f", "-", given=yaml.safe_dump_all(objects))
    assert said.count("created (server dry run)") == len(objects)
    assert len(objects) > 25
