"""The page of the runners, in a real browser."""

import re
from collections.abc import Callable, Generator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.test_page import (
    CHROMIUM,
    PHONE,
    Visit,
    browser,
    choose_of_user,
    claimed,
    join,
    visit,
    visiting,
)
from tests.fixtures.stack import Stack, end_all, start_one_process

__all__ = ["browser", "claimed", "visit", "visiting"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    """One whose runner tells what is used every second."""
    home = tmp_path_factory.mktemp("page") / "home"
    try:
        yield start_one_process(home, OPENBELL_RUNNER__METRICS_S="1")
    finally:
        end_all(home)


def look_again(page: Page) -> None:
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_an_admin_sees_what_a_runner_enforces_and_how_busy_it_is(visit: Visit) -> None:
    page = visit.page()
    choose_of_user(page, "Runners")
    runner = page.locator(".runner")
    expect(runner).to_have_count(1)
    expect(runner.locator(".entry-name")).to_have_text("local")
    expect(runner.get_by_text("Alive")).to_be_visible()
    expect(runner.get_by_text("Memory limit")).to_be_visible()
    expect(runner.get_by_role("progressbar", name="Memory")).to_be_visible()
    expect(runner).to_contain_text("GB free")
    expect(runner.locator(".room")).to_have_text(
        re.compile(r"^\d+ more fit \d+\.\d of \d+\.\d GB free for runs; one is reckoned at \d+ MB$")
    )


def test_a_trader_sees_what_it_enforces_on_a_phone(
    visiting: Callable[..., Visit], stack: Stack, browser: Browser
) -> None:
    join(stack, "trudy")
    page = visiting(PHONE, "trudy").open("/runners")
    expect(page.locator(".runner")).to_contain_text("0 runs of yours")
    expect(page.get_by_text("Process limit")).to_be_visible()
    expect(page.get_by_role("progressbar")).to_have_count(0)
    expect(page.locator(".room")).to_have_text(re.compile(r"^\d+ more fit$"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_runner_that_is_gone_says_so(visit: Visit, stack: Stack) -> None:
    page = visit.open("/runners")
    expect(page.locator(".runner")).to_have_count(1)
    listed = stack.http.get("/runners").json()
    listed["runners"][0] |= {"alive": False, "host": None}
    page.route("**/runners", lambda route: route.fulfill(json=listed))
    look_again(page)
    expect(page.get_by_text("Gone")).to_be_visible()
    expect(page.locator(".runner")).to_contain_text("last heard of")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"fits": 0}, "No more fit: starts wait until there is room"),
        ({"fits": 1}, "1 more fits"),
        ({"warning": "its processors have been busy"}, "Its processors have been busy."),
        ({"memory": {"most_runs": 7}}, "by its settings, 7 at one time"),
        ({"memory": {"promised_bytes": 2**30}}, "1.0 GB promised to those that are there"),
    ],
)
def test_a_runner_says_how_many_more_fit(
    visit: Visit, stack: Stack, told: dict[str, Any], words: str
) -> None:
    page = visit.open("/runners")
    expect(page.locator(".runner")).to_have_count(1)
    listed = stack.http.get("/runners").json()
    of_memory = {"memory": {**listed["runners"][0]["memory"], **told.get("memory", {})}}
    listed["runners"][0] |= told | of_memory
    page.route("**/runners", lambda route: route.fulfill(json=listed))
    look_again(page)
    expect(page.locator(".runner")).to_contain_text(words)
