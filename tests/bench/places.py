"""Places: where a process spends its time, in the kernel too, sampled while many watch and while a run prints a lot."""

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.burst import Scene, begin, readers
from bench.fanout import build
from bench.fanout.servers import SERVERS
from bench.fanout.trial import Load, opened
from bench.figures import Row, Section
from bench.processes import TrialFailed, allow_files, busiest, environment, family, own_cpu_seconds, said, wakes
from bench.sizes import Sizes
from bench.stage import directory, say, service, service_with_child
from bench.startup import by_program

# No divisors of what else happens at regular times; the second for what hardly works at all.
_HERTZ, _OFTEN = 499, 4_999
_LOOK_SECONDS = 0.5
_START_SECONDS = 2
_PATIENCE = 120
_CALM, _QUICK, _FAST = 10, 20, 50
_BURST, _LINES = Scene(100_000, 8), Scene(20, 1)
_AT_WORK = {"holds the sockets": "gunicorn", "worker": "worker@", "Redis": "redis-server"}
_SETTLE_SECONDS = 10
_FRAME = re.compile(r"\s+[0-9a-f]+ (?P<symbol>.+) \((?P<file>.*)\)$")
_KERNEL = "[kernel"
_PYTHON = "python"


class Frame(NamedTuple):
    """A function, and the file that it is in; the kernel's is `[kernel…]`."""

    symbol: str
    file: str

    @property
    def is_kernel(self) -> bool:
        """Whether it works in the kernel, whoever for."""
        return self.file.startswith(_KERNEL)


Stack = Sequence[Frame]
"""The innermost first. Outside of the kernel only that one is to be trusted."""


@dataclass(frozen=True, slots=True)
class Place:
    """A part of the time: that of the stacks for which `here` is true."""

    name: str
    here: Callable[[Stack], bool]


def _in_kernel(*symbols: str) -> Callable[[Stack], bool]:
    return lambda stack: any(frame.is_kernel and frame.symbol in symbols for frame in stack)


def _in_file(part: str) -> Callable[[Stack], bool]:
    return lambda stack: not stack[0].is_kernel and part in Path(stack[0].file).name


PLACES = (
    Place("in the kernel", lambda stack: stack[0].is_kernel),
    Place("… in writing to a socket or a file", _in_kernel("ksys_write", "__sys_sendto", "__sys_sendmsg")),
    Place(
        "… of that, handing the bytes to the socket that receives them (`net_rx_action`)", _in_kernel("net_rx_action")
    ),
    Place("… and waking whoever reads it (`sock_def_readable`)", _in_kernel("sock_def_readable")),
    Place("… in reading from a socket", _in_kernel("__sys_recvfrom", "ksys_read")),
    Place("… in waiting for events", _in_kernel("do_epoll_wait", "do_epoll_ctl", "do_poll")),
    Place("Python's interpreter and objects", _in_file(_PYTHON)),
    Place(
        "… evaluating bytecode (`_PyEval_EvalFrameDefault`)", lambda stack: stack[0].symbol.startswith("_PyEval_Eval")
    ),
    Place("libc", _in_file("libc.")),
    Place("gevent and its loop", lambda stack: "gevent" in stack[0].file or _in_file("greenlet")(stack)),
    Place("hiredis and orjson", lambda stack: _in_file("hiredis")(stack) or _in_file("orjson")(stack)),
)


def measure(sizes: Sizes) -> Iterator[Section]:
    """Raises TrialFailed where there is no perf, or it may not look."""
    if shutil.which("perf") is None:
        raise TrialFailed("There is no perf, which samples processes: install it (apt-get install linux-perf).")
    program = build.load_program(say)
    yield _rest(sizes)
    yield _a_run(_LINES, sizes, program, _OFTEN)
    yield _a_run(_BURST, sizes, program, _HERTZ)
    yield _many_sockets(sizes, program)


def _many_sockets(sizes: Sizes, program: Path) -> Section:
    allow_files(max(sizes.sockets))
    loads = [Load(sockets, _CALM, sizes.seconds) for sockets in sizes.sockets]
    loads += [Load(sizes.viewers, rate, sizes.seconds) for rate in (_QUICK, _FAST)]
    found = {f"{load.sockets:,} × {load.rate}": _holding(load, program) for load in loads}
    note = "The process that holds the sockets, or one of those that do, while frames are sent; sockets × frames/s."
    return _section("Where the sockets' time goes", found, [note])


