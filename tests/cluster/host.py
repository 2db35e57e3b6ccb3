"""Host: what the node needs of the machine outside its namespaces, made before its start and taken back at its end."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cluster.control import NodeFailed
from cluster.layout import (
    API_PORT,
    CGROUP,
    FIREWALL_TABLE,
    KUBELET_PORT,
    LINK,
    NODE_ADDRESS,
    POD_NETWORK,
    PRIVATE_PLACES,
    PROXY_HEALTH_PORT,
    PROXY_METRICS_PORT,
    Layout,
)

_CGROUPS = Path("/sys/fs/cgroup")
_SECONDS_TO_VANISH = 20.0

# Pods reach the world by the machine's address. Among themselves and to the node they keep their own.
_MASQUERADE = f"""
table ip {FIREWALL_TABLE} {{
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        ip saddr {POD_NETWORK} ip daddr != {POD_NETWORK} masquerade
    }}
}}
"""
_TABLES = (f"ip {FIREWALL_TABLE}", "ip kube-proxy", "ip6 kube-proxy")

_FORWARDING = "net/ipv4/ip_forward"
# The kubelet sets all but the first as it likes them.
_KERNEL_SETTINGS = (
    _FORWARDING,
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def check_ports() -> None:
    """Raises NodeFailed when a port is in use: another node may be here, in another state directory."""
    for port in (API_PORT, KUBELET_PORT, PROXY_METRICS_PORT, PROXY_HEALTH_PORT):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                raise NodeFailed(f"port {port}, which the node needs, is in use") from error


def prepare(layout: Layout) -> None:
    """Make all that the node needs outside; what an earlier node left is taken over or removed."""
    if not layout.before.exists():
        _remember(layout)
    _remove_cgroups()
    for directory in _cgroup_directories():
        directory.mkdir(exist_ok=True)
    for place in PRIVATE_PLACES:
        Path(place).mkdir(parents=True, exist_ok=True)
        (layout.private / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
    _make_link()
    _remove_tables()
    _nft(_MASQUERADE)
    _set_kernel({_FORWARDING: "1"})


def take_back(layout: Layout) -> None:
    """Undo `prepare`, and what the ended node left in the kernel."""
    _remove_tables()
    _wait_for_pod_links()
    subprocess.run(["ip", "link", "delete", LINK], capture_output=True, check=False)
    _remove_cgroups()
    if layout.before.exists():
        before = json.loads(layout.before.read_text())
        _set_kernel(before["kernel"])
        _remove_made_places(before["missing"])


def remove_state(layout: Layout) -> None:
    """Delete the state directory, unless something is mounted below it."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mounted = Path(line.split()[4])
        if mounted.is_relative_to(layout.root):
            raise NodeFailed(f"{mounted} is still mounted, so {layout.root} stays")
    shutil.rmtree(layout.root, ignore_errors=True)
    if layout.root.exists():
        raise NodeFailed(f"{layout.root} cannot be removed")


def _remember(layout: Layout) -> None:
    missing = [str(directory) for place in PRIVATE_PLACES for directory in _missing(Path(place))]
    kernel = {name: _kernel_file(name).read_text().strip() for name in _KERNEL_SETTINGS if _kernel_file(name).exists()}
    # In one move: of half a file nothing could be put back.
    draft = layout.before.with_suffix(".draft")
    draft.write_text(json.dumps({"kernel": kernel, "missing": missing}))
    draft.rename(layout.before)


def _missing(place: Path) -> Iterator[Path]:
    """The place and the directories above it that do not exist, the deepest first."""
    while not place.exists():
        yield place
        place = place.parent


def _remove_made_places(missing: Sequence[str]) -> None:
    for place in missing:
        try:
            Path(place).rmdir()
        except OSError:
            # Somebody else uses it by now.
            continue


def _kernel_file(name: str) -> Path:
    return Path("/proc/sys") / name


def _set_kernel(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        _kernel_file(name).write_text(value)


def _make_link() -> None:
    if not Path("/sys/class/net", LINK).exists():
        # A bridge without ports: it only carries the node's address, and every kernel has bridges.
        _run("ip", "link", "add", LINK, "type", "bridge")
    _run("ip", "address", "replace", f"{NODE_ADDRESS}/32", "dev", LINK)
    _run("ip", "link", "set", LINK, "up")


def _wait_for_pod_links() -> None:
    """Pods' links go with their network namespaces, which the kernel removes a moment after their last process."""
    deadline = time.monotonic() + _SECONDS_TO_VANISH
    while any(name != LINK for name in _links_with_node_address()):
        if time.monotonic() > deadline:
            raise NodeFailed(f"links of pods stay: {', '.join(_links_with_node_address())}")
        time.sleep(0.05)


def _links_with_node_address() -> Sequence[str]:
    addresses = json.loads(_run("ip", "-json", "address", "show", "to", f"{NODE_ADDRESS}/32") or "[]")
    return [link["ifname"] for link in addresses if link]


def _cgroup_directories() -> Sequence[Path]:
    """Our cgroup in every hierarchy: cgroup v1 has one for each controller, v2 has one."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS / CGROUP]
    hierarchies = [path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]
    return [path / CGROUP for path in hierarchies]


def _remove_cgroups() -> None:
    """Remove our cgroups and all below, which are empty once the node has ended."""
    deadline = time.monotonic() + _SECONDS_TO_VANISH
    for top in _cgroup_directories():
        while top.exists():
            for directory, _, _ in os.walk(top, topdown=False):
                _remove_cgroup(Path(directory))
            if top.exists():
                if time.monotonic() > deadline:
                    raise NodeFailed(f"the cgroup {top} cannot be removed")
                time.sleep(0.05)


def _remove_cgroup(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        # The kernel still counts a process that has just ended; the caller tries again.
        return


def _remove_tables() -> None:
    for table in _TABLES:
        # Named first, which makes it where it is missing: deleting what is not there is an error.
        _nft(f"table {table}\ndelete table {table}\n")


def _nft(rules: str) -> None:
    _run("nft", "--file", "-", given=rules)


def _run(*command: str, given: str = "") -> str:
    ended = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise NodeFailed(f"{' '.join(command)}: {ended.stderr.strip()}")
    return ended.stdout
