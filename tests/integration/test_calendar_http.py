"""The calendar over HTTP: what is open when, for calendar apps too, and what admins say of it."""

from collections.abc import Generator
from datetime import date, timedelta
from typing import Any

import httpx
import pytest
from icalendar import Calendar, Event

from tests.fixtures.people import Person, join
from tests.fixtures.stack import Stack

JANUARY = {"exchange": "NSE", "from": "2026-01-23", "to": "2026-02-02"}
"""With Republic Day, and the Sunday of the budget."""
MUHURAT = {"hours": [{"opens": "18:00", "closes": "19:15"}], "reason": "Muhurat trading"}
DAY = "/calendar/overrides/NSE/2026-12-23"


@pytest.fixture(scope="module")
def trader(stack: Stack) -> Generator[Person]:
    person = join(stack, "trudy")
    yield person
    person.close()


@pytest.fixture(autouse=True)
def _leaves_nothing(stack: Stack) -> Generator[None]:
    yield
    left = get(stack.http, "/calendar/overrides")["overrides"]
    for one in left:
        stack.http.delete(f"/calendar/overrides/{one['segment']}/{one['day']}")
    assert left == []


def get(http: httpx.Client, path: str, **params: Any) -> dict[str, Any]:
    answer = http.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return answer.json()


def test_sessions_and_closures_with_their_reasons(trader: Person) -> None:
    found = get(trader.http, "/calendar/sessions", **JANUARY)
    assert (found["segment"], found["timezone"]) == ("NSE", "Asia/Kolkata")
    kinds = {one["day"]: one["kind"] for one in found["sessions"]}
    assert kinds["2026-01-23"] == "usual"
    assert kinds["2026-02-01"] == "special"
    first = found["sessions"][0]
    assert first["opens_at"] == "2026-01-23T03:45:00Z"
    closures = {one["day"]: one for one in found["closures"]}
    assert closures["2026-01-24"]["weekend"]
    assert not closures["2026-01-26"]["weekend"]
    assert closures["2026-01-26"]["reason"]


def test_a_segment_is_found_by_any_of_its_names(trader: Person) -> None:
    asked = {"from": "2026-06-01", "to": "2026-06-05"}
    found = [
        get(trader.http, "/calendar/sessions", exchange=name, **asked)["segment"]
        for name in ("NYSE", "xnys", " nyse ")
    ]
    assert len(set(found)) == 1
    codes = [one["code"] for one in get(trader.http, "/calendar/exchanges", q="xny")["exchanges"]]
    assert found[0] in codes
    assert "NSE" not in codes
    everything = get(trader.http, "/calendar/exchanges")["exchanges"]
    assert {"NSE", "MCX", "CRYPTO"} <= {one["code"] for one in everything}


def test_holidays_are_what_is_not_as_usual(trader: Person) -> None:
    found = get(trader.http, "/calendar/holidays", **JANUARY)
    assert [one["day"] for one in found["closures"]] == ["2026-01-26"]
    assert [one["day"] for one in found["sessions"]] == ["2026-02-01"]
    of_year = get(trader.http, "/calendar/holidays", exchange="NSE")
    years = {one["day"][:4] for one in [*of_year["closures"], *of_year["sessions"]]}
    assert len(years) <= 1
    assert "usual" not in {one["kind"] for one in of_year["sessions"]}


def test_what_is_open_now(trader: Person) -> None:
    ours = get(trader.http, "/calendar/now")["markets"]
    assert {"NSE", "MCX", "CRYPTO"} <= {one["segment"] for one in ours}
    crypto = next(one for one in ours if one["segment"] == "CRYPTO")
    assert crypto["is_open"]
    asked = trader.http.get("/calendar/now?exchange=nse&exchange=XNYS&exchange=nse").json()
    assert [one["segment"] for one in asked["markets"]] in (["NSE", "NYSE"], ["NSE", "XNYS"])


