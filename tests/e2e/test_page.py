"""The page, as a trader uses it: a real Chromium against a real Openbell."""

import gzip
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

from tests.fixtures.stack import Stack, eventually, start_one_process

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
NAME, PASSWORD = "olga", "correct horse battery"
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
        self.context = context
        self._url = url
        self.provoked: set[str] = set()
        self._wrong: list[str] = []

    def sign_in(self, name: str, password: str = PASSWORD) -> None:
        given = {"name": name, "password": password}
        assert self.context.request.post(f"{self._url}/auth/login", data=given).ok

    def open(self, path: str) -> Page:
        page = self.context.new_page()
        page.on("console", self._said)
        page.on("pageerror", lambda error: self._wrong.append(f"pageerror: {error}"))
        page.on("request", self._requested)
        page.goto(self._url + path)
        return page

    def page(self, path: str = "/") -> Page:
        page = self.open(path)
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


@pytest.fixture(scope="module")
def claimed(stack: Stack) -> Stack:
    """The stack, whose first account, the one of `stack.http`, has a name and a password."""
    accept(stack, (stack.home / "data" / "setup-token").read_text(), NAME)
    return stack


@pytest.fixture
def visiting(browser: Browser, claimed: Stack) -> Generator[Callable[..., Visit]]:
    """Opens browsers that share nothing, and leaves the stack as it was found."""
    stack, visits = claimed, list[Visit]()

    def visit(viewport: dict[str, int] = DESK, user: str | None = NAME) -> Visit:
        size = {"width": viewport["width"], "height": viewport["height"]}
        context = browser.new_context(screen=size, viewport=size)  # pyright: ignore[reportArgumentType]
        visits.append(Visit(context, stack.url))
        if user:
            visits[-1].sign_in(user)
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


def accept(stack: Stack, token: str, name: str) -> None:
    given = {"token": token, "name": name, "password": PASSWORD}
    with stack.client() as nobody:
        assert nobody.post("/auth/accept", json=given).is_success


def join(stack: Stack, name: str, role: str = "trader") -> None:
    """Another account, by invitation."""
    invitation = stack.post("/admin/invitations", json={"role": role})
    accept(stack, invitation["path"].removeprefix("/join#"), name)


def row(page: Page, name: str) -> Locator:
    return page.locator("#rows tr").filter(has=page.get_by_text(name, exact=True))


def press(page: Page, action: str, name: str) -> None:
    page.get_by_role("button", name=f"{action} {name}", exact=True).click()


def choose(page: Page, item: str, name: str) -> None:
    """In the menu of a strategy's row."""
    press(page, "More for", name)
    page.get_by_role("menuitem", name=item).click()


def choose_of_user(page: Page, item: str) -> None:
    page.locator("#user").click()
    page.get_by_role("menuitem", name=item).click()


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
    runs_with = row(page, "ema_crossover").get_by_text("ema_crossover.py")
    expect(runs_with).to_have_attribute("title", "The runner's Python, the default packages")


def test_a_secret_is_given_with_the_upload(visit: Visit, stack: Stack) -> None:
    visit.provoked = {"422"}
    page = visit.page()
    page.get_by_role("button", name="Upload strategy").click()
    secrets = page.locator("#upload-secrets")
    wrong = page.locator("#upload [data-field=secrets] .error")
    secrets.fill("hunter2")
    upload(page, SLEEPER, "keeper.py")
    expect(wrong).to_have_text("Line 1: write KEY=VALUE")
    secrets.fill("9=hunter2")
    upload(page, SLEEPER, "keeper.py")
    expect(wrong).to_contain_text("9: this name cannot be set")
    assert secrets.evaluate("e => getComputedStyle(e).webkitTextSecurity") == "disc"
    page.get_by_role("button", name="Show the secrets").click()
    assert secrets.evaluate("e => getComputedStyle(e).webkitTextSecurity") == "none"
    secrets.fill("API_KEY=hunter2=")
    page.locator("#upload-parameters").fill("SYMBOL=SBIN")
    upload(page, SLEEPER, "keeper.py")
    expect(row(page, "keeper")).to_be_visible()
    expect(secrets).to_have_value("")
    assert secrets.evaluate("e => getComputedStyle(e).webkitTextSecurity") == "disc"
    choose(page, "Variables…", "keeper")
    dialog = page.locator("#variables")
    expect(dialog.locator(".entry").filter(has_text="API_KEY")).to_contain_text("Secret")
    expect(dialog.locator(".entry").filter(has_text="SYMBOL")).to_contain_text("Parameter")
    expect(dialog.locator("[name=kind][value=secret]")).to_be_checked()
    assert "hunter2" not in page.content()


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
    expect(sleeper).to_contain_text("Stopped by hand")
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

    choose(there, "Delete…", "Shared")
    dialog = there.get_by_role("dialog")
    expect(dialog).to_contain_text("?stop=true")
    dialog.get_by_role("button", name="Stop and delete").click()
    expect(row(there, "Shared")).to_have_count(0)
    expect(row(here, "Shared")).to_have_count(0)


