"""What tests on a cluster stand on: a real one-node Kubernetes, images of this checkout, a service that uses both."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import images as image_builder
from cluster.deployment import Deployed, deploy_runs, deploy_service, runner_settings
from cluster.node import Node, NodeFailed, down, running, up
from service_process import ROOT, Service

from nfctl.programs import InstallFailed, ToolMissing

NAMESPACE = "nextflow-tests"


def _say(line: str) -> None:
    print(line, flush=True)


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """The node; one that was up before stays up. At home it may be missing, in CI it may not."""
    was_up = running() is not None
    try:
        found = up(_say)
    except (NodeFailed, ToolMissing, InstallFailed, OSError) as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    yield found
    if not was_up:
        down(_say)


@pytest.fixture(scope="session")
def images(node: Node) -> image_builder.Images:
    """The images of this checkout, on the node."""
    built = image_builder.build(_say)
    for image in (built.service, built.nextflow, built.redis):
        node.import_image(image.archive)
    return built


@pytest.fixture(scope="session")
def claim(node: Node, tmp_path_factory: Any) -> Path:
    """The directory behind the work claim of the runs' namespace, which is made here."""
    return deploy_runs(node, tmp_path_factory.mktemp("overlay"), NAMESPACE)


@pytest.fixture(scope="session")
def cluster_settings(
    node: Node,
    images: image_builder.Images,
    claim: Path,
    tmp_path_factory: Any,
) -> dict[str, str]:
    """The settings of a service on this machine whose runs work on the cluster."""
    pipelines = shutil.copytree(ROOT / "examples", tmp_path_factory.mktemp("own") / "pipelines")
    return runner_settings(node, images.nextflow.name, NAMESPACE, pipelines)


@pytest.fixture(scope="session")
def deployed(node: Node, images: image_builder.Images, tmp_path_factory: Any) -> Deployed:
    """The service on the cluster, as its manifests have it; what earlier tests left of it is removed first."""
    return deploy_service(node, images, tmp_path_factory.mktemp("deployed"))


@pytest.fixture(scope="session")
def cluster_service(cluster_settings: dict[str, str], tmp_path_factory: Any) -> Iterator[Service]:
    """A service on this machine whose runs work on the cluster."""
    directory: Path = tmp_path_factory.mktemp("cluster-service")
    started = Service(directory, **cluster_settings)
    started.start()
    yield started
    started.kill()