def test_a_calendar_app_reads_sessions_and_holidays(trader: Person) -> None:
    path, days = "/calendar/NSE.ics", {"from": JANUARY["from"], "to": JANUARY["to"]}
    answer = trader.browser.get(path, params=days)
    assert answer.headers["content-type"].startswith("text/calendar")
    events = _events(answer)
    assert len({str(one["uid"]) for one in events}) == len(events)
    assert [one["uid"] for one in _events(trader.http.get(path, params=days))] == [
        one["uid"] for one in events
    ]
    closed = next(one for one in events if "closed" in str(one["summary"]))
    assert closed["dtstart"].to_ical() == b"20260126"
    opened = next(one for one in events if one["dtstart"].to_ical() == b"20260123T034500Z")
    assert opened["summary"] == "NSE open"
    assert len(_events(trader.http.get(path))) > 1


def test_a_calendar_app_is_told_where_knowledge_ends(trader: Person) -> None:
    known = get(trader.http, "/calendar/sessions", exchange="NSE")["covered_until"]
    days = {"from": known, "to": str(date.fromisoformat(known) + timedelta(30))}
    last = _events(trader.http.get("/calendar/NSE.ics", params=days))[-1]
    assert last["summary"] == "NSE is not known from here on"
    after = date.fromisoformat(known) + timedelta(1)
    assert last["dtstart"].to_ical() == f"{after:%Y%m%d}".encode()


def test_no_credential_stands_in_an_address(stack: Stack) -> None:
    with stack.client() as nobody:
        answer = nobody.get("/calendar/NSE.ics", params={"token": stack.token})
        refused(answer, 401, "not_signed_in")


def test_an_admin_says_what_a_day_is(stack: Stack, trader: Person) -> None:
    http = stack.http
    set_ = http.put(DAY.replace("NSE", "nse"), json=MUHURAT).json()
    assert set_["before"] is None
    assert set_["after"]["segment"] == "NSE"
    assert set_["after"]["by"] == "local"
    assert get(trader.http, "/calendar/overrides", exchange="NSE")["overrides"] == [set_["after"]]
    assert get(trader.http, "/calendar/overrides", exchange="MCX")["overrides"] == []
    day = {"exchange": "NSE", "from": "2026-12-23", "to": "2026-12-23"}
    (session,) = get(trader.http, "/calendar/sessions", **day)["sessions"]
    assert (session["opens_at"], session["reason"]) == ("2026-12-23T12:30:00Z", "Muhurat trading")
    closed = http.put(DAY, json={"reason": "a flood"}).json()
    assert closed["before"] == set_["after"]
    found = get(trader.http, "/calendar/holidays", **day)
    assert [one["reason"] for one in found["closures"]] == ["a flood"]
    assert http.delete(DAY).json() == {"before": closed["after"], "after": None}
    assert len(get(trader.http, "/calendar/sessions", **day)["sessions"]) == 1
    refused(http.delete(DAY), 404, "unknown_override")


def test_overrides_are_audited_before_and_after(stack: Stack) -> None:
    stack.http.put(DAY, json=MUHURAT).raise_for_status()
    stack.http.delete(DAY).raise_for_status()
    stack.http.delete(DAY)
    entries = get(stack.http, "/admin/audit", limit=20)["entries"]
    told = [one for one in entries if one["action"] in {"set_override", "remove_override"}][:6]
    assert [(one["action"], one["outcome"]) for one in reversed(told)] == [
        ("set_override", "requested"),
        ("set_override", "done"),
        ("remove_override", "requested"),
        ("remove_override", "done"),
        ("remove_override", "requested"),
        ("remove_override", "unknown_override"),
    ]
    removed, set_ = told[2], told[4]
    assert (set_["before"], set_["after"]["reason"]) == (None, "Muhurat trading")
    assert (removed["before"], removed["after"]) == (set_["after"], None)


def test_who_may_say_it(stack: Stack, trader: Person) -> None:
    for answer in (trader.http.put(DAY, json=MUHURAT), trader.http.delete(DAY)):
        refused(answer, 403, "not_allowed")
    for scopes, reads, says in ((["read"], 200, 403), (["admin"], 403, 404)):
        made = stack.post("/auth/tokens", json={"name": "x", "scopes": scopes})
        with stack.client(made["value"]) as program:
            assert program.get("/calendar/overrides").status_code == reads
            assert program.get("/calendar/NSE.ics").status_code == reads
            assert program.delete(DAY).status_code == says