def test_the_log_follows_pauses_and_is_plain_text(visit: Visit, stack: Stack) -> None:
    talker = stack.upload(TALKER, "Talker", parameters={"SCRIPT": "script"})
    script = stack.home / "strategies" / talker / "script"  # which it sees wherever it is confined
    script.parent.mkdir(parents=True)
    script.write_text("first\n")
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

    text.evaluate("e => e.scrollTop = 0")
    expect(state).to_have_text("Paused while you read")
    with script.open("a") as more:
        more.writelines(f"{'x' * 10_000}\n" for _ in range(210))
        more.write("third\n")
    shown = "e => e.textContent.length"
    eventually(lambda: text.evaluate(shown) > 2e6 or None, lambda: "the page shows too little")
    page.get_by_role("button", name="Follow the newest lines").click()
    eventually(lambda: 0 < text.evaluate(shown) < 1e5 or None, lambda: "the page keeps all of it")
    expect(state).to_have_text("Following")

    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    content = gzip.decompress(download.value.path().read_bytes()).decode()
    assert content.startswith("line 0\n")
    assert content.endswith("third\n")

    press(page, "Stop", "Talker")
    expect(state).to_contain_text(re.compile("(SIGINT|Exit code).* after"))
    text.press("Escape")
    expect(page.locator("#log")).to_be_hidden()
    expect(page.get_by_role("button", name="Log Talker")).to_be_focused()


def test_the_log_is_searched_and_cleared(visit: Visit, stack: Stack) -> None:
    talker = stack.upload(TALKER, "Searched", parameters={"SCRIPT": "script"})
    script = stack.home / "strategies" / talker / "script"  # which it sees wherever it is confined
    script.parent.mkdir(parents=True)
    script.write_text("first\n")
    stack.post(f"/python/start/{talker}", params={"wait": 10})
    page = visit.page()
    press(page, "Log", "Searched")
    text, panel = page.locator("#log-text"), page.locator("#log")
    expect(text).to_contain_text("first")
    panel.get_by_role("button", name="Search", exact=True).first.click()
    panel.get_by_label("Search this log").fill("LINE 12")
    panel.get_by_label("Search this log").press("Enter")
    expect(panel.locator("#log-count")).to_have_text("11 lines")
    panel.get_by_label("Match case").check()
    expect(panel.locator("#log-count")).to_have_text("0 lines")
    panel.get_by_label("Regular expression").check()
    visit.provoked = {"422"}
    panel.get_by_label("Search this log").fill("([")
    panel.get_by_label("Search this log").press("Enter")
    expect(panel.locator("#log-count")).to_contain_text("It is no regular expression")
    panel.get_by_label("Search this log").fill("^line 1[0-2]$")
    panel.get_by_label("Search this log").press("Enter")
    expect(panel.locator(".found-line")).to_have_text(["line 12", "line 11", "line 10"])
    panel.get_by_role("button", name="line 11", exact=True).click()
    expect(text.locator("mark")).to_have_text("line 11")
    page.get_by_role("button", name="Follow the newest lines").click()
    expect(page.locator("#log-state")).to_have_text("Following")

    panel.get_by_role("button", name="Clear").click()
    page.get_by_role("dialog").get_by_role("button", name="Clear it").click()
    expect(text).to_have_text("… what came before was dropped\n")
    script.write_text("first\nsecond\n")
    expect(text).to_have_text("… what came before was dropped\nsecond\n")
    stack.http.delete(f"/python/delete/{talker}", params={"stop": True}).raise_for_status()


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
    dialog.get_by_role("radio", name="By hand").check()
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


