"""A viewer as any client could write one: it reads frames, comes back with its last id, and keeps what it was told."""

import json
import random
import re
import threading
import time
from contextlib import closing
from datetime import datetime

import websocket

_NUMBER = re.compile(r"number (\d+)")
_PATH = "/api/v1/pipeline/stream"


class Viewer(threading.Thread):
    """Follows one run to its `complete`. A restless one hangs up by itself now and then."""

    def __init__(self, url: str, run_id: str, rng: random.Random, *, restless: bool) -> None:
        super().__init__(daemon=True)
        self._url = f"{url.replace('http', 'ws', 1)}{_PATH}?run_id={run_id}"
        self._rng = rng
        self._restless = restless
        self._given_up = threading.Event()
        self.ids: list[int] = []
        self.numbers: list[int] = []
        self.completes: list[str] = []
        self.arrivals: list[tuple[float, float]] = []
        """For each batch of lines: when its last line was printed, and when it was here (seconds since 1970)."""
        self.completed_at: float | None = None

    def run(self) -> None:
        while not self.completes and not self._given_up.is_set():
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
        leave_at = time.monotonic() + (self._rng.uniform(0.5, 4) if self._restless else 3600)
        since = self.ids[-1] if self.ids else 0
        with closing(
            websocket.create_connection(f"{self._url}&since={since}", timeout=5, skip_utf8_validation=True)
        ) as socket:
            while not self._given_up.is_set() and time.monotonic() < leave_at:
                try:
                    message = socket.recv()
                except websocket.WebSocketTimeoutException:
                    continue  # nothing to be told just now
                if not message:
                    return
                self._take(json.loads(message))
                if self.completes:
                    return

    def _take(self, frame: dict[str, object]) -> None:
        if frame["id"] is None:
            return
        self.ids.append(int(str(frame["id"])))
        data = frame["data"]
        assert isinstance(data, dict)
        if frame["type"] == "log":
            self.arrivals.append((datetime.fromisoformat(data["lines"][-1]["timestamp"]).timestamp(), time.time()))
            self.numbers += numbers(line["message"] for line in data["lines"])
        if frame["type"] == "complete":
            self.completes.append(data["status"])
            self.completed_at = time.time()


def numbers(lines: object) -> list[int]:
    """The numbers in numbered lines."""
    found = (_NUMBER.match(line) for line in lines)  # type: ignore[attr-defined]
    return [int(match[1]) for match in found if match]
