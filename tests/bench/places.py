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
from bench.processes import TrialFailed, allow_files, environment, family, own_cpu_seconds, said
from bench.sizes import Sizes
from bench.stage import directory, say, service_with_child

_HERTZ = 499  # no divisor of what else happens at regular times
_LOOK_SECONDS = 0.5
_START_SECONDS = 2
_PATIENCE = 120
_CALM, _QUICK, _FAST = 10, 20, 50
_BURST = Scene(100_000, 8)
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


def measure(sizes: Sizes) -> list[Section]:
    """Raises TrialFailed where there is no perf, or it may not look."""
    if shutil.which("perf") is None:
        raise TrialFailed("There is no perf, which samples processes: install it (apt-get install linux-perf).")
    program = build.load_program(say)
    return [_many_sockets(sizes, program), _a_burst(sizes, program)]


def _many_sockets(sizes: Sizes, program: Path) -> Section:
    allow_files(max(sizes.sockets))
    loads = [Load(sockets, _CALM, sizes.seconds) for sockets in sizes.sockets]
    loads += [Load(sizes.viewers, rate, sizes.seconds) for rate in (_QUICK, _FAST)]
    found = {f"{load.sockets:,} × {load.rate}": _holding(load, program) for load in loads}
    note = "The process that holds the sockets, or one of those that do, while frames are sent; sockets × frames/s."
    return _section("Where the sockets' time goes", found, [note])


def _a_burst(sizes: Sizes, program: Path) -> Section:
    found: dict[str, Sampled] = {}
    with service_with_child() as running, readers() as pool:
        names = {"holds the sockets": "gunicorn", "worker": "worker@", "Redis": "redis-server"}
        # perf itself takes some seconds for each.
        _, watching = begin(running, _BURST, 3 * sizes.seconds, pool, program)
        time.sleep(_START_SECONDS)
        for name, word in names.items():
            found[name] = _sampled(_busiest(running.children(word)), sizes.seconds / 2)
        watching.result()
    note = f"{_BURST}, default retention; one process after the other."
    return _section("Where a burst's time goes", found, [note])


@dataclass(frozen=True, slots=True)
class Sampled:
    """What was seen of one process: how much of a processor it took, and where it was each time it was looked at."""

    processors: float
    stacks: Sequence[Stack]


def _holding(load: Load, program: Path) -> Sampled:
    with opened(SERVERS["ours"](say), load, program) as cast:
        cast.publish()
        found = _sampled(_busiest(family(cast.server)), load.seconds - 2 * _LOOK_SECONDS)
        cast.published(load)
        cast.whole_report()
    return found


def _busiest(pids: Sequence[int]) -> int:
    """The one of these that works most just now."""
    before = {pid: own_cpu_seconds(pid) for pid in pids}
    time.sleep(_LOOK_SECONDS)
    return max(pids, key=lambda pid: own_cpu_seconds(pid) - before[pid])


def _sampled(pid: int, seconds: float) -> Sampled:
    """Look at a process for so long. Raises TrialFailed when that is not allowed."""
    with directory() as here:
        data = str(here / "perf.data")
        record = ["perf", "record", "--quiet", "-F", str(_HERTZ), "-g", "-p", str(pid), "-o", data]
        before, began = own_cpu_seconds(pid), time.monotonic()
        said([*record, "--", sys.executable, "-c", f"import time; time.sleep({seconds})"], environment(), _PATIENCE)
        processors = (own_cpu_seconds(pid) - before) / (time.monotonic() - began)
        told, _ = said(["perf", "script", "-i", data, "-F", "ip,sym,dso"], environment(), _PATIENCE)
    return Sampled(processors, list(stacks(told.splitlines())))


def stacks(lines: Sequence[str]) -> Iterator[Stack]:
    """What `perf script` tells of samples: a frame a line, an empty line after each sample."""
    stack: list[Frame] = []
    for line in [*lines, ""]:
        if found := _FRAME.match(line):
            stack.append(Frame(found["symbol"], found["file"]))
        elif stack:
            yield stack
            stack = []


def _section(title: str, found: Mapping[str, Sampled], notes: Sequence[str]) -> Section:
    rows: list[Row] = [(place.name, *(_share(place, one) for one in found.values())) for place in PLACES]
    rows.append(("processors that it took", *(f"{one.processors:.2f}" for one in found.values())))
    rows.append(("samples", *(f"{len(one.stacks):,}" for one in found.values())))
    return Section(title, rows, ("where the time goes", *found), [*notes, _NOTE])


def _share(place: Place, of: Sampled) -> str:
    return f"{100 * sum(map(place.here, of.stacks)) / max(1, len(of.stacks)):.0f}%"


_NOTE = f"`perf record -F {_HERTZ}`; what the kernel does for a packet counts for whoever it was doing something for."
