"""The page, as a trader uses it: a real Chromium against a real Openbell."""

import json
import re
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)

from tests.fixtures.stack import Stack

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
HOSTILE = "<script>document.title = 'stolen'</script>"

SLEEPER = """
import time
print("up", flush=True)
while True:
    time.sleep(0.05)
"""
CRASHER = f"""
import sys
print("before")
print({HOSTILE!r}, file=sys.stderr)
sys.exit(3)
"""
TALKER = """
import os, pathlib, time
print("\\n".join(f"line {n}" for n in range(200)), flush=True)
said = 0
while True:
    lines = pathlib.Path(os.environ["SCRIPT"]).read_text().splitlines()
    for line in lines[said:]:
        print(line, flush=True)
    said = len(lines)
    time.sleep(0.02)
"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
expect.set_options(timeout=10_000)


class Visit:
    """What goes wrong while pages are open: nothing may, but what a test says it provokes."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self._context = context
        self._url = url
        self.provoked: set[str] = set()
        self._wrong: list[str] = []

    def page(self, path: str = "/") -> Page:
        page = self._context.new_page()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self._wrong.append(f"pageerror: {error}"))
        page.on("request", self._requested)
        page.goto(self._url + path)
        expect(page.locator("#connection")).to_have_text("Live")
        return page

    def found_wrong(self) -> list[str]:
        return [text for text in self._wrong if not any(word in text for word in self.provoked)]

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._wrong.append(f"{message.type}: {message.text}")

    def _requested(self, request: Request) -> None:
        if (
            not request.url.startswith("blob:")
            and urlsplit(request.url).netloc != urlsplit(self._url).netloc
        ):
            self._wrong.append(f"request to another host: {request.url}")


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visiting(browser: Browser, stack: Stack) -> Generator[Callable[..., Visit]]:
    """Opens browsers that share nothing, and leaves the stack as it was found."""
    visits: list[Visit] = []

    def visit(viewport: dict[str, int] = DESK) -> Visit:
        size = {"width": viewport["width"], "height": viewport["height"]}
        context = browser.new_context(screen=size, viewport=size)  # pyright: ignore[reportArgumentType]
        visits.append(Visit(context, stack.url))
        return visits[-1]

    yield visit
    for context in browser.contexts:
        context.close()
    assert [wrong for visit in visits for wrong in visit.found_wrong()] == []
    for strategy in stack.http.get("/python/").json()["strategies"]:
        stack.post(f"/python/stop/{strategy['id']}", params={"wait": 10})
        assert stack.http.delete(f"/python/delete/{strategy['id']}").is_success


@pytest.fixture
def visit(visiting: Callable[..., Visit]) -> Visit:
    return visiting()


def row(page: Page, name: str) -> Locator:
    return page.locator("#rows tr").filter(has=page.get_by_text(name, exact=True))


def press(page: Page, action: str, name: str) -> None:
    page.get_by_role("button", name=f"{action} {name}", exact=True).click()


def upload(page: Page, source: str, filename: str = "script.py") -> None:
    file = {"name": filename, "mimeType": "text/x-python", "buffer": source.encode()}
    page.locator("#upload-file").set_input_files(file)  # pyright: ignore[reportArgumentType]
    page.locator("#upload").get_by_role("button", name="Upload", exact=True).click()


def test_the_empty_list_teaches_the_first_upload(visit: Visit) -> None:
    page = visit.page()
    expect(page.get_by_role("heading", name="Upload your first strategy")).to_be_visible()
    expect(page.locator("#strategies")).to_be_hidden()
    page.get_by_role("button", name="Use this example").click()
    expect(page.locator("#upload-chosen")).to_contain_text("heartbeat.py")
    page.locator("#upload").get_by_role("button", name="Upload", exact=True).click()
    expect(row(page, "heartbeat")).to_be_visible()
    expect(page.locator("#empty")).to_be_hidden()


