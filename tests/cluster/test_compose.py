"""docker-compose.yml: read and checked by the library of Docker Compose itself, and held against what it names."""

import configparser
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.images import TARGETS

from nfctl.service import Found, LocalService
from shared import settings as settings_module
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
CHECKER = Path(__file__).parent / "compose"
SECRETS = {
    "AUTH_TOKENS": "a-token-of-many-letters",
    "REDIS_PASSWORD": "redis-secret",
    "FLOWER_PASSWORD": "flower-secret",
}
OURS = ("web", "worker", "reconciler", "flower")
# What the keys of its environment mean that are no settings of the service.
FOREIGN = {"FLOWER_BASIC_AUTH", "HOME", "KUBECONFIG", "NXF_HOME", "NXF_OPTS"}
# Which Nextflow and which cluster, the images and the profile say; and ports are published, not set.
FIXED = {
    "FLOWER_PORT",
    "KUBE_CONTEXT",
    "NEXTFLOW_BIN",
    "NEXTFLOW_NAMESPACE",
    "NEXTFLOW_SERVICE_ACCOUNT",
    "PORT",
    "WORK_PVC",
}


def checked(*profiles: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What `docker compose config` would say to the file in an environment of these variables."""
    go = shutil.which("go")
    if go is None:
        if os.environ.get("CI"):
            pytest.fail("Go is not on PATH.")
        pytest.skip("Go is not on PATH.")
    own = {key: value for key, value in os.environ.items() if key in ("HOME", "PATH") or key.startswith(("GO", "SSL_"))}
    command = [go, "run", "-C", str(CHECKER), ".", str(ROOT / "docker-compose.yml"), *profiles]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**own, **variables})


def project(*profiles: str, **variables: str) -> dict[str, Any]:
    """The services by name, as Docker Compose understands them."""
    ended = checked(*profiles, **SECRETS, **variables)
    assert ended.returncode == 0, ended.stderr
    loaded: dict[str, Any] = json.loads(ended.stdout)
    return loaded


@pytest.fixture(scope="module")
def plain() -> Mapping[str, Any]:
    return project()


@pytest.fixture(scope="module")
def with_k3s() -> Mapping[str, Any]:
    return project("k3s", RUNNER="kubernetes")


def test_it_starts_the_service_alone(plain: Mapping[str, Any]) -> None:
    """Without a profile there is the service and its Redis, and the worker waits for no k3s."""
    assert set(plain["services"]) == {"redis", *OURS}
    assert set(plain["services"]["worker"]["depends_on"]) <= {"redis", "k3s-access"}
    assert plain["services"]["worker"]["depends_on"].get("k3s-access", {}).get("required", False) is False


def test_the_profile_adds_a_cluster(with_k3s: Mapping[str, Any]) -> None:
    """With it there is k3s too, only there something is privileged, and the worker waits until it may use it."""
    services = with_k3s["services"]
    assert set(services) == {"redis", *OURS, "nextflow", "k3s", "k3s-access"}
    assert [name for name, service in services.items() if service.get("privileged")] == ["k3s"]
    assert services["worker"]["depends_on"]["k3s-access"]["condition"] == "service_completed_successfully"
    assert {services[name]["environment"]["RUNNER"] for name in OURS} == {"kubernetes"}


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_a_missing_secret_is_told(missing: str) -> None:
    """Nothing starts without its secrets, and the message says which is missing and where to read on."""
    ended = checked(**{key: value for key, value in SECRETS.items() if key != missing})
    assert ended.returncode
    assert f"{missing} is missing a value: the first lines of docker-compose.yml make it" in ended.stderr


def test_every_setting_is_ours_and_none_is_forgotten(plain: Mapping[str, Any]) -> None:
    """Each key that it sets is a setting, and each setting is set there, can be set in .env, or is fixed by design."""
    settings = {field.name.upper() for field in fields(Settings)}
    keys = {key for name in OURS for key in plain["services"][name]["environment"]}
    assert keys - FOREIGN <= settings
    assert settings - keys == FIXED


@pytest.mark.parametrize("name", OURS)
def test_each_process_takes_its_settings(plain: Mapping[str, Any], name: str) -> None:
    """The values pass the service's own check, a Redis with a password among them."""
    environment = {key: value for key, value in plain["services"][name]["environment"].items() if value is not None}
    settings = settings_module.load(environment)
    assert settings.redis_url == "redis://:redis-secret@redis:6379/0"
    assert settings.work_mount_path == settings.data_dir


def test_a_setting_of_the_env_file_arrives() -> None:
    """A key that has no value in the file has that of the environment."""
    environment = project(QUEUE_LIMIT="7")["services"]["web"]["environment"]
    assert environment["QUEUE_LIMIT"] == "7"


@pytest.mark.parametrize("name", ["redis", *OURS, "nextflow", "k3s-access"])
def test_all_but_the_node_are_confined(with_k3s: Mapping[str, Any], name: str) -> None:
    """No root where none is needed, no writing outside volumes and /tmp, no capability, no way to more."""
    service = with_k3s["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert name == "k3s-access" or int(service["user"].split(":")[0]) > 0


def test_only_this_machine_reaches_it(with_k3s: Mapping[str, Any]) -> None:
    """Two ports are published, on loopback; Redis is on a network that has no way out."""
    services = with_k3s["services"]
    ports = {(name, port["host_ip"], port["target"]) for name in services for port in services[name].get("ports", [])}
    assert ports == {("web", "127.0.0.1", 8000), ("flower", "127.0.0.1", 5555)}
    assert list(services["redis"]["networks"]) == ["inside"]
    assert with_k3s["networks"]["inside"]["internal"]


def test_images_are_those_of_the_dockerfile(with_k3s: Mapping[str, Any]) -> None:
    """Each target is a stage of the Dockerfile, by its name and in its version."""
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert set(TARGETS) <= stages
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    built = {
        service["build"]["target"]: service["image"] for service in with_k3s["services"].values() if "build" in service
    }
    tags = dict.fromkeys(TARGETS, setup["metadata"]["version"]) | {"nextflow": "24.10.0"}
    assert built == {target: f"{name}:{tags[target]}" for target, name in TARGETS.items()}


def test_the_service_comes_last(with_k3s: Mapping[str, Any]) -> None:
    """`docker build` without a target makes the service, and its command is web's."""
    last = (ROOT / "Dockerfile").read_text().rsplit("\nFROM ", 1)[1]
    assert last.splitlines()[0].endswith(" AS service")
    assert with_k3s["services"]["web"]["command"] == json.loads(last.rsplit("CMD ", 1)[1])


@pytest.mark.parametrize("name", OURS)
def test_commands_are_those_of_kubernetes(plain: Mapping[str, Any], name: str) -> None:
    """The same image is started in the same way, here and in a cluster."""
    documents = yaml.safe_load_all((ROOT / "k8s-manifests" / "base" / "controller" / f"{name}.yaml").read_text())
    deployment = next(document for document in documents if document["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert plain["services"][name]["command"] == container["command"] + container.get("args", [])


@pytest.mark.parametrize("name", OURS)
def test_commands_are_those_of_one_machine(plain: Mapping[str, Any], name: str) -> None:
    """`nfctl up` starts the same programs; only where Flower listens differs."""
    settings = settings_module.load({"REDIS_URL": "redis://127.0.0.1:1/0"})
    local = LocalService(settings, Found(Path("nextflow"), None), lambda _: None)
    children = {child.program.name: list(child.program.arguments)[1:] for child in local._children}
    where = ("--address=", "--port=")
    assert [word for word in plain["services"][name]["command"][1:] if not word.startswith(where)] == [
        word for word in children[name] if not word.startswith(where)
    ]
