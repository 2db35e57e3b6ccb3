"""The wire: bytes that a log line takes on its way to a viewer, beside the line's own."""

import orjson
from bench.figures import Row, Section, ratio
from bench.processes import TrialFailed
from bench.sizes import Sizes
from bench.stage import AT_ONCE, messages, printing, service_with_child
from service_process import Service

_WIDTH = 80
_LOG = b'"type":"log"'


def measure(_sizes: Sizes) -> list[Section]:
    """Of a run that prints steadily, and of one that prints all at once."""
    with service_with_child() as running:
        rows = [_row(running, "20 lines/s", 20, 100), _row(running, "printed at once", AT_ONCE, 5_000)]
    note = (
        "Frames of log lines alone, with the WebSocket's own bytes and without those of TCP; a line with its newline."
    )
    return [Section("Bytes on the wire", rows, notes=[note])]


def _row(running: Service, how: str, rate: int, lines: int) -> Row:
    run_id = running.submit("bench", parameters=printing(rate, lines, _WIDTH))
    frames = [message for message, _ in messages(running.port, run_id) if _LOG in message[:40]]
    came = sum(len(orjson.loads(frame)["data"]["lines"]) for frame in frames)
    if came != lines:
        raise TrialFailed(f"{came:,} of {lines:,} lines came.")
    sent = sum(map(_framed, frames))
    own = sum(len(line) + 1 for line in running.lines(run_id))
    what = f"A line, {how}, {lines / len(frames):.0f} a frame (bytes)"
    return what, f"{sent / lines:,.0f}", f"{own / lines:,.0f} the line's own", ratio(sent, own)


def _framed(message: bytes) -> int:
    """A server's frame has 2, 4 or 10 bytes before its payload (RFC 6455, section 5.2)."""
    size = len(message)
    return size + (2 if size < 126 else 4 if size < 65_536 else 10)