def test_a_file_is_picked_mended_and_uploaded(visit: Visit) -> None:
    visit.provoked = {"422"}
    page = visit.page("/python/")
    page.get_by_role("button", name="Upload strategy").click()
    form = page.get_by_role("dialog")
    upload(page, "import os\n\ndef f(:\n    pass\n")
    file = page.locator("[data-field=file]").first
    expect(file.get_by_role("alert")).to_have_text("Line 3, column 7: invalid syntax")
    expect(page.locator("#upload-excerpt")).to_contain_text("3 │ def f(:")

    form.get_by_label("Name").fill(HOSTILE)
    upload(page, SLEEPER, "ema_crossover.py")
    expect(page.locator("#upload [data-field=name] .error")).to_contain_text("Write 1 to 64")

    form.get_by_label("Name").fill("")
    form.get_by_label("Exchange").fill("nse")
    form.get_by_label("Parameters").fill("SYMBOL=SBIN\nnonsense")
    upload(page, SLEEPER, "ema_crossover.py")
    wrong = page.locator("#upload [data-field=parameters] .error")
    expect(wrong).to_have_text("Line 2: write KEY=VALUE")

    form.get_by_label("Parameters").fill("SYMBOL=SBIN\n# a comment\nQUANTITY = 1")
    upload(page, SLEEPER, "ema_crossover.py")
    expect(page.locator("#upload")).to_be_hidden()
    expect(row(page, "ema_crossover")).to_contain_text("NSE")
    expect(row(page, "ema_crossover").locator(".badge")).to_have_text("Stopped")


def test_a_file_that_was_saved_again_is_chosen_again(visit: Visit, tmp_path: Path) -> None:
    visit.provoked = {"422"}
    page = visit.page()
    page.get_by_role("button", name="Upload strategy").click()
    script, picker = tmp_path / "momentum.py", page.locator("#upload-file")
    send = page.locator("#upload").get_by_role("button", name="Upload", exact=True)
    wrong = page.locator("#upload [data-field=file] .error")
    script.write_text("def f(:\n")
    picker.set_input_files(script)
    send.click()
    expect(wrong).to_contain_text("Line 1, column 7")
    script.write_text(SLEEPER)
    send.click()
    expect(wrong).to_contain_text("has changed since you chose it")
    picker.set_input_files(script)
    send.click()
    expect(row(page, "momentum")).to_be_visible()


def test_the_badge_follows_start_and_stop_without_a_reload(visit: Visit, stack: Stack) -> None:
    stack.upload(SLEEPER, "Sleeper")
    page = visit.page()
    page.evaluate("window.sameDocument = true")
    sleeper = row(page, "Sleeper")
    expect(page.get_by_role("button", name="Stop Sleeper")).to_be_disabled()
    press(page, "Start", "Sleeper")
    expect(sleeper.locator(".badge")).to_have_text("Running")
    expect(sleeper).to_contain_text(re.compile(r"Up \d+ s"))
    expect(page.get_by_role("button", name="Start Sleeper", exact=True)).to_be_disabled()
    expect(page.locator(".chip[data-status=running]")).to_have_text("Running1")
    press(page, "Stop", "Sleeper")
    expect(sleeper.locator(".badge")).to_have_text("Stopped")
    expect(sleeper).to_contain_text("Stopped by you")
    assert page.evaluate("window.sameDocument")


def test_a_crash_shows_its_exit_code_and_last_line_first_of_all(visit: Visit, stack: Stack) -> None:
    stack.upload(SLEEPER, "A sleeper")
    strategy = stack.upload(CRASHER, "Crasher", restart="never")
    page = visit.page()
    stack.post(
        f"/python/start/{strategy}"
    )  # by hand, its row would stay under the hand for a while
    crasher = row(page, "Crasher")
    expect(crasher.locator(".badge")).to_have_text("Crashed")
    expect(crasher).to_contain_text("Exit code 3")
    expect(crasher.locator(".detail")).to_have_text(HOSTILE)
    expect(page).to_have_title("(1) Openbell")
    expect(page.locator("#rows .name").first).to_have_text("Crasher")


