"""A viewer as any client could write one: it reads frames, comes back with its last id, and keeps what it was told."""

import json
import random
import re
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime

import websocket

_NUMBER = re.compile(r"number (\d+)")
_PATH = "/api/v1/pipeline/stream"
_LINGER_SECONDS = 1.0


class Viewer(threading.Thread):
    """Follows one run to its `complete`. A restless one hangs up by itself now and then.

    One that `follows` comes without naming a run, and names it when it comes back. Until then it may be led on to
    the next ones: what it is told of those is in `of_others`.

    When it is told that events are lost that it has seen, it forgets all and begins anew with `since=0`.

    After `complete` each stays for a second, comes back once with its last id, and stays for a second more, so that
    whatever comes after the end is in `ids` and `completes` too.
    """

    def __init__(self, url: str, run_id: str, rng: random.Random, *, restless: bool, follows: bool = False) -> None:
        super().__init__(daemon=True)
        self._url = f"{url.replace('http', 'ws', 1)}{_PATH}?since="
        self._run_id = run_id
        self._rng = rng
        self._restless = restless
        self._names_run = not follows
        self._given_up = threading.Event()
        self.ids: list[int] = []
        self.of_others: dict[str, list[int]] = {}
        """By run: the ids of events of other runs."""
        self.numbers: list[int] = []
        self.completes: list[str] = []
        self.without_id: set[str] = set()
        """The types of the frames that had no id."""
        self.arrivals: list[tuple[float, float]] = []
        """For each numbered line: when it was printed, and when it was here (seconds since 1970)."""
        self.completed_at: float | None = None
        self.began_anew = 0
        self.came_back = False
        """Whether it has seen all that it wanted to."""

    def run(self) -> None:
        while not self.came_back and not self._given_up.is_set():
            try:
                self._read()
            except (websocket.WebSocketException, OSError):
                self._given_up.wait(0.1)

    def give_up(self) -> None:
        """Follow no longer."""
        self._given_up.set()

    def saw_line_printed_after(self, moment: float) -> float | None:
        """When the first line that was printed after that moment was here."""
        return next((here for printed, here in self.arrivals if printed >= moment), None)

    def _read(self) -> None:
        comes_back = bool(self.completes)
        url = f"{self._url}{self.ids[-1] if self.ids else 0}" + f"&run_id={self._run_id}" * self._names_run
        with closing(websocket.create_connection(url, timeout=5, skip_utf8_validation=True)) as socket:
            self._names_run = True
            leave_at = time.monotonic() + self._patience()
            while not self._given_up.is_set() and (left := leave_at - time.monotonic()) > 0:
                socket.settimeout(min(left, 5))
                try:
                    opcode, message = socket.recv_data()
                except websocket.WebSocketTimeoutException:
                    continue  # nothing to be told just now
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    if b"since=0" in message:
                        self._begin_anew()
                        return
                    break
                completes = len(self.completes)
                self._take(json.loads(message))
                if len(self.completes) > completes:
                    leave_at = time.monotonic() + _LINGER_SECONDS
        self.came_back = comes_back

    def _begin_anew(self) -> None:
        self.began_anew += 1
        for seen in (self.ids, self.numbers, self.completes, self.arrivals):
            seen.clear()

    def _patience(self) -> float:
        if self.completes:
            return _LINGER_SECONDS
        return self._rng.uniform(0.5, 4) if self._restless else 3600

    def _take(self, frame: dict[str, object]) -> None:
        if frame["id"] is None:
            self.without_id.add(str(frame["type"]))
            return
        if frame["run_id"] != self._run_id:
            self.of_others.setdefault(str(frame["run_id"]), []).append(int(str(frame["id"])))
            return
        self.ids.append(int(str(frame["id"])))
        data = frame["data"]
        assert isinstance(data, dict)
        if frame["type"] == "log":
            self._take_lines(data["lines"])
        if frame["type"] == "complete":
            self.completes.append(data["status"])
            self.completed_at = time.time()

    def _take_lines(self, lines: list[dict[str, str]]) -> None:
        here = time.time()
        for line in lines:
            for number in numbers([line["message"]]):
                self.arrivals.append((datetime.fromisoformat(line["timestamp"]).timestamp(), here))
                self.numbers.append(number)


def numbers(lines: Iterable[str]) -> list[int]:
    """The numbers in numbered lines."""
    found = (_NUMBER.match(line) for line in lines)
    return [int(match[1]) for match in found if match]