def test_the_setup_link_makes_the_first_account_once(browser: Browser, home: Path) -> None:
    stack = start_one_process(home)
    visit = Visit(browser.new_context(), stack.url)
    visit.provoked = {"401", "404", "422"}
    page = visit.open("/")
    expect(page).to_have_url(f"{stack.url}/login")
    link = f"/join#{(home / 'data' / 'setup-token').read_text()}"
    page = visit.open(link)
    expect(page.get_by_role("heading", name="Set up Openbell")).to_be_visible()
    expect(page).to_have_url(f"{stack.url}/join")
    page.get_by_label("Name").fill(NAME)
    page.locator("#password").fill("short")
    page.get_by_role("button", name="Create account").click()
    expect(page.locator("[data-field=password] .error")).to_contain_text("10 to 256 characters")
    page.locator("#password").fill(PASSWORD)
    page.get_by_role("button", name="Show the password").click()
    expect(page.locator("#password")).to_have_attribute("type", "text")
    page.get_by_role("button", name="Create account").click()
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page).to_have_url(f"{stack.url}/")
    expect(page.locator("#user-name")).to_have_text(NAME)
    cookies = {cookie.get("name"): cookie.get("httpOnly") for cookie in visit.context.cookies()}
    assert cookies == {"openbell_session": True, "openbell_csrf": False}

    page = visit.open(link)
    expect(page.get_by_role("heading", name="does not work any more")).to_be_visible()
    visit.context.close()
    assert visit.found_wrong() == []
    assert stack.stop() == [0]


def test_a_wrong_password_is_said_and_guessing_is_slowed_down(
    visiting: Callable[..., Visit], claimed: Stack
) -> None:
    visit = visiting(user=None)
    visit.provoked = {"401", "429"}
    page = visit.open("/account#tokens")
    expect(page).to_have_url(f"{claimed.url}/login#next=/account%23tokens")
    go = page.locator("#login [type=submit]")
    page.get_by_label("Name").fill("nobody")
    page.locator("#password").fill("a wrong password")
    go.click()
    told = page.locator("#login [data-problem]")
    expect(told).to_contain_text("name or the password is wrong")
    for _ in range(6):
        expect(go).to_be_enabled()
        go.click()
        expect(page.locator("#login")).to_have_attribute("aria-busy", "false")
    expect(told).to_contain_text("ry again in")
    expect(go).to_contain_text("Wait")
    expect(go).to_be_disabled()
    expect(go).to_have_text("Sign in")
    expect(told).to_be_hidden()
    page.get_by_label("Name").fill(NAME)
    page.locator("#password").fill(PASSWORD)
    go.click()
    expect(page).to_have_url(f"{claimed.url}/account#tokens")


@pytest.mark.parametrize(
    "elsewhere",
    ["//example.com", "https://example.com/", "/%5Cexample.com", "javascript:alert(1)", "/login"],
)
def test_signing_in_leads_nowhere_else(visit: Visit, claimed: Stack, elsewhere: str) -> None:
    page = visit.open(f"/login#next={elsewhere}")
    expect(page).to_have_url(f"{claimed.url}/")


def test_who_signs_out_leaves_nothing_behind(visit: Visit, claimed: Stack) -> None:
    visit.provoked = {"401"}
    page = visit.page()
    session = [one for one in visit.context.cookies() if one.get("httpOnly")]
    choose_of_user(page, "Sign out")
    expect(page).to_have_url(f"{claimed.url}/login")
    expect(page.locator("#login-over")).to_be_hidden()
    assert visit.context.cookies() == []
    visit.context.add_cookies(session)  # pyright: ignore[reportArgumentType]
    assert visit.context.request.get(f"{claimed.url}/auth/me").status == 401
    page.goto(claimed.url)
    expect(page).to_have_url(f"{claimed.url}/login")


