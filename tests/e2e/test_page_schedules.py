"""Schedules and the calendar, as a trader sees them: a real Chromium against a real Openbell."""

import json
import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from openbell.contracts.base import utc_now
from tests.e2e.test_page import (
    CHROMIUM,
    HOSTILE,
    NAME,
    PHONE,
    SLEEPER,
    Visit,
    browser,
    choose_of_user,
    claimed,
    join,
    row,
    visit,
    visiting,
)
from tests.fixtures.stack import Stack

__all__ = ["browser", "claimed", "visit", "visiting"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]

DATED: dict[str, Any] = {
    "timezone": None,
    "special_sessions": True,
    "open_dates": [],
    "skip_dates": [],
    "catch_up": "start",
    "max_runtime": None,
}
EVERY_DAY = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DASH = "\N{EN DASH}"
KOLKATA = {"timezone": "Asia/Kolkata"}


def dialog_of(page: Page, name: str) -> Locator:
    row(page, name).get_by_role("button", name=f"Schedule of {name}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    return dialog


def kind(dialog: Locator, title: str) -> None:
    dialog.get_by_role("radio", name=title).check()


def save(dialog: Locator) -> None:
    dialog.get_by_role("button", name="Save").click()


def more(dialog: Locator) -> None:
    dialog.get_by_text("More options").click()


def kept(stack: Stack, strategy: str) -> dict[str, Any] | None:
    return stack.status(strategy)["schedule"]


def with_market(dialog: Locator) -> None:
    kind(dialog, "With its market")
    dialog.get_by_role("combobox", name="Exchange").fill("nse")
    dialog.get_by_role("combobox", name="Start").fill("9:15")
    dialog.get_by_role("combobox", name="Stop").fill("Close - 10m")
    dialog.get_by_role("checkbox", name="Sat").uncheck()
    dialog.get_by_role("checkbox", name="Sun").uncheck()


def at_set_times(dialog: Locator) -> None:
    kind(dialog, "At set times")
    dialog.get_by_role("combobox", name="Cron expression").fill("15 9 * * 1-5")
    dialog.get_by_role("combobox", name="Exchange").fill("")
    expect(dialog.get_by_label("Time zone")).to_have_attribute("placeholder", "Asia/Kolkata")
    dialog.get_by_role("textbox", name="Stop").fill("15:20")
    more(dialog)
    dialog.get_by_label("While the run before lives").select_option("queue")
    dialog.get_by_label("Longest run").fill("6h")


def every_so_often(dialog: Locator) -> None:
    kind(dialog, "Every so often")
    dialog.get_by_role("combobox", name="Every").fill("15m")
    more(dialog)
    dialog.get_by_label("Skip these dates").fill("2026-12-31, 2026-12-24")
    dialog.get_by_label("Special sessions too").uncheck()


def once(dialog: Locator) -> None:
    kind(dialog, "Once")
    expect(dialog.get_by_label("Time zone")).to_have_attribute("placeholder", "Asia/Kolkata")
    dialog.get_by_label("At", exact=True).fill("2027-12-01T09:15")
    dialog.get_by_label("Until").fill("2027-12-01T15:20")
    more(dialog)
    dialog.get_by_label("A start that was missed").select_option("skip")


KINDS: list[tuple[Callable[[Locator], None], dict[str, Any], str]] = [
    (
        with_market,
        DATED
        | {"kind": "market", "exchange": "NSE", "start": "09:15", "stop": "close-10m"}
        | {"weekdays": ["mon", "tue", "wed", "thu", "fri"]},
        f"NSE 09:15 {DASH} close-10m · Mon{DASH}Fri",
    ),
    (
        at_set_times,
        DATED
        | {"kind": "cron", "cron": "15 9 * * 1-5", "exchange": None, "stop": "15:20"}
        | {"duration": None, "overlap": "queue", "max_runtime": "6h"}
        | KOLKATA,
        "Cron 15 9 * * 1-5 Asia/Kolkata until 15:20",
    ),
    (
        every_so_often,
        DATED
        | {"kind": "interval", "every": "15m", "exchange": "NSE", "overlap": "skip"}
        | {"weekdays": EVERY_DAY, "special_sessions": False}
        | {"skip_dates": ["2026-12-24", "2026-12-31"]},
        "Every 15 min in NSE",
    ),
    (
        once,
        {"kind": "once", "at": "2027-12-01T09:15:00", "stop": "2027-12-01T15:20:00"}
        | {"catch_up": "skip", "max_runtime": None}
        | KOLKATA,
        f"Once 1 Dec 2027 09:15{DASH}15:20",
    ),
    (lambda dialog: kind(dialog, "Always"), {"kind": "always", "max_runtime": None}, "Always"),
]


@pytest.mark.parametrize(
    ("fill", "schedule", "words"), KINDS, ids=[one[1]["kind"] for one in KINDS]
)
def test_a_schedule_of_each_kind_is_set_and_said(
    visit: Visit,
    stack: Stack,
    fill: Callable[[Locator], None],
    schedule: dict[str, Any],
    words: str,
) -> None:
    visit.provoked = {"422"}  # while something is half written, its preview is refused
    strategy = stack.upload(SLEEPER, "Timed", exchange="NSE")
    page = visit.page()
    dialog = dialog_of(page, "Timed")
    fill(dialog)
    save(dialog)
    expect(dialog).to_be_hidden()
    assert kept(stack, strategy) == schedule
    expect(row(page, "Timed").locator("[data-action=schedule]")).to_have_text(words)


def test_by_hand_keeps_a_limit_and_is_no_schedule_without_one(visit: Visit, stack: Stack) -> None:
    strategy = stack.upload(SLEEPER, "Handy")
    page = visit.page()
    dialog = dialog_of(page, "Handy")
    kind(dialog, "By hand")
    expect(dialog.locator("#preview")).to_contain_text("Nothing starts or stops it but you")
    more(dialog)
    dialog.get_by_label("Longest run").fill("2h")
    save(dialog)
    expect(row(page, "Handy").locator("[data-action=schedule]")).to_have_text("By hand")
    assert kept(stack, strategy) == {"kind": "manual", "max_runtime": "2h"}

    dialog = dialog_of(page, "Handy")
    kind(dialog, "With its market")
    save(dialog)
    expect(row(page, "Handy").locator("[data-action=schedule]")).to_contain_text(
        f"NSE open{DASH}close"
    )
    dialog = dialog_of(page, "Handy")
    kind(dialog, "By hand")
    dialog.get_by_label("Longest run").fill("")
    save(dialog)
    expect(row(page, "Handy").locator("[data-action=schedule]")).to_have_text("Add a schedule")
    assert kept(stack, strategy) is None


RICH: list[dict[str, Any]] = [
    {"kind": "market", "exchange": "MCX", "start": "close-3h", "stop": "close-1m30s"}
    | {"weekdays": ["tue", "thu"], "timezone": "Europe/Berlin", "special_sessions": False}
    | {"open_dates": ["2026-12-25"], "skip_dates": ["2026-12-24", "2027-01-04"]}
    | {"catch_up": "skip", "max_runtime": "90m"},
    {"kind": "cron", "cron": "*/5 10-14 * * mon", "exchange": "NFO", "duration": "4m"}
    | {"overlap": "replace", "timezone": "Asia/Tokyo", "catch_up": "skip"},
    {"kind": "cron", "cron": "30 9 * * *", "timezone": "America/New_York", "stop": "16:00:30"},
    {"kind": "interval", "every": "1h30m5s", "overlap": "queue"},
    {"kind": "interval", "every": "20s", "weekdays": ["sat"], **KOLKATA, "max_runtime": "15s"},
    {"kind": "once", "at": "2027-12-01T09:15:30.250000+05:30", "stop": "2027-12-01T10:00:00Z"},
    {"kind": "once", "at": "2027-12-01T03:45:00Z", "stop": "2027-12-02T15:30:00"} | KOLKATA,
    {"kind": "always", "max_runtime": "24h"},
    {"kind": "manual"},
]


def test_nothing_is_lost_by_opening_and_saving(visit: Visit, stack: Stack) -> None:
    strategy = stack.upload(SLEEPER, "Rich")
    page = visit.page()
    for schedule in RICH:
        stack.post(f"/python/schedule/{strategy}", json=schedule)
        before = kept(stack, strategy)
        page.reload()
        dialog = dialog_of(page, "Rich")
        with page.expect_request(f"**/python/schedule/{strategy}") as saved:
            save(dialog)
        assert saved.value.method == "POST"
        expect(dialog).to_be_hidden()
        assert kept(stack, strategy) == before


def test_an_instant_that_is_changed_keeps_its_offset(visit: Visit, stack: Stack) -> None:
    strategy = stack.upload(SLEEPER, "Later")
    stack.post(
        f"/python/schedule/{strategy}", json={"kind": "once", "at": "2027-12-01T09:15:00+05:30"}
    )
    page = visit.page()
    dialog = dialog_of(page, "Later")
    expect(dialog.get_by_label("At", exact=True)).to_have_value("2027-12-01T09:15")
    dialog.get_by_label("At", exact=True).fill("2027-12-01T10:00")
    save(dialog)
    expect(dialog).to_be_hidden()
    assert (kept(stack, strategy) or {})["at"] == "2027-12-01T10:00:00+05:30"


def test_a_zone_that_nothing_else_tells_is_the_browsers(
    browser: Browser, visit: Visit, stack: Stack
) -> None:
    """A UTC that nobody wrote would start it hours off."""
    strategies = [stack.upload(SLEEPER, f"Zoneless {number}") for number in range(2)]
    there = Visit(browser.new_context(timezone_id="Asia/Kolkata"), stack.url)
    there.provoked = {"422"}
    there.sign_in(NAME)
    page = there.page()
    dialog = dialog_of(page, "Zoneless 0")
    zone = dialog.get_by_label("Time zone")
    kind(dialog, "Every so often")
    expect(zone).to_be_hidden()  # its exchange tells it
    dialog.get_by_role("combobox", name="Exchange").fill("")
    expect(zone).to_have_value("Asia/Kolkata")
    expect(zone).to_be_visible()
    kind(dialog, "Once")
    expect(zone).to_have_value("Asia/Kolkata")
    dialog.get_by_label("At", exact=True).fill("2027-12-01T09:15")
    save(dialog)
    expect(dialog).to_be_hidden()
    assert (kept(stack, strategies[0]) or {})["timezone"] == "Asia/Kolkata"

    stack.post(f"/python/schedule/{strategies[1]}", json={"kind": "interval", "every": "15m"})
    page.reload()
    dialog = dialog_of(page, "Zoneless 1")
    expect(zone).to_have_attribute("placeholder", "UTC")
    expect(zone).to_have_value("")
    save(dialog)
    expect(dialog).to_be_hidden()
    assert (kept(stack, strategies[1]) or {})["timezone"] is None
    dialog = dialog_of(page, "Zoneless 1")
    dialog.get_by_role("checkbox", name="Sun").uncheck()
    expect(zone).to_have_value("Asia/Kolkata")
    assert there.found_wrong() == []


def test_errors_are_shown_at_their_fields(visit: Visit, stack: Stack) -> None:
    visit.provoked = {"422"}
    stack.upload(SLEEPER, "Wrong")
    page = visit.page()
    dialog = dialog_of(page, "Wrong")
    dialog.get_by_role("combobox", name="Stop").fill("half past three")
    dialog.get_by_role("combobox", name="Exchange").fill("")
    save(dialog)
    expect(dialog.locator("[data-field=exchange] .error")).to_have_text("Write one like NSE")
    dialog.get_by_role("combobox", name="Exchange").fill(HOSTILE[:32])
    save(dialog)
    expect(dialog.locator("[data-field=stop]:not([hidden]) .error")).to_contain_text("time of day")
    expect(dialog.get_by_role("combobox", name="Stop")).to_be_focused()
    dialog.get_by_role("combobox", name="Stop").fill("")
    save(dialog)
    expect(dialog.locator("[data-field=exchange] .error")).to_contain_text("no exchange")

    dialog.get_by_role("combobox", name="Exchange").fill("NSE")
    more(dialog)
    dialog.get_by_label("Longest run").fill("a while")
    dialog.get_by_label("Skip these dates").fill("25/12/2026")
    more(dialog)
    save(dialog)
    expect(dialog.locator("[data-field=skip_dates] .error")).to_contain_text("no date like")
    dialog.get_by_label("Skip these dates").fill("")
    save(dialog)
    expect(dialog.locator("[data-field=max_runtime] .error")).to_contain_text("duration")
    kind(dialog, "At set times")
    dialog.get_by_role("combobox", name="Cron expression").fill("61 * * * *")
    dialog.get_by_label("Longest run").fill("")
    save(dialog)
    expect(dialog.locator("[data-field=cron] .error")).to_contain_text("no cron expression")
    kind(dialog, "Once")
    save(dialog)
    expect(dialog.locator("[data-field=at] .error")).to_have_text("Choose a day and a time")


def test_the_preview_follows_what_is_written(visit: Visit, stack: Stack) -> None:
    visit.provoked = {"422"}
    stack.upload(SLEEPER, "Foreseen", exchange="NSE")
    page = visit.page()
    dialog = dialog_of(page, "Foreseen")
    preview = dialog.locator("#preview")
    expect(preview.locator("[data-is=zone]")).to_have_text("Asia/Kolkata")
    dialog.get_by_role("combobox", name="Exchange").fill("CRYPTO")
    dialog.get_by_role("combobox", name="Start").fill("open+7m")
    expect(preview.locator(".times").filter(has_text="00:07").first).to_be_visible()
    dialog.get_by_role("combobox", name="Start").fill("soon")
    expect(preview.locator("[data-is=none]")).to_contain_text("time of day")
    dialog.get_by_role("combobox", name="Start").fill("06:00")
    dialog.get_by_role("combobox", name="Stop").fill("05:00")
    first = preview.locator(".times").first
    expect(first).to_have_text(re.compile(r"^06:00 [^ ] \w{3} \d+ \w{3} 05:00$"))
    expect(preview.locator(".skipped")).to_have_count(0)


def test_the_preview_tells_a_holiday_and_warns(visit: Visit, stack: Stack) -> None:
    """Which holidays are ahead depends on the day of the test, so one is said by an admin."""
    day = next_weekday()
    said: dict[str, Any] = {"hours": [], "reason": "Diwali Balipratipada"}
    assert stack.http.put(f"/calendar/overrides/NSE/{day}", json=said).is_success
    try:
        stack.upload(SLEEPER, "Off", exchange="NSE")
        page = visit.page()
        dialog = dialog_of(page, "Off")
        skipped = dialog.locator("#preview .skipped").filter(has_text="Balipratipada")
        expect(skipped).to_contain_text(f"{day:%a} {day.day} {day:%b}")
        expect(skipped).to_contain_text("No start")
        expect(dialog.locator("#preview")).not_to_contain_text("Weekend")
    finally:
        assert stack.http.delete(f"/calendar/overrides/NSE/{day}").is_success


def test_a_day_that_is_told_in_part_says_so(visit: Visit, stack: Stack) -> None:
    strategy = stack.upload(SLEEPER, "Often")
    schedule = {"kind": "interval", "every": "10m", "timezone": "UTC"}
    stack.post(f"/python/schedule/{strategy}", json=schedule)
    page = visit.page()
    dialog = dialog_of(page, "Often")
    lines = dialog.locator("#preview li")
    expect(lines.last).to_contain_text("and so on")
    cut = lines.nth(-2)
    expect(cut.locator(".times")).to_have_text(re.compile(r"^from 00:0\d(:\d\d)?, and more$"))
    expect(cut).not_to_contain_text("starts")
    expect(dialog.locator("#preview .notice")).to_be_hidden()


def test_the_preview_of_what_is_stopped_by_hand_says_so(visit: Visit, stack: Stack) -> None:
    strategy = stack.upload(SLEEPER, "Halted", exchange="NSE")
    stack.post(f"/python/schedule/{strategy}", json={"kind": "market", "exchange": "NSE"})
    stack.post(f"/python/stop/{strategy}")
    page = visit.page()
    dialog = dialog_of(page, "Halted")
    notice = dialog.locator("#preview .notice")
    expect(notice).to_contain_text("Stopped by hand: none of this happens until you resume it.")
    expect(dialog.locator("#preview .times").first).to_be_visible()
    kind(dialog, "Always")
    expect(dialog.locator("#preview .none")).to_contain_text("It starts now")
    expect(notice).to_be_visible()


def test_a_warning_is_prominent_in_the_preview_and_quiet_in_the_row(
    visit: Visit, stack: Stack
) -> None:
    strategy = stack.upload(SLEEPER, "Warned")
    page = visit.page()
    warning = f"it never meets its market {HOSTILE}"
    answer: dict[str, Any] = {"timezone": "UTC", "days": [], "truncated": False, "warning": warning}
    view = stack.status(strategy) | {"warning": warning}
    page.route("**/python/preview?*", lambda route: fulfil(route, answer))
    page.route(f"**/python/status/{strategy}", lambda route: fulfil(route, view))
    dialog = dialog_of(page, "Warned")
    expect(dialog.locator("#preview .notice")).to_contain_text(warning.removeprefix("it"))
    save(dialog)
    expect(row(page, "Warned").locator(".warned")).to_contain_text("It never meets its market")


def test_an_older_answer_does_not_replace_a_newer_one(visit: Visit, stack: Stack) -> None:
    stack.upload(SLEEPER, "Raced", exchange="CRYPTO")
    page = visit.page()
    held: list[Route] = []

    def answer(route: Route) -> None:
        start = json.loads(route.request.post_data or "{}")["start"]
        if start == "open+1m":
            held.append(route)
        else:
            route.continue_()

    page.route("**/python/preview?*", answer)
    dialog = dialog_of(page, "Raced")
    with page.expect_request(lambda request: "open+1m" in (request.post_data or "")):
        dialog.get_by_role("combobox", name="Start").fill("open+1m")
    dialog.get_by_role("combobox", name="Start").fill("open+2m")
    times = dialog.locator("#preview .times").first
    expect(times).to_contain_text("00:02")
    for route in held:
        route.abort()
    expect(times).to_contain_text("00:02")
    expect(dialog.locator("#preview")).to_have_attribute("aria-busy", "false")


def test_a_run_that_is_prepared_ahead_says_so(visit: Visit, stack: Stack) -> None:
    strategy = stack.upload(SLEEPER, "Ready")
    due = (utc_now() + timedelta(hours=1)).isoformat()
    run = dict.fromkeys(("started_at", "exited_at", "exit_code", "signal", "reason", "detail"))
    run |= {"id": "run", "epoch": 1, "state": "parked", "cause": "schedule", "runner": "local"}
    run |= {"granted_at": utc_now().isoformat(), "due_at": due}
    view = stack.status(strategy) | {"status": "starting", "run": run}
    page = visit.context.new_page()
    page.route("**/python/", lambda route: fulfil(route, {"strategies": [view]}))
    page.goto(stack.url)
    expect(row(page, "Ready")).to_contain_text(re.compile(r"Prepared · starts in (59 m|1 h)"))
    expect(row(page, "Ready").locator("[data-is=next]")).to_contain_text("Starts in")


def test_a_skipped_start_is_said(visit: Visit, stack: Stack) -> None:
    strategy = stack.upload(SLEEPER, "Overlapping")
    page = visit.context.new_page()
    told = {"strategy_id": strategy, "due_at": utc_now().isoformat()}
    told |= {"reason": "the run before still lives"}
    page.add_init_script(FAKE_STREAM.replace("TOLD", json.dumps(json.dumps(told))))
    page.goto(stack.url)
    expect(row(page, "Overlapping")).to_be_visible()
    page.evaluate("streams[0].say('start_skipped')")
    expect(page.get_by_role("status").filter(has_text="was left out")).to_contain_text(
        "the run before still lives"
    )
    page.evaluate("streams[0].say('start_missed')")
    expect(page.get_by_role("alert").filter(has_text="was missed")).to_contain_text("Overlapping")
    expect(page.locator("#toasts .toast")).to_have_count(1)


FAKE_STREAM = """
window.streams = [];
window.EventSource = class extends EventTarget {
  static OPEN = 1;
  static CLOSED = 2;
  readyState = 1;
  constructor() {
    super();
    window.streams.push(this);
    queueMicrotask(() => this.say("hello"));
  }
  say(kind) { this.dispatchEvent(new MessageEvent(kind, { data: TOLD })); }
  close() {}
};
"""


def test_a_schedule_is_set_with_the_keyboard_alone(visit: Visit, stack: Stack) -> None:
    visit.provoked = {"422"}
    strategy = stack.upload(SLEEPER, "Keys", exchange="NSE")
    page = visit.page()
    opener = row(page, "Keys").get_by_role("button", name="Schedule of Keys")
    opener.press("Enter")
    market = page.get_by_role("radio", name="With its market")
    expect(market).to_be_focused()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Every so often")).to_be_checked()
    page.keyboard.press("Tab")
    expect(page.get_by_role("combobox", name="Every")).to_be_focused()
    page.keyboard.type("30m")
    for _ in range(9):
        page.keyboard.press("Tab")
    expect(page.get_by_text("More options")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Time zone")).to_be_focused()
    page.get_by_role("combobox", name="Every").press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(opener).to_be_focused()
    assert (kept(stack, strategy) or {})["every"] == "30m"
    opener.press("Enter")
    page.keyboard.press("Escape")
    expect(opener).to_be_focused()


@pytest.mark.parametrize("name", ["With its market", "At set times", "Every so often", "Once"])
def test_the_dialog_fits_a_phone(visiting: Callable[..., Visit], claimed: Stack, name: str) -> None:
    visit = visiting(PHONE)
    visit.provoked = {"422"}
    claimed.upload(SLEEPER, "Small")
    page = visit.page()
    dialog = dialog_of(page, "Small")
    kind(dialog, name)
    more(dialog)
    assert dialog.evaluate("e => e.scrollWidth <= e.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def next_weekday() -> date:
    day = utc_now().date() + timedelta(days=3)
    while day.weekday() > 4:
        day += timedelta(days=1)
    return day


def fulfil(route: Route, answer: Any) -> None:
    route.fulfill(content_type="application/json", body=json.dumps(answer))


def test_the_calendar_tells_what_is_open_and_which_days_differ(visit: Visit, stack: Stack) -> None:
    visit.provoked = {"422"}
    choose_of_user(visit.page(), "Calendar")
    page = visit.open("/markets")
    market = page.locator("#now .market")
    expect(market.filter(has_text="CRYPTO").locator(".badge")).to_have_text("Open")
    expect(market.filter(has_text="CRYPTO")).to_contain_text("Around the clock")
    nse = market.filter(has=page.get_by_text("NSE", exact=True))
    expect(nse.locator(".badge")).to_have_text(re.compile("Open|Closed|Unknown"))
    exchange = page.locator("#days-exchange")
    expect(exchange).to_have_value("NSE")
    expect(page.locator("#days-text")).to_contain_text("Asia/Kolkata")
    link = page.get_by_role("link", name="iCalendar of NSE")
    expect(link).to_have_attribute("href", "/calendar/NSE.ics")
    exchange.fill("XX")
    expect(page.locator("#days [data-none]")).to_contain_text("no exchange")
    exchange.fill("BSE")
    expect(page.locator("#days-text")).to_contain_text("BSE")
    expect(page).to_have_url(re.compile(r"exchange=BSE"))


def test_an_admin_says_what_a_day_is_and_takes_it_back(visit: Visit, stack: Stack) -> None:
    visit.provoked = {"422"}
    day = next_weekday()
    page = visit.open("/markets")
    form = page.locator("#override")
    form.get_by_role("button", name="Set override").click()
    section = page.locator("#overrides")
    expect(section.locator("[data-field=exchange] .error")).to_contain_text("like NSE")
    expect(section.locator("[data-field=day] .error")).to_contain_text("Choose a day")
    expect(section.locator("[data-field=reason] .error")).to_contain_text("Write why")
    form.get_by_label("Exchange", exact=True).fill("nse")
    form.get_by_label("Day", exact=True).fill(day.isoformat())
    form.get_by_role("radio", name="Open").check()
    form.get_by_placeholder("18:00-19:15").fill("18:00")
    form.get_by_role("button", name="Set override").click()
    expect(section.locator("[data-field=hours] .error")).to_contain_text("like 18:00-19:15")
    form.get_by_placeholder("18:00-19:15").fill("9:15-10:00, 18:00 - 19:15")
    form.get_by_role("button", name="Set override").click()
    expect(section.locator("[data-field=reason] .error")).to_be_visible()
    form.get_by_label("Reason").fill(HOSTILE)
    form.get_by_role("button", name="Set override").click()
    listed = section.locator(".entry").filter(has_text="NSE")
    expect(listed).to_contain_text(f"Open 18:00{DASH}19:15")
    expect(listed).to_contain_text(HOSTILE)
    expect(listed).to_contain_text(re.compile("by olga"))
    (override,) = stack.http.get("/calendar/overrides").json()["overrides"]
    assert override["hours"][0] == {"opens": "09:15", "closes": "10:00"}
    days = page.locator("#days .entry").filter(has_text=f"{day:%a} {day.day} {day:%b %Y}")
    expect(days).to_contain_text([f"09:15{DASH}10:00", f"18:00{DASH}19:15"])

    listed.get_by_role("button", name="Remove NSE").click()
    page.locator("#confirm").get_by_role("button", name="Remove").click()
    expect(listed).to_have_count(0)
    expect(days).to_have_count(0)
    assert stack.http.get("/calendar/overrides").json()["overrides"] == []


def test_who_is_no_admin_sees_overrides_and_changes_none(
    visiting: Callable[..., Visit], claimed: Stack
) -> None:
    join(claimed, "reader", "viewer")
    day = next_weekday()
    said: dict[str, Any] = {"hours": [], "reason": "a strike"}
    assert claimed.http.put(f"/calendar/overrides/BSE/{day}", json=said).is_success
    try:
        page = visiting(PHONE, user="reader").open("/markets")
        listed = page.locator("#overrides .entry").filter(has_text="BSE")
        expect(listed).to_contain_text("a strike")
        expect(page.locator("#override")).to_be_hidden()
        expect(listed.get_by_role("button")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    finally:
        assert claimed.http.delete(f"/calendar/overrides/BSE/{day}").is_success


def test_exchanges_are_suggested_wherever_one_is_written(visit: Visit) -> None:
    page = visit.page()
    page.get_by_role("button", name="Upload strategy").click()
    page.locator("#upload-exchange").focus()
    for code in ("NSE", "MCX", "XNYS"):
        expect(page.locator(f"#exchanges option[value={code}]")).to_have_count(1)
    expect(page.locator("#exchanges option[value=XNYS]")).to_have_attribute(
        "label", re.compile("NYSE")
    )


def test_the_calendar_is_for_those_who_are_signed_in(
    visiting: Callable[..., Visit], claimed: Stack
) -> None:
    visit = visiting(user=None)
    visit.provoked = {"401"}
    page = visit.open("/markets?exchange=MCX")
    expect(page).to_have_url(f"{claimed.url}/login#next=/markets%3Fexchange%3DMCX")
