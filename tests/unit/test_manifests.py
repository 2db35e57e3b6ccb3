"""The manifests, as files and as kustomize renders them: what they grant and lock, and that they fit the code."""

import base64
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cache
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from nfctl.cache import cache_directory
from shared import settings
from shared.broker import RUN_QUEUE

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "k8s-manifests"
SERVICE, RUNS = "nextflow-controller", "nextflow-runs"
KNOWN = {item.name.upper() for item in fields(settings.Settings)}
SECRET = {item.name.upper() for item in fields(settings.Settings) if item.metadata["secret"]}
# Not ours, but read by programs that we start.
FOREIGN = {"FLOWER_BASIC_AUTH", "REDIS_PASSWORD", "REDISCLI_AUTH", "MAX_MEMORY"}

Object = dict[str, Any]


@cache
def kubectl() -> Path | None:
    """The one on PATH, or the one that the tests' own cluster was built with."""
    found = shutil.which("kubectl")
    built = sorted(cache_directory().glob("cluster-kubernetes-*/kubectl"))
    return Path(found) if found else built[-1] if built else None


def kustomize(directory: Path) -> subprocess.CompletedProcess[str]:
    """What `kubectl kustomize` makes of a directory."""
    program = kubectl()
    if program is None:
        pytest.skip("kubectl is not to be had.")
    return subprocess.run([program, "kustomize", str(directory)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the manifests and of what they refer to, without the secrets that somebody may have made."""
    copy = tmp_path_factory.mktemp("manifests")
    shutil.copytree(MANIFESTS, copy / "k8s-manifests", ignore=shutil.ignore_patterns("secrets.env"))
    shutil.copytree(ROOT / "examples", copy / "examples")
    return copy / "k8s-manifests"


@pytest.fixture(scope="session")
def with_secrets(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another copy, with secrets."""
    copy = tmp_path_factory.mktemp("with-secrets")
    shutil.copytree(tree.parent, copy, dirs_exist_ok=True)
    subprocess.run([copy / "k8s-manifests/make-secrets"], check=True, capture_output=True)
    return copy / "k8s-manifests"


def written() -> list[Object]:
    """The base as it is written, for machines without kubectl."""
    files = (file for file in sorted((MANIFESTS / "base").rglob("*.yaml")) if file.name != "kustomization.yaml")
    return [made for file in files for made in yaml.safe_load_all(file.read_text())]


@pytest.fixture(scope="session", params=["as written", "small", "production"])
def objects(request: pytest.FixtureRequest, with_secrets: Path) -> list[Object]:
    """All objects of the base or of an overlay."""
    if request.param == "as written":
        return written()
    return rendered(with_secrets / "overlays" / request.param)


@pytest.fixture(scope="session", params=["small", "production"])
def overlay(request: pytest.FixtureRequest, with_secrets: Path) -> list[Object]:
    """All objects of an overlay."""
    return rendered(with_secrets / "overlays" / request.param)


def rendered(directory: Path) -> list[Object]:
    """The objects that a directory stands for."""
    done = kustomize(directory)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    """Those of a kind."""
    return [made for made in objects if made["kind"] in kinds]


def named(objects: Iterable[Object], kind: str, name: str) -> Object:
    """The one of that kind and name; kustomize adds a hash to the names of what it generates."""
    (found,) = (it for it in of_kind(objects, kind) if it["metadata"]["name"].rpartition("-")[0] == name)
    return found


def workloads(objects: Iterable[Object]) -> list[Object]:
    """What makes pods."""
    found = of_kind(objects, "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod")
    assert {made["metadata"]["name"] for made in found} == {"redis", "web", "worker", "reconciler", "flower"}
    return found


def pods(objects: Iterable[Object]) -> Iterator[tuple[str, Object]]:
    """The specification of each workload's pod."""
    for made in workloads(objects):
        yield made["metadata"]["name"], made["spec"]["template"]["spec"]


def containers(objects: Iterable[Object]) -> Iterator[tuple[str, Object]]:
    """Each container, by the name of its workload."""
    for name, pod in pods(objects):
        assert "ephemeralContainers" not in pod
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            yield name, container


def test_no_object_is_there_twice(overlay: list[Object]) -> None:
    """Kind, namespace and name are each object's own, and every namespaced object says its namespace."""
    names = Counter((it["kind"], it["metadata"].get("namespace"), it["metadata"]["name"]) for it in overlay)
    assert [name for name, count in names.items() if count > 1] == []
    assert {kind for kind, namespace, _ in names if namespace is None} <= {"Namespace", "PersistentVolume"}
    assert {namespace for _, namespace, _ in names} <= {None, SERVICE, RUNS}
    assert {it["metadata"]["namespace"] for it in workloads(overlay)} == {SERVICE}


@pytest.mark.parametrize("component", ["host-storage", "shared-work"])
def test_the_components_fit(component: str, with_secrets: Path) -> None:
    """Each component goes on top of the small overlay, and its volumes are claimed by nobody else."""
    top = with_secrets / f"overlays/with-{component}"
    top.mkdir()
    text = f"resources: [../small]\ncomponents: [../../components/{component}]\n"
    top.joinpath("kustomization.yaml").write_text(text)
    objects = rendered(top)
    claims = {(it["metadata"]["namespace"], it["metadata"]["name"]) for it in of_kind(objects, "PersistentVolumeClaim")}
    claims.add((SERVICE, "data-redis-0"))
    for volume in of_kind(objects, "PersistentVolume"):
        assert (volume["spec"]["claimRef"]["namespace"], volume["spec"]["claimRef"]["name"]) in claims
    web = dict(pods(objects))["web"]
    (work,) = (volume for volume in web["volumes"] if volume["name"] == "work")
    assert ("persistentVolumeClaim" in work) is (component == "shared-work")


def test_without_secrets_nothing_is_applied(tree: Path) -> None:
    """No default password is there to be used: rendering fails, and names the file that is missing."""
    done = kustomize(tree / "overlays/small")
    assert done.returncode != 0
    assert "secrets/secrets.env: no such file" in done.stderr
    assert done.stdout == ""


def test_secrets_are_made_once(with_secrets: Path) -> None:
    """They are for their owner's eyes, the service takes them, and they are not made anew over old ones."""
    file = with_secrets / "secrets/secrets.env"
    made = dict(line.split("=", 1) for line in file.read_text().splitlines() if not line.startswith("#"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert made.keys() == {"REDIS_PASSWORD", "REDIS_URL", "AUTH_TOKENS", "FLOWER_BASIC_AUTH"}
    assert all(len(value) >= 48 for value in made.values())
    assert made["REDIS_PASSWORD"] in made["REDIS_URL"]
    assert settings.load(made | {"HOST": "0.0.0.0"}).auth_tokens == (made["AUTH_TOKENS"],)  # noqa: S104 - not bound
    again = subprocess.run([with_secrets / "make-secrets"], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert made["AUTH_TOKENS"] in file.read_text()


def test_no_secret_lies_in_the_tree(tree: Path) -> None:
    """The tree has no Secret, git ignores the file that makes one, and nothing secret is written where it is used."""
    for file in tree.rglob("*.yaml"):
        assert "kind: Secret\n" not in file.read_text(), file
    assert "/k8s-manifests/secrets/secrets.env" in (ROOT / ".gitignore").read_text().splitlines()
    for name, container in containers(written()):
        for entry in container.get("env", []):
            if entry["name"] in SECRET | FOREIGN - {"MAX_MEMORY"}:
                assert "value" not in entry, (name, entry)
                assert entry["valueFrom"]["secretKeyRef"]["name"] == "secrets"


def test_what_is_secret_reaches_only_who_needs_it(overlay: list[Object]) -> None:
    """The configuration holds nothing secret, and tokens and passwords go where they are used."""
    assert not named(overlay, "ConfigMap", "settings")["data"].keys() & (SECRET | FOREIGN)
    given = {
        name: {entry["name"] for entry in container["env"] if "valueFrom" in entry}
        for name, container in containers(overlay)
    }
    assert given == {
        "redis": {"REDIS_PASSWORD", "REDISCLI_AUTH"},
        "web": {"REDIS_URL", "AUTH_TOKENS"},
        "worker": {"REDIS_URL"},
        "reconciler": {"REDIS_URL"},
        "flower": {"REDIS_URL", "FLOWER_BASIC_AUTH"},
    }


def test_the_settings_are_good(overlay: list[Object]) -> None:
    """All settings are there but what has no place in a cluster, and the service starts with their values."""
    values = named(overlay, "ConfigMap", "settings")["data"]
    # HOST is web's alone: any but loopback asks for tokens, which the others do not have.
    assert values.keys() == KNOWN - SECRET - {"HOST", "PORT", "KUBE_CONTEXT", "NEXTFLOW_BIN"}
    kept = {key: base64.b64decode(value).decode() for key, value in named(overlay, "Secret", "secrets")["data"].items()}
    for name, container in containers(overlay):
        assert {entry["name"] for entry in container["env"]} <= KNOWN | FOREIGN
        if name == "redis":
            continue
        (source,) = container["envFrom"]
        assert source["configMapRef"]["name"] == named(overlay, "ConfigMap", "settings")["metadata"]["name"]
        environment = {
            entry["name"]: entry.get("value") or kept[entry["valueFrom"]["secretKeyRef"]["key"]]
            for entry in container["env"]
        }
        made = settings.load(values | environment)
        assert made.runner == "kubernetes"
        assert made.redis_url
        assert made.on_loopback is (name != "web")


def test_the_settings_fit_the_objects(overlay: list[Object]) -> None:
    """What the settings name is there: namespace, account, claim, ports, paths, queue."""
    made = settings.load(named(overlay, "ConfigMap", "settings")["data"])
    there = {(it["kind"], it["metadata"].get("namespace"), it["metadata"]["name"]) for it in overlay}
    assert ("Namespace", None, made.nextflow_namespace) in there
    assert ("ServiceAccount", made.nextflow_namespace, made.nextflow_service_account) in there
    assert ("PersistentVolumeClaim", made.nextflow_namespace, made.work_pvc) in there
    # Links among the files of a run are absolute.
    assert made.data_dir == made.work_mount_path
    by_name = dict(containers(overlay))
    for name in ("web", "worker"):
        mounts = {mount["name"]: mount["mountPath"] for mount in by_name[name]["volumeMounts"]}
        assert mounts["work"] == str(made.work_mount_path)
        assert mounts["pipelines"] == str(made.pipelines_dir)
    assert [port["containerPort"] for port in by_name["web"]["ports"]] == [made.port]
    assert [port["containerPort"] for port in by_name["flower"]["ports"]] == [made.flower_port]
    arguments = by_name["worker"]["args"]
    assert arguments[arguments.index("-Q") + 1] == RUN_QUEUE


def test_the_catalog_is_mounted_whole(overlay: list[Object]) -> None:
    """Each pipeline of the catalog has all its files at its name, in web and in the worker."""
    catalog = yaml.safe_load((ROOT / "examples/test_workflows.yaml").read_text())["workflows"]
    expected = {"test_workflows.yaml"}
    for folder in {workflow["pipeline"] for workflow in catalog}:
        files = [path for path in (ROOT / "examples" / folder).rglob("*") if path.is_file() and path.suffix != ".md"]
        expected |= {path.relative_to(ROOT / "examples").as_posix() for path in files}
    maps = {it["metadata"]["name"]: it["data"] for it in of_kind(overlay, "ConfigMap")}
    for name in ("web", "worker"):
        (volume,) = (volume for volume in dict(pods(overlay))[name]["volumes"] if volume["name"] == "pipelines")
        mounted: dict[str, str] = {}
        for source in (source["configMap"] for source in volume["projected"]["sources"]):
            content = maps[source["name"]]
            items = source.get("items", [{"key": key, "path": key} for key in content])
            mounted |= {item["path"]: content[item["key"]] for item in items}
        assert mounted.keys() == expected
        assert all(text == (ROOT / "examples" / path).read_text() for path, text in mounted.items())


RIGHTS: dict[str, dict[tuple[str, str], set[str]]] = {
    "worker": {
        ("batch", "jobs"): {"create", "get", "list", "watch", "delete", "patch"},
        ("", "pods"): {"list", "watch", "delete"},
        ("", "pods/log"): {"get"},
        ("", "secrets"): {"create"},
        ("coordination.k8s.io", "leases"): {"create"},
        ("coordination.k8s.io", "leases/nextflow-controller"): {"get", "update"},
        ("", "events"): {"list", "watch"},
    },
    "nextflow": {
        ("", "pods"): {"create", "get", "list", "delete"},
        ("", "pods/status"): {"get"},
        ("", "pods/log"): {"get"},
        ("batch", "jobs"): {"create", "get", "delete"},
        ("batch", "jobs/status"): {"get"},
    },
}


def test_rights_are_these_and_no_more(objects: list[Object]) -> None:
    """Worker and Nextflow have what they use, in the runs' namespace alone; nobody has anything else."""
    found: dict[str, dict[tuple[str, str], set[str]]] = {}
    for role in of_kind(objects, "Role"):
        assert role["metadata"].get("namespace", RUNS) == RUNS
        granted = found[role["metadata"]["name"]] = {}
        for rule in role["rules"]:
            assert rule.keys() - {"resourceNames"} == {"apiGroups", "resources", "verbs"}
            for group, resource in product(rule["apiGroups"], rule["resources"]):
                for name in rule.get("resourceNames", [""]):
                    granted[group, f"{resource}/{name}" if name else resource] = set(rule["verbs"])
    assert found == RIGHTS
    bound = {
        (
            binding["metadata"].get("namespace", RUNS),
            binding["roleRef"]["kind"],
            binding["roleRef"]["name"],
            *((who["kind"], who["namespace"], who["name"]) for who in binding["subjects"]),
        )
        for binding in of_kind(objects, "RoleBinding")
    }
    assert bound == {
        (RUNS, "Role", "worker", ("ServiceAccount", SERVICE, "worker")),
        (RUNS, "Role", "nextflow", ("ServiceAccount", RUNS, "nextflow")),
    }
    assert of_kind(objects, "ClusterRole", "ClusterRoleBinding") == []


def test_only_the_worker_has_a_token(objects: list[Object]) -> None:
    """No account gives its token by default, and of our pods the worker's alone asks for one."""
    assert [it["automountServiceAccountToken"] for it in of_kind(objects, "ServiceAccount")] == [False] * 3
    asking = {name: pod["automountServiceAccountToken"] for name, pod in pods(objects)}
    assert asking.pop("worker") is True
    assert set(asking.values()) == {False}
    accounts = {name: pod.get("serviceAccountName", "default") for name, pod in pods(objects)}
    assert accounts == dict.fromkeys(asking, "default") | {"worker": "worker", "reconciler": "reconciler"}


def test_the_namespaces_refuse_what_is_not_locked(objects: list[Object]) -> None:
    """The service's takes restricted pods only; that of the runs takes baseline, and tells what is not restricted."""
    marks = {it["metadata"]["name"]: it["metadata"]["labels"] for it in of_kind(objects, "Namespace")}
    assert marks.keys() == {SERVICE, RUNS}
    for name, least in ((SERVICE, "restricted"), (RUNS, "baseline")):
        assert marks[name]["pod-security.kubernetes.io/enforce"] == least
        assert marks[name]["pod-security.kubernetes.io/warn"] == "restricted"
        assert marks[name]["pod-security.kubernetes.io/audit"] == "restricted"


def test_every_pod_is_locked(objects: list[Object]) -> None:
    """The restricted profile, and more: nothing of the host's, a root that cannot be written, no service links."""
    allowed = {"configMap", "emptyDir", "projected", "persistentVolumeClaim", "secret", "downwardAPI"}
    for name, pod in pods(objects):
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "hostUsers"}, name
        assert pod["enableServiceLinks"] is False, name
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not security.keys() & {"sysctls", "supplementalGroups", "windowsOptions", "seLinuxOptions"}, name
        for volume in pod.get("volumes", []):
            assert volume.keys() - {"name"} <= allowed, name
    for name, container in containers(objects):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert all("hostPort" not in port for port in container.get("ports", [])), name


def test_every_container_is_watched_and_bounded(objects: list[Object]) -> None:
    """It has a probe, asks for what it needs and may not take all memory; whoever serves is asked if it is ready."""
    for name, container in containers(objects):
        assert "livenessProbe" in container, name
        assert ("readinessProbe" in container) is ("startupProbe" in container) is ("ports" in container), name
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
        # A limit on CPU would make a busy socket stutter on an idle node.
        assert container["resources"]["limits"].keys() == {"memory"}, name


def test_there_is_time_to_end(objects: list[Object]) -> None:
    """A worker can hand over its run, and web can let its sockets go."""
    for name, pod in pods(objects):
        assert pod["terminationGracePeriodSeconds"] >= 30, name
    (worker,) = (it for it in workloads(objects) if it["metadata"]["name"] == "worker")
    assert worker["spec"]["replicas"] == 1
    assert worker["spec"]["strategy"] == {"type": "Recreate"}


def test_images_are_pinned(overlay: list[Object]) -> None:
    """Each image has a tag that says a version; ours is this project's."""
    images = {name: container["image"] for name, container in containers(overlay)}
    images["runs"] = named(overlay, "ConfigMap", "settings")["data"]["NEXTFLOW_IMAGE"]
    for image in images.values():
        assert image.rpartition(":")[2][0].isdigit(), image
    ours = {images[name] for name in ("web", "worker", "reconciler", "flower")}
    assert {image.rpartition("/")[2] for image in ours} == {f"nextflow-controller:{version('nextflow-controller')}"}
    assert len(ours) == 1


def test_labels_say_what_belongs_together(overlay: list[Object]) -> None:
    """Each object has the recommended labels, and each Service finds the pods of one workload."""
    for made in overlay:
        labels = {key.rpartition("/")[2]: value for key, value in made["metadata"]["labels"].items()}
        assert {"name", "component"} <= labels.keys(), made["metadata"]["name"]
        assert labels["part-of"] == "nextflow-controller", made["metadata"]["name"]
        assert labels["managed-by"] == "kustomize", made["metadata"]["name"]
        assert labels["version"] == version("nextflow-controller"), made["metadata"]["name"]
    for service in of_kind(overlay, "Service"):
        wanted = service["spec"]["selector"].items()
        found = [it for it in workloads(overlay) if wanted <= it["spec"]["template"]["metadata"]["labels"].items()]
        assert [it["metadata"]["name"] for it in found] == [service["metadata"]["name"]]


def test_nobody_talks_to_anybody_unless_said(objects: list[Object]) -> None:
    """In both namespaces what comes in is refused by default, in the service's also what goes out."""
    denied = set()
    for policy in of_kind(objects, "NetworkPolicy"):
        if policy["spec"]["podSelector"] == {} and not policy["spec"].keys() & {"ingress", "egress"}:
            denied |= {(policy["metadata"]["name"], direction) for direction in policy["spec"]["policyTypes"]}
    assert denied == {("deny-all", "Ingress"), ("deny-all", "Egress"), ("deny-ingress", "Ingress")}
