"""Limits and runs, as a trader sees them: a real Chromium against a real Openbell."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_page import (
    CHROMIUM,
    HOSTILE,
    PHONE,
    SLEEPER,
    Visit,
    browser,
    choose,
    claimed,
    visit,
    visiting,
)
from tests.fixtures.stack import Stack

__all__ = ["browser", "claimed", "visit", "visiting"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
BROKEN = f"print('line\\n' * 60)\nprint({HOSTILE!r}, '\\x1b[31mred\\x1b[0m')\n1 / 0\n"
ERROR = "ZeroDivisionError: division by zero"


def policy(stack: Stack, strategy: str) -> dict[str, Any]:
    return stack.http.get(f"/python/limits/{strategy}").json()["policy"]


def fits(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_limits_are_set_refused_at_their_field_and_set_back(visit: Visit, stack: Stack) -> None:
    strategy = stack.upload(SLEEPER, "Bounded", limits={"limits": {"cpus": 0.5}})
    page = visit.page()
    visit.provoked = {"422"}
    choose(page, "Limits…", "Bounded")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Processors")).to_have_value("0.5")
    expect(dialog.get_by_label("Memory")).to_have_value("")
    dialog.get_by_label("Memory").fill("7")
    dialog.get_by_label("After no output for").fill("soon")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.locator("[data-field=quiet_s] [data-error]")).to_contain_text("like 90s")
    dialog.get_by_label("After no output for").fill("1h 30m")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.locator("[data-field=memory_mb] [data-error]")).to_have_text("At least 32")
    dialog.get_by_label("Memory").fill("512")
    dialog.get_by_label("Processors").fill("")
    dialog.get_by_label("Signals").fill("term")
    dialog.get_by_label("When it has ended").select_option("never")
    dialog.get_by_label("Interpreter").select_option("of its own")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    kept = policy(stack, strategy)
    assert (kept["limits"]["memory_mb"], kept["limits"]["cpus"]) == (512, None)
    assert (kept["watchdogs"]["quiet_s"], kept["restart"]) == (5400, "never")
    assert (kept["stop"], kept["interpreter"]) == ({"signals": ["SIGTERM"], "grace_s": 15}, "own")
    choose(page, "Limits…", "Bounded")
    expect(dialog.get_by_label("After no output for")).to_have_value("1h30m")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    assert policy(stack, strategy) == kept


def test_only_what_was_changed_is_set(visit: Visit, stack: Stack) -> None:
    """Others may set limits while a dialog is open, in parts of a second too."""
    strategy = stack.upload(SLEEPER, "Shared")
    stack.post(f"/python/limits/{strategy}", json={"watchdogs": {"quiet_s": 3661.1}})
    page = visit.page()
    choose(page, "Limits…", "Shared")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("After no output for")).to_have_value("1h1m1.1s")
    meanwhile = {"limits": {"memory_mb": 512}, "restart": "never"}
    stack.post(f"/python/limits/{strategy}", json=meanwhile)
    dialog.get_by_label("After no heartbeat for").fill("7,5 s")
    dialog.get_by_label("Processes").fill("64")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    kept = policy(stack, strategy)
    assert kept["watchdogs"] == {"quiet_s": 3661.1, "heartbeat_s": 7.5, "max_runtime_s": None}
    assert (kept["limits"]["memory_mb"], kept["limits"]["processes"]) == (512, 64)
    assert kept["restart"] == "never"


def test_what_cannot_be_meant_is_refused_and_changes_nothing(visit: Visit, stack: Stack) -> None:
    """Infinity is null in JSON, which would be the default; and no signal at all kills at once."""
    strategy = stack.upload(SLEEPER, "Refused", limits={"limits": {"memory_mb": 512}})
    before = policy(stack, strategy)
    page = visit.page()
    visit.provoked = {"422"}
    choose(page, "Limits…", "Refused")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_have_attribute("aria-busy", "false")
    for field, (text, said) in {
        "memory_mb": ("1e999", "Write a number"),
        "processes": ("1.5", "Write a whole number"),
        "signals": (",", "Write signals like"),
        "grace_s": ("-1", "At least 0"),
        "quiet_s": ("99d", "At most 7d"),
        "max_runtime_s": ("90", "Write a duration like"),
    }.items():
        place = dialog.locator(f"[data-field={field}]")
        usual = place.locator("input").input_value()
        place.locator("input").fill(text)
        dialog.get_by_role("button", name="Save").click()
        expect(place.locator("[data-error]")).to_contain_text(said)
        expect(place.locator("input")).to_be_focused()
        assert policy(stack, strategy) == before
        place.locator("input").fill(usual)
    signals = dialog.locator("[data-field=signals]")
    signals.locator("input").fill("foo, kill")
    dialog.get_by_role("button", name="Save").click()
    words = "Write SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 or SIGUSR2"
    expect(signals.locator("[data-error]")).to_have_text(words)


@pytest.mark.parametrize("size", [None, PHONE], ids=["desk", "phone"])
def test_a_run_is_told_with_its_end_and_its_last_lines(
    visiting: Callable[..., Visit], claimed: Stack, size: dict[str, int] | None
) -> None:
    strategy = claimed.upload(BROKEN, "Broken", restart="never")
    claimed.post(f"/python/start/{strategy}", params={"wait": 20})
    claimed.wait_status(strategy, "crashed")
    page = (visiting(size) if size else visiting()).page()
    choose(page, "Runs…", "Broken")
    dialog = page.get_by_role("dialog")
    line = dialog.locator(".run-line")
    expect(line).to_have_count(1)
    expect(line).to_contain_text(ERROR)
    expect(line.locator(".badge")).to_have_text("Crashed")
    assert fits(page)
    line.click()
    record = dialog.locator(".record")
    expect(record.locator(".headline")).to_have_text(ERROR)
    expect(record.locator(".code")).to_contain_text(f"{HOSTILE} red\n")
    at_end = "e => e.scrollHeight - e.scrollTop - e.clientHeight < 2"
    assert record.locator(".code").evaluate(at_end)
    assert fits(page)
    dialog.get_by_role("button", name="All runs").click()
    expect(line).to_be_focused()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