def test_a_session_that_is_revoked_ends_at_the_door(
    visiting: Callable[..., Visit], claimed: Stack
) -> None:
    here, there = visiting(), visiting()
    there.provoked = {"401"}
    page = there.page()
    account = here.open("/account")
    account.get_by_role("button", name="Sign out all others").click()
    expect(page).to_have_url(f"{claimed.url}/login#over=1")
    expect(page.get_by_text("Your session is over: sign in again.")).to_be_visible()
    page.get_by_label("Name").fill(NAME)
    page.locator("#password").fill(PASSWORD)
    page.locator("#login [type=submit]").click()
    expect(page).to_have_url(f"{claimed.url}/")
    account.reload()
    account.get_by_role("button", name="Sign out all others").click()
    expect(account.locator("#sessions .entry")).to_have_count(1)
    expect(account.locator("#sessions .entry")).to_contain_text("This one")
    expect(page).to_have_url(f"{claimed.url}/login#over=1")  # Chromium hangs if closed on its way


def test_a_token_is_shown_once_and_works_until_revoked(visit: Visit, claimed: Stack) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.open("/account")
    page.get_by_role("button", name="New token").click()
    dialog = page.locator("#new-token")
    dialog.get_by_label("What is it for?").fill(HOSTILE)
    dialog.get_by_role("button", name="Create token").click()
    expect(page.locator("#reveal-value")).to_have_value(re.compile("^obt_"))
    value = page.locator("#reveal-value").input_value()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == value
    page.locator("#reveal").get_by_role("button", name="Close").click()
    expect(page.locator("#reveal-value")).to_have_value("")
    page.reload()
    expect(page.locator("#tokens .entry-name").filter(has_text=HOSTILE)).to_be_visible()
    assert value not in page.content()

    with claimed.client(value) as program:
        assert program.get("/python/").is_success
        assert program.post("/python/stop-all").status_code == 403
        page.get_by_role("button", name=f"Revoke {HOSTILE}").click()
        page.locator("#confirm").get_by_role("button", name="Revoke").click()
        expect(page.locator("#tokens .entry-name").filter(has_text=HOSTILE)).to_have_count(0)
        assert program.get("/python/").status_code == 401


def test_a_secret_is_written_used_and_never_shown(visit: Visit, claimed: Stack) -> None:
    visit.provoked = {"422", "409"}
    secret = "hunter2-hunter2"
    script = "import os\nprint('it has', len(os.environ['KEY']), flush=True)\n"
    strategy = claimed.upload(script, "User of a secret", restart="never")
    page = visit.open("/account")
    form = page.locator("#variables")
    form.get_by_label("Name").fill("not a name")
    form.locator("textarea").fill(secret)
    assert (
        form.locator("textarea").evaluate("e => getComputedStyle(e).webkitTextSecurity") == "disc"
    )
    form.get_by_role("button", name="Set").click()
    expect(form.locator("[data-field=name] .error")).to_contain_text("cannot be set")
    form.get_by_label("Name").fill("BROKER")
    form.get_by_role("button", name="Set").click()
    expect(form.locator(".entry")).to_contain_text("BROKER")
    expect(form.locator("textarea")).to_have_value("")

    list_page = visit.page()
    choose(list_page, "Variables…", "User of a secret")
    dialog = list_page.locator("#variables")
    dialog.locator("[name=kind][value=use]").check()
    dialog.get_by_label("Name", exact=True).fill("KEY")
    dialog.locator("#variables-source").fill("BROKER")
    dialog.get_by_role("button", name="Set").click()
    expect(dialog.locator(".entry")).to_contain_text("Your secret BROKER")
    expect(dialog.get_by_role("status").filter(has_text="KEY is set")).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    claimed.post(f"/python/start/{strategy}")
    claimed.wait_log(strategy, f"it has {len(secret)}")

    page.reload()
    expect(form.locator(".entry")).to_contain_text("BROKER")
    for path in ("/auth/env", f"/python/env/{strategy}", "/auth/audit"):
        assert secret not in claimed.http.get(path).text
    assert secret not in page.content() + list_page.content()
    form.get_by_role("button", name="Remove BROKER").click()
    expect(page.get_by_role("alert").filter(has_text="Remove BROKER")).to_be_visible()
    choose(list_page, "Variables…", "User of a secret")
    dialog.get_by_role("button", name="Remove KEY").click()
    expect(dialog.locator(".entry")).to_have_count(0)
    form.get_by_role("button", name="Remove BROKER").click()
    expect(form.locator(".entry")).to_have_count(0)