def _a_run(scene: Scene, sizes: Sizes, program: Path, hertz: int) -> Section:
    with service_with_child() as running, readers() as pool:
        # perf itself takes some seconds too.
        _, watching = begin(running, scene, 2 * sizes.seconds, pool, program)
        time.sleep(_START_SECONDS)
        pids = {name: [_busiest(running.children(word))] for name, word in _AT_WORK.items()}
        found = _sampled(pids, sizes.seconds, hertz)
        watching.result()
    return _section(f"Where the time of a run goes, {scene}", found, ["Default retention."])


def _rest(sizes: Sizes) -> Section:
    with service() as running:
        time.sleep(_SETTLE_SECONDS)
        found = _sampled(by_program(running), 3 * sizes.seconds, _OFTEN)
    return _section("Where the time goes at rest", found, ["No run, no viewer; all processes of a program together."])


@dataclass(frozen=True, slots=True)
class Sampled:
    """What was seen of some processes, and where they were each time they were looked at.

    They took so many `processors`, and waited and went on so often in a second, without whoever looked.
    """

    processors: float
    wakes: float
    stacks: Sequence[Stack]


def _holding(load: Load, program: Path) -> Sampled:
    with opened(SERVERS["ours"](say), load, program) as cast:
        cast.publish()
        one = {"": [_busiest(family(cast.server))]}
        found = _sampled(one, load.seconds - 2 * _LOOK_SECONDS, _HERTZ)[""]
        cast.published(load)
        cast.whole_report()
    return found


def _busiest(pids: Sequence[int]) -> int:
    """The one of these that works most just now."""
    return busiest(pids, lambda: time.sleep(_LOOK_SECONDS))


def _sampled(groups: Mapping[str, Sequence[int]], seconds: float, hertz: int) -> dict[str, Sampled]:
    """Look at all these processes for so long. Raises TrialFailed when that is not allowed."""
    pids = [pid for group in groups.values() for pid in group]
    with directory() as here:
        data = str(here / "perf.data")
        record = ["perf", "record", "--quiet", "-F", str(hertz), "-g", "-p", ",".join(map(str, pids)), "-o", data]
        before = {pid: (own_cpu_seconds(pid), wakes(pid)) for pid in pids}
        began = time.monotonic()
        said([*record, "--", sys.executable, "-c", f"import time; time.sleep({seconds})"], environment(), _PATIENCE)
        took = time.monotonic() - began
        cpu = {pid: (own_cpu_seconds(pid) - before[pid][0]) / took for pid in pids}
        woken = {pid: (wakes(pid) - before[pid][1]) / took for pid in pids}
        told, _ = said(["perf", "script", "-i", data, "-F", "pid,ip,sym,dso"], environment(), _PATIENCE)
    samples = list(stacks(told.splitlines()))
    return {
        name: Sampled(
            sum(cpu[pid] for pid in group),
            sum(woken[pid] for pid in group),
            [stack for pid, stack in samples if pid in group],
        )
        for name, group in groups.items()
    }


def stacks(lines: Sequence[str]) -> Iterator[tuple[int, Stack]]:
    """What `perf script` tells of samples: the process, a frame a line, and an empty line after each sample."""
    pid, stack = 0, list[Frame]()
    for line in [*lines, ""]:
        if found := _FRAME.match(line):
            stack.append(Frame(found["symbol"], found["file"]))
            continue
        if stack:
            yield pid, stack
        pid, stack = int(line) if line.strip().isdigit() else 0, []


def _section(title: str, found: Mapping[str, Sampled], notes: Sequence[str]) -> Section:
    rows: list[Row] = [(place.name, *(_share(place, one) for one in found.values())) for place in PLACES]
    rows.append(("processors that it took", *(f"{one.processors:.4f}" for one in found.values())))
    rows.append(("times a second that it waited and went on", *(f"{one.wakes:,.0f}" for one in found.values())))
    rows.append(("samples", *(f"{len(one.stacks):,}" for one in found.values())))
    return Section(title, rows, ("where the time goes", *found), [*notes, _NOTE])


def _share(place: Place, of: Sampled) -> str:
    return f"{100 * sum(map(place.here, of.stacks)) / max(1, len(of.stacks)):.0f}%"


_NOTE = (
    f"`perf record -F {_HERTZ}`, or {_OFTEN:,} of what hardly works; what the kernel does for a packet counts for "
    "whoever it was doing something for."
)