def test_what_one_tab_does_shows_in_the_other(visiting: Callable[..., Visit], stack: Stack) -> None:
    stack.upload(SLEEPER, "Shared")
    one, other = visiting(), visiting()
    one.provoked = other.provoked = {"404"}  # a read may come after the deletion
    here, there = one.page(), other.page()
    press(here, "Start", "Shared")
    expect(row(there, "Shared").locator(".badge")).to_have_text("Running")
    stack.upload(SLEEPER, "From elsewhere")
    expect(row(here, "From elsewhere")).to_be_visible()

    press(there, "Delete", "Shared")
    dialog = there.get_by_role("dialog")
    expect(dialog).to_contain_text("?stop=true")
    dialog.get_by_role("button", name="Stop and delete").click()
    expect(row(there, "Shared")).to_have_count(0)
    expect(row(here, "Shared")).to_have_count(0)


def test_the_log_follows_pauses_and_is_plain_text(
    visit: Visit, stack: Stack, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text("first\n")
    talker = stack.upload(TALKER, "Talker", parameters={"SCRIPT": str(script)})
    stack.post(f"/python/start/{talker}", params={"wait": 10})
    page = visit.page()
    press(page, "Log", "Talker")
    text, state = page.locator("#log-text"), page.locator("#log-state")
    expect(text).to_contain_text("line 199\nfirst")
    expect(state).to_have_text("Following")

    script.write_text(f"first\n{HOSTILE}\n")
    expect(text).to_contain_text(HOSTILE)
    assert text.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight < 24")

    text.evaluate("e => e.scrollTop = 0")
    expect(state).to_have_text("Paused while you read")
    script.write_text(f"first\n{HOSTILE}\nthird\n")
    expect(text).to_contain_text("third")
    assert text.evaluate("e => e.scrollTop") == 0
    page.get_by_role("button", name="Follow the newest lines").click()
    expect(state).to_have_text("Following")

    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    content = download.value.path().read_text()
    assert content.startswith("line 0\n")
    assert content.endswith("third\n")

    press(page, "Stop", "Talker")
    expect(state).to_contain_text(re.compile("(SIGINT|Exit code).* after"))
    text.press("Escape")
    expect(page.locator("#log")).to_be_hidden()
    expect(page.get_by_role("button", name="Log Talker")).to_be_focused()


def test_a_schedule_is_refused_at_its_field_then_kept_paused_and_resumed(
    visit: Visit, stack: Stack
) -> None:
    visit.provoked = {"422"}
    stack.upload(SLEEPER, "Planned", exchange="NSE")
    page = visit.page()
    planned = row(page, "Planned")
    planned.get_by_role("button", name="Schedule of Planned").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Exchange", exact=True).fill("XX")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.locator("[data-field=exchange] .error")).to_contain_text("no exchange 'XX'")
    dialog.get_by_label("Exchange", exact=True).fill("CRYPTO")
    dialog.get_by_label("Start", exact=True).fill("")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.locator("[data-field=start] .error")).to_contain_text("time of day")
    dialog.get_by_role("radio", name="Always").check()
    dialog.get_by_role("button", name="Save").click()
    expect(planned.get_by_role("button", name="Schedule of Planned: Always")).to_be_visible()
    expect(planned.locator(".badge")).to_have_text("Running")

    press(page, "Stop", "Planned")
    expect(planned.locator(".badge")).to_have_text("Paused")
    planned.get_by_role("button", name="Resume").click()
    expect(planned.locator(".badge")).to_have_text("Running")
    planned.get_by_role("button", name="Schedule of Planned").click()
    dialog.get_by_role("radio", name="No schedule").check()
    dialog.get_by_role("button", name="Save").click()
    expect(planned).to_contain_text("Add a schedule")