def test_who_is_invited_sees_what_is_shared_and_no_more(
    visiting: Callable[..., Visit], claimed: Stack
) -> None:
    claimed.upload(SLEEPER, "Mine")
    claimed.upload(SLEEPER, "Ours", exchange="NSE")
    owner, guest = visiting(), visiting(user=None)
    guest.provoked = {"404"}  # a read may come after it is shared no longer
    account = owner.open("/account")
    account.get_by_role("button", name="Invite").click()
    account.locator("#invite").get_by_role("button", name="Make a link").click()
    expect(account.locator("#reveal-value")).to_have_value(re.compile(f"^{claimed.url}/join#"))
    link = account.locator("#reveal-value").input_value()
    theirs = guest.open(link.removeprefix(claimed.url))
    expect(theirs.get_by_role("heading", name="You are invited")).to_be_visible()
    theirs.get_by_label("Name").fill("guest")
    theirs.locator("#password").fill(PASSWORD)
    theirs.get_by_role("button", name="Create account").click()
    expect(theirs.get_by_role("heading", name="Upload your first strategy")).to_be_visible()

    mine = owner.page()
    choose(mine, "Share…", "Ours")
    dialog = mine.locator("#share")
    dialog.get_by_label("User's name").fill("guest")
    dialog.get_by_role("button", name="Share", exact=True).click()
    expect(dialog.locator(".entry")).to_contain_text("Viewer")
    shared = row(theirs, "Ours")
    expect(shared).to_contain_text(f"Shared by {NAME}")
    expect(shared.get_by_role("button")).to_have_count(2)
    expect(shared.get_by_role("button", name="Log Ours")).to_be_visible()
    expect(row(theirs, "Mine")).to_have_count(0)

    dialog.get_by_label("User's name").fill("guest")
    dialog.locator("[name=permission][value=operator]").check()
    dialog.get_by_role("button", name="Share", exact=True).click()
    press(theirs, "Start", "Ours")
    expect(shared.locator(".badge")).to_have_text("Running")
    press(theirs, "More for", "Ours")
    expect(theirs.get_by_role("menuitem")).to_have_text(["Runs…"])
    theirs.keyboard.press("Escape")
    expect(shared.get_by_role("button", name="Schedule of Ours")).to_be_hidden()

    for expected in (0, 1, 0):
        if expected:
            dialog.get_by_label("User's name").fill("guest")
            dialog.get_by_role("button", name="Share", exact=True).click()
        else:
            dialog.get_by_role("button", name="Remove guest").click()
        expect(shared).to_have_count(expected)


def test_a_viewer_is_not_taught_to_upload(visiting: Callable[..., Visit], claimed: Stack) -> None:
    join(claimed, "watcher", "viewer")
    page = visiting(user="watcher").page()
    expect(page.get_by_text("Nothing is shared with you yet")).to_be_visible()
    expect(page.get_by_role("button", name="Upload strategy")).to_be_hidden()
    expect(page.locator("#empty")).to_be_hidden()


def test_what_changes_something_proves_that_it_comes_from_the_page(
    visit: Visit, claimed: Stack
) -> None:
    visit.provoked = {"403"}
    strategy = claimed.upload(SLEEPER, "Guarded")
    page = visit.page()
    with page.expect_request(f"**/python/start/{strategy}") as sent:
        press(page, "Start", "Guarded")
    cookies = {cookie.get("name"): cookie.get("value") for cookie in visit.context.cookies()}
    assert sent.value.header_value("x-openbell-csrf") == cookies["openbell_csrf"]
    forged = f"fetch('/python/stop/{strategy}', {{method: 'POST'}}).then((answer) => answer.json())"
    assert page.evaluate(forged)["code"] == "forged_request"


