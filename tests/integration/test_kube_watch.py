"""A watch over HTTP: whatever becomes of its streams, what it tells is what there is."""

import time
from collections.abc import Iterator

import pytest
from fake_kubernetes import Ended, Json, Reset
from kube_lab import Lab, eventually, new_api

from worker.kube import watch as watch_module
from worker.kube.watch import Watch

PATH = "/api/v1/namespaces/lab/pods"


class View:
    """Keeps what a watch tells."""

    def __init__(self, lab: Lab) -> None:
        self.names: set[str] = set()
        self.versions: dict[str, str] = {}
        self.told: list[tuple[str, bool]] = []
        self.lists = 0
        self.api = new_api(lab.fake)
        self.watch = Watch(self.api, PATH, {"labelSelector": "run=mine"}, self._changed, self._listed)
        self.watch.start()

    def _changed(self, item: Json, gone: bool) -> None:
        name = item["metadata"]["name"]
        self.told.append((name, gone))
        self.versions[name] = item["metadata"]["resourceVersion"]
        (self.names.discard if gone else self.names.add)(name)

    def _listed(self) -> None:
        self.lists += 1


@pytest.fixture
def view(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[View]:
    """A watch of the pods `run=mine`, one of which is there from the beginning."""
    monkeypatch.setattr(watch_module, "_FIRST_PAUSE", 0.01)
    pod(lab, "zero")
    made = View(lab)
    eventually(lambda: lab.fake.open_streams("watch"))
    yield made
    made.watch.stop()
    made.api.close()


def pod(lab: Lab, name: str, run: str = "mine") -> None:
    lab.fake.start_pod(name, {"run": run})


def test_objects_as_they_come_and_go(lab: Lab, view: View) -> None:
    """One list and one stream tell of every change of those that are asked for."""
    pod(lab, "one")
    pod(lab, "other", run="theirs")
    lab.fake.remove("pods", "zero")
    eventually(lambda: view.names == {"one"})
    assert view.told == [("zero", False), ("one", False), ("zero", True)]
    assert (view.lists, lab.fake.count()) == (1, 2)


@pytest.mark.parametrize("how", [Reset, Ended])
def test_a_cut_stream_goes_on_where_it_was(lab: Lab, view: View, how: type[Exception]) -> None:
    """Nothing is listed again, and what happened meanwhile is told once."""
    for number in range(5):
        asked = lab.fake.count("GET", "watch")
        lab.fake.cut("watch", how)
        eventually(lambda asked=asked: lab.fake.count("GET", "watch") > asked)  # type: ignore[misc]
        pod(lab, f"pod-{number}")
        eventually(lambda number=number: f"pod-{number}" in view.names)  # type: ignore[misc]
        eventually(lambda: lab.fake.open_streams("watch"))
    assert view.lists == 1
    assert len(view.told) == 6


@pytest.mark.parametrize("expiry", ["event", "status"])
def test_a_version_that_is_too_old(lab: Lab, view: View, expiry: str) -> None:
    """All is listed again; what is the same is not told again, and what is gone is."""
    pod(lab, "one")
    pod(lab, "two")
    eventually(lambda: len(view.names) == 3)
    lab.fake.expiry = expiry
    fault = lab.fake.answer(503, times=1e9)
    lab.fake.cut("watch")
    eventually(lambda: not lab.fake.open_streams("watch"))
    lab.fake.remove("pods", "one")
    pod(lab, "three")
    lab.fake.expire()
    lab.fake.mend(fault)
    eventually(lambda: view.names == {"zero", "two", "three"})
    assert view.lists == 2
    assert len(view.told) == 5


def test_a_pod_that_was_made_anew_while_nobody_looked(lab: Lab, view: View) -> None:
    """The old one is told as gone before the new one of its name is told."""
    fault = lab.fake.answer(503, times=1e9)
    lab.fake.cut("watch")
    eventually(lambda: not lab.fake.open_streams("watch"))
    lab.fake.remove("pods", "zero")
    pod(lab, "zero")
    lab.fake.expire()
    lab.fake.mend(fault)
    eventually(lambda: len(view.told) == 3)
    assert view.told == [("zero", False), ("zero", True), ("zero", False)]


def test_bookmarks_move_the_place(lab: Lab, view: View) -> None:
    """A quiet watch with bookmarks does not grow too old."""
    for _ in range(100):
        lab.fake.inject("watch", lab.fake.bookmark("pods"))
    newest = lab.fake.bookmark("pods")
    asked = lab.fake.count()
    lab.fake.expire()
    lab.fake.inject("watch", lab.fake.bookmark("pods"))
    pod(lab, "one")
    eventually(lambda: "one" in view.names)
    assert newest
    assert lab.fake.count() >= asked
    lab.fake.cut("watch", Ended)
    pod(lab, "two")
    eventually(lambda: "two" in view.names)


@pytest.mark.parametrize(
    "garbage", [b"{{{\n", b"[]\n", b"{}\n", b'"x"\n', b'{"type": "ADDED", "object": {}}\n', b"\xff\n"]
)
def test_garbage(lab: Lab, view: View, garbage: bytes) -> None:
    """What cannot be read makes the watch list again, and go on."""
    lab.fake.inject("watch", garbage)
    eventually(lambda: view.lists == 2)
    pod(lab, "one")
    eventually(lambda: "one" in view.names)
    assert view.told == [("zero", False), ("one", False)]


def test_an_error_event_that_is_not_410(lab: Lab, view: View) -> None:
    """The watch goes on from where it was."""
    error = b'{"type": "ERROR", "object": {"code": 500, "message": "etcd is unhappy"}}\n'
    lab.fake.inject("watch", error)
    eventually(lambda: lab.fake.count("GET", "watch") == 2)
    pod(lab, "one")
    eventually(lambda: "one" in view.names)
    assert view.lists == 1


def test_a_server_that_always_says_410(lab: Lab, view: View) -> None:
    """It is not asked without a pause."""
    fault = lab.fake.answer(410, "GET", "watch", times=1e9)
    lab.fake.cut("watch")
    began = time.monotonic()
    eventually(lambda: lab.fake.count("GET", "watch") >= 7)
    assert time.monotonic() - began > 0.1
    lab.fake.mend(fault)
    pod(lab, "one")
    eventually(lambda: "one" in view.names)


def test_an_object_in_many_parts(lab: Lab, view: View) -> None:
    """A line may come in any pieces, and several in one."""
    pod(lab, "big")
    lab.fake.change("pods", "big", {"metadata": {"annotations": {"text": "ä\n" * 60_000}}})
    pod(lab, "one")
    eventually(lambda: view.names == {"zero", "big", "one"})
    assert view.lists == 1


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_a_list_that_is_refused_for_a_while(lab: Lab, status: int) -> None:
    """The first list is repeated until it is given."""
    lab.fake.answer(status, times=3)
    pod(lab, "zero")
    view = View(lab)
    eventually(lambda: view.names == {"zero"})
    view.watch.stop()
    eventually(lambda: not lab.fake.open_streams(), 2)
    view.api.close()