def test_an_error_is_told_with_its_detail(visit: Visit, stack: Stack) -> None:
    visit.provoked = {"503"}
    stack.upload(SLEEPER, "Unlucky")
    page = visit.page()
    problem = {"title": "A part of Openbell", "detail": "the scheduler does not answer"}
    page.route(
        "**/python/start/*",
        lambda route: route.fulfill(
            status=503, content_type="application/problem+json", body=json.dumps(problem)
        ),
    )
    press(page, "Start", "Unlucky")
    told = page.get_by_role("alert").filter(has_text="Unlucky")
    expect(told).to_contain_text("could not be started: the scheduler does not answer")
    expect(row(page, "Unlucky").locator(".badge")).to_have_text("Stopped")


def test_among_a_thousand_only_the_row_that_changed_is_touched(visit: Visit, stack: Stack) -> None:
    strategy = stack.upload(SLEEPER, "Needle")
    needle = stack.status(strategy)
    others = [
        needle
        | {"id": f"other-{n}", "name": f"{HOSTILE} {n}", "created_at": "2024-01-01T00:00:00Z"}
        for n in range(999)
    ]
    body = json.dumps({"strategies": [needle, *others]})
    page = visit.page("/page/index.html")
    page.route(
        "**/python/", lambda route: route.fulfill(content_type="application/json", body=body)
    )
    page.reload()
    expect(page.locator("#rows tr")).to_have_count(1000)
    expect(page.locator("#rows .name").first).to_have_text(f"{HOSTILE} 0")
    page.evaluate("""() => {
        window.touched = new Set();
        const note = (records) => records.forEach((record) => {
            const { target } = record;
            const element = target.nodeType === Node.ELEMENT_NODE ? target : target.parentElement;
            window.touched.add(element.closest("tr")?.dataset.id ?? "the list");
        });
        const options = { subtree: true, childList: true, characterData: true, attributes: true };
        new MutationObserver(note).observe(document.getElementById("rows"), options);
    }""")
    stack.post(f"/python/start/{strategy}", params={"wait": 10})
    expect(row(page, "Needle").locator(".badge")).to_have_text("Running")
    expect(page.locator("#rows .name").first).to_have_text("Needle")
    assert set(page.evaluate("[...window.touched]")) == {strategy, "the list"}
    page.get_by_role("searchbox").fill("</script> 99")
    expect(page.locator("#rows tr:visible")).to_have_count(10)
    expect(page).not_to_have_title("stolen")


def test_a_lost_connection_is_said_and_found_again(visit: Visit, stack: Stack) -> None:
    visit.provoked = {"503"}
    page = visit.page()
    page.route("**/python/events", lambda route: route.fulfill(status=503))
    page.evaluate("window.dispatchEvent(new Event('online'))")  # the stream is opened anew
    expect(page.locator("#connection")).to_have_text("Reconnecting…")
    expect(page.get_by_role("alert").filter(has_text="does not answer")).to_be_visible()
    stack.upload(SLEEPER, "Meanwhile")
    page.unroute("**/python/events")
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.locator("#banner")).to_be_hidden()
    expect(row(page, "Meanwhile")).to_be_visible()


def test_a_phone_scrolls_down_and_never_sideways(
    visiting: Callable[..., Visit], stack: Stack
) -> None:
    visit = visiting(PHONE)
    page = visit.page()
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(fits)
    name = "a_very_long_name_" * 3 + "of_64"
    stack.upload(CRASHER.replace("sys.exit(3)", "sys.exit('x' * 400)"), name, restart="never")
    press(page, "Start", name)
    expect(row(page, name).locator(".badge")).to_have_text("Crashed")
    assert page.evaluate(fits)
    press(page, "Log", name)
    expect(page.locator("#log-text")).to_contain_text("xxx")
    assert page.evaluate(fits)
    page.get_by_role("button", name="Close the log").click()
    page.get_by_role("button", name=f"Schedule of {name}").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate(fits)


def test_the_page_runs_nothing_but_its_own_files(visit: Visit, stack: Stack) -> None:
    visit.provoked = {"TrustedHTML"}
    answer = stack.http.get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert answer.headers["x-content-type-options"] == "nosniff"
    page = visit.page()
    refused = page.evaluate("""() => {
        try { document.body.innerHTML = "<b>x</b>"; } catch (error) { return error.name; }
    }""")
    assert refused == "TypeError"
