"""The command line: `python -m cluster build|up|down|status`, with `tests` on the path."""

import argparse
import sys
import time
from collections.abc import Sequence

from cluster import images
from cluster.build import programs
from cluster.node import Node, NodeFailed, down, running, up

from nfctl.programs import ToolMissing


def main(arguments: Sequence[str]) -> int:
    """Does what the arguments say; 1 when it failed, or when `status` finds no node."""
    parser = argparse.ArgumentParser(prog="cluster", description="A real one-node Kubernetes on this machine.")
    parser.add_argument("action", choices=("build", "up", "down", "status"))
    action = parser.parse_args(arguments).action
    try:
        return {"build": _build, "up": _up, "down": _down, "status": _status}[action]()
    except (NodeFailed, ToolMissing) as error:
        _say(str(error))
        return 1


def _build() -> int:
    """What takes long on a new machine, so that no test waits for it."""
    programs(_say)
    images.build(_say)
    return 0


def _up() -> int:
    started = time.monotonic()
    already = running() is not None
    node = up(_say)
    if already:
        _say("The node is up already.")
    else:
        _say(f"The node is up after {time.monotonic() - started:.0f} s.")
    print(_usage(node))
    return 0


def _down() -> int:
    down(_say)
    _say("No node is left, nor anything that it made.")
    return 0


def _status() -> int:
    node = running()
    if node is None:
        _say("No node is up.")
        return 1
    for name, pid in sorted(node.pids.items()):
        print(f"{name:24} pid {pid}")
    print(_usage(node))
    return 0


def _usage(node: Node) -> str:
    return (
        f"\nexport KUBECONFIG={node.kubeconfig} KUBE_CONTEXT={node.context}\n"
        f"kubectl: {node.kubectl}\nlogs:    {node.logs}\nTo end it and remove all of it: make cluster-down"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
