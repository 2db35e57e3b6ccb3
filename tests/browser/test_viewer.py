"""The page in a real browser, on the real service and real Nextflow."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
_FLAGS += ["--disable-component-update", "--disable-sync"]
_PATIENCE = 60_000


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(chromium), args=_FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new page; a script error or a breach of the content policy fails the test."""
    opened = browser.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
    opened.set_default_timeout(_PATIENCE)
    expect.set_options(timeout=_PATIENCE)
    yield opened
    opened.close()
    assert complaints == []


def numbers(page: Page) -> list[int]:
    """The line numbers that the page shows now."""
    shown = page.locator("#log [data-line]").evaluate_all("rows => rows.map(row => Number(row.dataset.line))")
    return [int(number) for number in shown]


def status(page: Page, *words: str) -> None:
    expect(page.locator("#run-status")).to_have_attribute("data-status", re.compile("|".join(words)))


def test_a_run_is_started_and_watched_on_the_page(service: Any, page: Page) -> None:
    """Typed into the form, a pipeline runs: its processes fill up, its log appears, the history has it."""
    page.goto(service.url)
    expect(page.locator("#connection")).to_have_attribute("data-state", "live")
    page.locator("#pipeline").fill(str(Path(service.environment["PIPELINES_DIR"]) / "simple-pipeline"))
    page.locator("#start").click()
    status(page, "starting", "running")
    status(page, "succeeded")
    expect(page.locator("#overall-bar")).to_have_attribute("aria-valuenow", "100")
    run_id = page.locator("#run-id").inner_text().strip()
    assert service.run(run_id)["status"] == "succeeded"
    progress = service.client.call("GET", "/status", params={"run_id": run_id})["progress"]
    for process in progress["processes"]:
        row = page.locator(f"#processes [data-process='{process['name']}']")
        expect(row).to_have_attribute("data-succeeded", str(process["succeeded"]))
        expect(row).to_have_attribute("data-running", "0")
    expect(page.locator("#log-count")).to_have_attribute("data-count", str(len(service.lines(run_id))))
    expect(page.locator(f"#history [data-run-id='{run_id}']")).to_be_visible()
    assert page.locator("#flower-link").get_attribute("href") == service.flower


def test_the_log_can_be_searched_and_paused(service: Any, page: Page, counting: str) -> None:
    """The search counts and finds lines; paused, the log stays where it is while the run goes on."""
    run_id = service.submit(counting, parameters={"lines": 120, "pause": 50})
    page.goto(f"{service.url}/#run={run_id}")
    page.locator("#log [data-line]", has_text="number 20").first.wait_for()
    page.locator("#log-pause").click()
    before = numbers(page)
    status(page, "succeeded")
    assert numbers(page) == before
    page.locator("#log-search").fill("number 77")
    expect(page.locator("#log-search-count")).to_contain_text("1")


def test_a_run_is_cancelled_on_the_page(service: Any, page: Page, counting: str) -> None:
    """Cancel asks once more, in place, and then the run ends as cancelled."""
    run_id = service.submit(counting, parameters={"lines": 2000})
    page.goto(service.url)
    page.locator("#log [data-line]", has_text="number 3").first.wait_for()
    page.locator("#cancel").click()
    page.locator("#cancel-confirm").click()
    status(page, "cancelled")
    assert service.ended(run_id)["status"] == "cancelled"


def test_a_failure_is_shown_with_its_cause(service: Any, page: Page, pipeline: Any) -> None:
    """The error of a failed run stands on the page, and the run can be resumed from there."""
    run_id = service.submit(pipeline('process BAD { script: "echo oops >&2; exit 7" }\nworkflow { BAD() }'))
    page.goto(f"{service.url}/#run={run_id}")
    status(page, "failed")
    expect(page.locator("#errors")).to_contain_text("exit status (7)")
    expect(page.locator("#errors")).to_contain_text("oops")
    expect(page.locator("#resume")).to_be_visible()


def test_the_page_comes_back_by_itself_and_shows_no_line_twice(own_service: Any, page: Page, counting: str) -> None:
    """Its web process is killed under it: it reconnects and has every line once."""
    run_id = own_service.submit(counting, parameters={"lines": 150})
    page.goto(f"{own_service.url}/#run={run_id}")
    page.locator("#log [data-line]", has_text="number 5").first.wait_for()
    for pid in own_service.children("gunicorn")[1:]:
        os.kill(pid, signal.SIGKILL)
    status(page, "succeeded")
    lines = len(own_service.lines(run_id))
    expect(page.locator("#log-count")).to_have_attribute("data-count", str(lines))
    shown = numbers(page)
    assert shown == sorted(set(shown))
    assert shown[-1] == lines


def test_the_page_begins_anew_when_redis_has_lost_what_it_shows(own_service: Any, page: Page, counting: str) -> None:
    """As when its machine dies: ids mean other events then. In the end the page has every line once."""
    run_id = own_service.submit(counting, parameters={"lines": 300})
    page.goto(f"{own_service.url}/#run={run_id}")
    page.locator("#log [data-line]", has_text="number 5").first.wait_for()
    own_service.lose_newest()
    status(page, "succeeded")
    lines = len(own_service.lines(run_id))
    expect(page.locator("#log-count")).to_have_attribute("data-count", str(lines))
    shown = numbers(page)
    assert shown == list(range(shown[0], lines + 1))


def test_a_run_is_found_by_the_socket_s_name_for_it(service: Any, page: Page) -> None:
    """`?run_id=`, as at the socket, leads to the run; and nobody is told of a Job where runs are none."""
    run_id = service.submit("hello", parameters={"fast": True})
    service.ended(run_id)
    service.ended(service.submit("hello", parameters={"fast": True}))
    page.goto(f"{service.url}/?run_id={run_id}")
    expect(page.locator("#run-id")).to_have_text(run_id)
    assert page.url == f"{service.url}/#run={run_id}"
    expect(page.locator("[data-fact='Started']")).to_be_visible()
    expect(page.locator("[data-fact='Job']")).to_be_hidden()


def test_whoever_does_not_like_to_wait_comes_back_at_once(own_service: Any, page: Page) -> None:
    """The service is back before the page tries again: a button does it now."""
    page.goto(own_service.url)
    expect(page.locator("#connection")).to_have_attribute("data-state", "live")
    expect(page.locator("#reconnect")).to_be_hidden()
    page.evaluate("window.setTimeout = () => 0")  # the page's own next try would come too soon to tell
    own_service.stop()
    expect(page.locator("#connection")).to_have_attribute("data-state", "reconnecting")
    own_service.start()
    page.locator("#reconnect").click()
    expect(page.locator("#connection")).to_have_attribute("data-state", "live")


def test_the_page_counts_who_watches(own_service: Any, browser: Browser, page: Page) -> None:
    """Also after somebody has left."""
    page.goto(own_service.url)
    expect(page.locator("#viewers")).to_have_text("1 watching")
    other = browser.new_page()
    other.goto(own_service.url)
    expect(page.locator("#viewers")).to_have_text("2 watching", timeout=15_000)
    other.close()
    expect(page.locator("#viewers")).to_have_text("1 watching", timeout=15_000)