@pytest.mark.parametrize("path", ["/calendar/sessions", "/calendar/holidays", "/calendar/NSE.ics"])
@pytest.mark.parametrize(
    ("days", "field"),
    [
        ({"from": "2026-02-02", "to": "2026-02-01"}, "to"),
        ({"from": "2026-01-01", "to": "2027-02-05"}, "to"),
        ({"from": "2000-01-01", "to": "2100-12-31"}, "to"),
        ({"from": "0001-01-01"}, "from"),
        ({"to": "9999-12-31"}, "to"),
        ({"from": "2026-02-30"}, "from"),
        ({"from": "1767225600"}, "from"),
        ({"from": "today"}, "from"),
        ({"from": ""}, "from"),
    ],
)
def test_days_that_are_not_told(
    trader: Person, path: str, days: dict[str, str], field: str
) -> None:
    answer = trader.http.get(path, params={"exchange": "NSE", **days})
    body = refused(answer, 422, "invalid_request")
    assert [one["field"] for one in body["errors"]] == [field]


def test_the_edges_of_what_may_be_asked(trader: Person) -> None:
    for days in ({"from": "2100-12-31"}, {"from": "2000-01-01", "to": "2000-01-01"}):
        for path in ("/calendar/sessions", "/calendar/holidays", "/calendar/CRYPTO.ics"):
            answer = trader.http.get(path, params={"exchange": "CRYPTO", **days})
            assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/calendar/sessions?exchange=XYZ",
        "/calendar/holidays?exchange=XYZ",
        "/calendar/now?exchange=NSE&exchange=XYZ",
        "/calendar/overrides?exchange=XYZ",
        "/calendar/XYZ.ics",
    ],
)
def test_an_unknown_exchange_names_its_field(trader: Person, path: str) -> None:
    body = refused(trader.http.get(path), 422, "unknown_exchange")
    assert body["errors"][0]["field"] == "exchange"
    for name in ("N%0ASE", "%E0%A4%A8", "x" * 33, "%20"):
        answer = trader.http.get(path.replace("XYZ", name))
        assert refused(answer, 422, "invalid_request")["errors"][0]["field"] == "exchange"


def test_too_many_exchanges_at_once(trader: Person) -> None:
    asked = {"exchange": [f"X{n}" for n in range(65)]}
    refused(trader.http.get("/calendar/now", params=asked), 422, "invalid_request")
    refused(trader.http.get("/calendar/sessions"), 422, "invalid_request")


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({}, "reason"),
        ({"reason": "  "}, "reason"),
        ({"reason": "x" * 201}, "reason"),
        ({"reason": "two\nlines"}, "reason"),
        ({"reason": "x", "hours": [{"opens": "18:00"}]}, "hours.0.closes"),
        ({"reason": "x", "hours": [{"opens": "6pm", "closes": "19:15"}]}, "hours.0.opens"),
        ({"reason": "x", "hours": None}, "hours"),
        ({"reason": "x", "hours": MUHURAT["hours"] * 9}, "hours"),
        ({"reason": "x", "open": True}, "open"),
    ],
)
def test_what_can_not_be_said_of_a_day(stack: Stack, said: Any, field: str) -> None:
    body = refused(stack.http.put(DAY, json=said), 422, "invalid_request")
    assert [one["field"] for one in body["errors"]] == [field]


def test_days_that_no_exchange_has(stack: Stack) -> None:
    for day in ("0001-01-01", "9999-12-31", "2026-02-30", "1767225600", "today"):
        path = f"/calendar/overrides/NSE/{day}"
        for answer in (stack.http.put(path, json=MUHURAT), stack.http.delete(path)):
            body = refused(answer, 422, "invalid_request")
            assert body["errors"][0]["field"] == "day"
    refused(
        stack.http.put("/calendar/overrides/XYZ/2026-12-23", json=MUHURAT), 422, "unknown_exchange"
    )


def test_hours_that_overlap_are_refused(stack: Stack) -> None:
    hours = [{"opens": "09:00", "closes": "12:00"}, {"opens": "11:00", "closes": "13:00"}]
    refused(stack.http.put(DAY, json={"hours": hours, "reason": "x"}), 422, "invalid_request")


def _events(answer: httpx.Response) -> list[Event]:
    assert answer.status_code == 200, answer.text
    return list(Calendar.from_ical(answer.content).events)