def test_all_is_stopped_and_told_one_by_one(visit: Visit, claimed: Stack) -> None:
    names = ("First", "Second")
    for name in names:
        strategy = claimed.upload(SLEEPER, name)
        claimed.post(f"/python/start/{strategy}", params={"wait": 10})
    claimed.upload(SLEEPER, "At rest")
    page = visit.page()
    choose_of_user(page, "Stop all…")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 of your strategies run now")
    dialog.get_by_role("button", name="Stop all").click()
    expect(dialog.get_by_role("heading")).to_have_text("All is stopped")
    for name in names:
        expect(dialog.locator(".entry").filter(has_text=name)).to_contain_text("Gone")
    dialog.get_by_role("button", name="Close").click()
    for name in names:
        expect(row(page, name).locator(".badge")).to_have_text("Stopped")


def test_a_password_is_changed_and_people_are_managed(
    visiting: Callable[..., Visit], claimed: Stack
) -> None:
    join(claimed, "carol")
    admin, carol = visiting(), visiting(user="carol")
    carol.provoked = {"401"}
    theirs = carol.open("/account")
    expect(theirs.locator("#people")).to_be_hidden()
    theirs.get_by_label("Current password").fill("not this one")
    theirs.get_by_label("New password").fill("another long password")
    theirs.get_by_role("button", name="Change password").click()
    expect(theirs.locator("[data-field=current] .error")).to_contain_text("not your password")
    theirs.get_by_label("Current password").fill(PASSWORD)
    theirs.get_by_role("button", name="Change password").click()
    expect(theirs.get_by_text("Your password is changed.")).to_be_visible()
    carol.sign_in("carol", "another long password")
    listed = carol.page()

    people = admin.open("/account").locator("#users .entry").filter(has_text="carol")
    expect(people).to_contain_text("Trader")
    people.get_by_role("button", name="Change carol").click()
    people.page.get_by_role("menuitem", name="Disable…").click()
    people.page.locator("#confirm").get_by_role("button", name="Disable").click()
    expect(people).to_contain_text("Disabled")
    expect(listed).to_have_url(f"{claimed.url}/login#over=1")
    users = people.page.locator("#users")
    users.get_by_role("button", name=f"Change {NAME}").click()
    offered = people.page.get_by_role("menuitem")
    expect(offered).to_have_text(["Link for a new password"])  # the machine's own stays an admin


def test_the_audit_speaks_to_people(visiting: Callable[..., Visit], claimed: Stack) -> None:
    join(claimed, "dora")
    (dora,) = (
        one for one in claimed.http.get("/admin/users").json()["users"] if one["name"] == "dora"
    )
    claimed.post(f"/admin/role/{dora['id']}", json={"role": "viewer"})
    claimed.post("/python/stop-all")
    page = visiting().open("/account")
    page.locator("#audit-everybody").check()
    entries = page.locator("#audit .entry")
    expect(entries.filter(has_text="Change a role").first).to_contain_text(
        "user: dora, role: trader → viewer"
    )
    invited = entries.filter(has_text="Make an invitation").first
    expect(invited).to_contain_text("role: trader")
    expect(invited).not_to_contain_text("made by")
    joined = entries.filter(has_text="Use a link").filter(has_text="dora").first
    expect(joined).to_contain_text("made by: local")


def test_the_account_fits_a_phone(visiting: Callable[..., Visit], claimed: Stack) -> None:
    visit = visiting(PHONE)
    page = visit.open("/account")
    expect(page.locator("#audit .entry").first).to_be_visible()
    expect(page.locator("#people")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_menu_is_walked_with_the_keyboard(visit: Visit, claimed: Stack) -> None:
    claimed.upload(SLEEPER, "Keyed")
    page = visit.page()
    more = page.get_by_role("button", name="More for Keyed")
    more.press("Enter")
    expect(page.get_by_role("menuitem", name="Variables…")).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("menuitem", name="Delete…")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("menu")).to_be_hidden()
    expect(more).to_be_focused()
    choose(page, "Share…", "Keyed")
    page.get_by_role("dialog").press("Escape")
    expect(more).to_be_focused()
