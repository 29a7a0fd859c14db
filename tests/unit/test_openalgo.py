"""What an installation of OpenAlgo becomes here, whatever its files hold."""

import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from openbell import cli, client
from openbell.client import Client, Unreachable
from openbell.contracts.schedules import stored
from openbell.openalgo import (
    MOST_SCRIPT_BYTES,
    BadInstallation,
    Deed,
    Here,
    Hosted,
    Step,
    options_for,
    read,
    shown,
    steps,
)
from tests.fixtures.openalgo_installation import SCRIPT, WEEK, entry, install, realistic

EXCHANGES = ("NSE", "BSE", "NFO", "CDS", "MCX", "CRYPTO")
NOBODY = Here((), EXCHANGES)
HERE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9._-])?")


def one(root: Path, script: str | bytes = SCRIPT, **fields: Any) -> Hosted:
    """What this one strategy becomes."""
    install(root, {"one": entry("one", **fields)}, one=script)
    (hosted,) = read(root).strategies
    return hosted


def schedule(root: Path, **fields: Any) -> dict[str, Any] | None:
    hosted = one(root, **fields)
    return stored(hosted.schedule) if hosted.schedule else None


def planned(root: Path, here: Here = NOBODY, *, even_if_running: bool = False) -> list[Step]:
    return steps(read(root), here, even_if_running=even_if_running)


def as_it_is_here(hosted: Hosted, **fields: Any) -> dict[str, Any]:
    assert hosted.script is not None
    version = {"sha256": hosted.script.sha256}
    known = {"id": "x-1", "name": hosted.name, "version": version, "schedule": None, "run": None}
    return known | fields


# ---- what is carried over


def test_a_realistic_installation(tmp_path: Path) -> None:
    installation = read(realistic(tmp_path))
    found = {one.name: one for one in installation.strategies}
    assert list(found) == [
        *("EMA Crossover", "Straddle", "gold", "rupee"),
        *("bitcoin", "night", "open_end", "by_hand"),
    ]
    assert all(one.script and one.script.body == SCRIPT.encode() for one in found.values())
    assert [one.name for one in found.values() if one.held] == ["rupee"]
    assert "it ended there with an error: exit code 1" in found["rupee"].notes
    assert [one.name for one in found.values() if one.schedule is None] == ["by_hand"]
    assert found["EMA Crossover"].needs == ("HOST_SERVER", "OPENALGO_API_KEY")
    told = " ".join(installation.notes)
    assert "2 users there; here all become yours" in told
    assert "logs are not carried over: 1 in " in told
    assert "s3cret" not in repr(installation)


def test_the_folder_strategies_is_enough(tmp_path: Path) -> None:
    installation = read(realistic(tmp_path) / "strategies")
    assert len(installation.strategies) == 8
    assert installation.strategies[0].needs == ("OPENALGO_API_KEY",)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"start": "09:15", "stop": "15:30", "weekdays": WEEK[:5]}),
        ({"schedule_days": WEEK}, {"weekdays": WEEK}),
        ({"schedule_days": ["Fri", "MON", " mon "]}, {"weekdays": ["mon", "fri"]}),
        ({"schedule_days": []}, {"weekdays": WEEK[:5]}),
        ({"schedule_days": None}, {"weekdays": WEEK[:5]}),
        ({"schedule_stop": None}, {"stop": None}),
        ({"schedule_stop": ""}, {"stop": None}),
        ({"schedule_start": "9:5"}, {"start": "09:05"}),
        ({"exchange": " mcx ", "schedule_start": "17:00", "schedule_stop": "02:00"}, {
            "exchange": "MCX", "start": "17:00", "stop": "02:00"}),
        ({"exchange": None}, {"exchange": "NSE"}),
    ],
)  # fmt: skip
def test_a_schedule_on_a_segment_is_one_on_its_days(
    tmp_path: Path, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = schedule(tmp_path, **fields)
    assert found is not None
    assert found["kind"] == "market"
    assert found["timezone"] is None
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("start", "stop", "days", "expected"),
    [
        ("00:00", "23:59", WEEK, {"kind": "always"}),
        ("00:00", "23:59", WEEK[:5], {"cron": "0 0 * * 1,2,3,4,5", "stop": "23:59"}),
        ("21:00", "05:30", WEEK, {"cron": "0 21 * * *", "stop": "05:30"}),
        ("09:30", None, ["sun", "sat"], {"cron": "30 9 * * 6,0", "stop": None}),
    ],
)
def test_crypto_runs_by_the_days_and_times_of_india(
    tmp_path: Path, start: str, stop: str | None, days: list[str], expected: dict[str, Any]
) -> None:
    found = schedule(
        tmp_path, exchange="CRYPTO", schedule_start=start, schedule_stop=stop, schedule_days=days
    )
    assert found is not None
    assert {name: found[name] for name in expected} == expected
    assert found["kind"] == "always" or found["timezone"] == "Asia/Kolkata"


@pytest.mark.parametrize("value", [False, None])
def test_what_is_not_scheduled_gets_no_schedule(tmp_path: Path, value: Any) -> None:
    hosted = one(tmp_path, is_scheduled=value)
    assert (hosted.schedule, hosted.unclear) == (None, "")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"is_scheduled": "yes"}, 'is_scheduled is yes, neither true nor false'),
        ({"is_scheduled": 1}, "is_scheduled is 1, neither"),
        ({"schedule_start": None}, "it has no schedule_start"),
        ({"schedule_start": "25:00"}, "schedule_start is 25:00, no time of day"),
        ({"schedule_start": "9.15"}, "schedule_start is 9.15"),
        ({"schedule_start": 915}, "schedule_start is 915"),
        ({"schedule_stop": ["15:30"]}, "schedule_stop is"),
        ({"schedule_stop": "09:15"}, "both 09:15"),
        ({"schedule_days": "mon"}, "schedule_days is mon, not a list"),
        ({"schedule_days": ["mon", "someday"]}, "schedule_days names someday"),
        ({"schedule_days": [3]}, "schedule_days names 3"),
        ({"exchange": 5}, "it has no exchange"),
        ({"exchange": "एनएसई"}, "it has no exchange"),
        ({"exchange": "N" * 33}, "it has no exchange"),
    ],
)  # fmt: skip
def test_an_unclear_schedule_is_left_out_and_told(
    tmp_path: Path, fields: dict[str, Any], why: str
) -> None:
    hosted = one(tmp_path, **fields)
    assert hosted.schedule is None
    assert why in hosted.unclear
    (step,) = planned(tmp_path)
    assert (step.deed, step.schedule) == (Deed.CREATE, None)
    assert why in step.withheld


# ---- names


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("EMA 5/20 (live)", "EMA 5-20 -live-"),
        ("  Gold  ", "Gold"),
        ("निफ्टी EMA", "EMA"),
        ("N" * 80, "N" * 64),
        ("निफ्टी", "one"),
        ("", "one"),
        (None, "one"),
        (17, "one"),
    ],
)
def test_a_name_is_kept_as_near_as_can_be(tmp_path: Path, written: Any, expected: str) -> None:
    hosted = one(tmp_path, name=written)
    assert hosted.name.removesuffix("-") == expected.removesuffix("-")
    assert HERE_NAME.fullmatch(hosted.name)
    assert written == "  Gold  " or hosted.notes


def test_several_of_one_name_are_told_apart_always_alike(tmp_path: Path) -> None:
    names = ["EMA", "ema", "EMA-2", "EMA", "x" * 64, "X" * 64]
    install(tmp_path, {f"s{n}": entry(f"s{n}", name=name) for n, name in enumerate(names)})
    found = [hosted.name for hosted in read(tmp_path).strategies]
    assert found == ["EMA", "ema-3", "EMA-2", "EMA-4", "x" * 64, "X" * 62 + "-2"]
    assert [hosted.name for hosted in read(tmp_path).strategies] == found


# ---- scripts


@pytest.mark.parametrize(
    "written",
    [
        "strategies/scripts/one.py",
        "strategies\\scripts\\one.py",
        "/app/strategies/scripts/one.py",
        "C:\\openalgo\\strategies\\scripts\\one.py",
        None,
        "",
    ],
)
def test_a_script_is_found_wherever_it_was(tmp_path: Path, written: Any) -> None:
    assert one(tmp_path, file_path=written).script


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("../../etc/passwd", "outside of strategies/: it is left alone"),
        ("/etc/passwd", "outside"),
        ("strategies/../../secret.py", "outside"),
        ("strategies\\..\\..\\secret.py", "outside"),
        ("strategies/scripts/../../../secret.py", "outside"),
        ("C:\\Windows\\win.ini", "outside"),
        ("strategies/scripts/other.py", "the file is missing"),
        ("strategies/scripts", "no regular file"),
        ("strategies/scripts/\0.py", ""),
        ("strategies/scripts/" + "x" * 5000 + ".py", ""),
        ("strategies/scripts/\ud800.py", ""),
        (["strategies"], "not a text"),
        ({"a": 1}, "not a text"),
    ],
)
def test_no_file_is_read_but_a_script_of_its_own(tmp_path: Path, written: Any, why: str) -> None:
    (tmp_path / "secret.py").write_text("KEY = 1\n")
    hosted = one(tmp_path / "root", file_path=written)
    assert hosted.script is None
    assert hosted.obstacle.isprintable()
    assert why in hosted.obstacle
    (step,) = planned(tmp_path / "root")
    assert (step.deed, step.reason) == (Deed.REFUSE, hosted.obstacle)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_and_pipes_lead_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret.py"
    secret.write_text("KEY = 1\n")
    root = tmp_path / "root"
    keys = ("outside", "inside", "loop", "pipe")
    install(root, {key: entry(key) for key in keys})
    scripts = root / "strategies" / "scripts"
    for key in keys:
        (scripts / f"{key}.py").unlink()
    (scripts / "outside.py").symlink_to(secret)
    (scripts / "real.py").write_text(SCRIPT)
    (scripts / "inside.py").symlink_to("real.py")
    (scripts / "loop.py").symlink_to("loop.py")
    if sys.platform == "win32":
        (scripts / "pipe.py").mkdir()
    else:
        os.mkfifo(scripts / "pipe.py")
    found = {hosted.id: hosted for hosted in read(root).strategies}
    assert [key for key, hosted in found.items() if hosted.script] == ["inside"]
    assert "outside" in found["outside"].obstacle
    assert "no regular file" in found["pipe"].obstacle


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    install(tmp_path, {"one": entry("one")})
    with (tmp_path / "strategies/scripts/one.py").open("r+b") as file:
        file.truncate(MOST_SCRIPT_BYTES + 1)
    (hosted,) = read(tmp_path).strategies
    assert f"it has {MOST_SCRIPT_BYTES + 1} bytes" in hosted.obstacle


def test_a_script_that_does_not_compile_is_told_before_it_is_refused(tmp_path: Path) -> None:
    assert "(line 2, column 5)" in " ".join(one(tmp_path, "\nx = (\n").notes)
    assert "will be refused" in " ".join(one(tmp_path, b"x = '\xff'\n").notes)
    assert "will be refused" in " ".join(one(tmp_path, b"x\0y").notes)
    assert one(tmp_path, "(" * 1000 + ")" * 1000).script


def test_what_no_strategy_has_is_told(tmp_path: Path) -> None:
    install(tmp_path, {"one": entry("one")}, **dict.fromkeys("abcdefg", SCRIPT))
    (note,) = read(tmp_path).notes
    assert "a.py, b.py, c.py, d.py, e.py and 2 more in scripts/" in note


# ---- what there is already


def test_a_second_import_creates_nothing_twice(tmp_path: Path) -> None:
    hosted = one(tmp_path)
    here = as_it_is_here(hosted, name=hosted.name.upper(), schedule={"kind": "always"})
    (step,) = planned(tmp_path, Here([here], EXCHANGES))
    assert (step.deed, step.reason, step.strategy_id) == (Deed.SKIP, "exists already", "x-1")


def test_what_was_created_without_its_schedule_is_finished(tmp_path: Path) -> None:
    here = as_it_is_here(one(tmp_path))
    (step,) = planned(tmp_path, Here([here], EXCHANGES))
    assert step.deed is Deed.FINISH
    assert step.schedule is not None


def test_what_has_run_here_since_is_left_as_it_is(tmp_path: Path) -> None:
    here = as_it_is_here(one(tmp_path), run={"id": "r"})
    (step,) = planned(tmp_path, Here([here], EXCHANGES))
    assert step.deed is Deed.SKIP


def test_another_script_of_its_name_is_not_replaced_nor_doubled(tmp_path: Path) -> None:
    here = as_it_is_here(one(tmp_path), version={"sha256": "0" * 64})
    (step,) = planned(tmp_path, Here([here], EXCHANGES))
    assert step.deed is Deed.REFUSE
    assert "another script of this name here (x-1)" in step.reason


@pytest.mark.parametrize("value", [True, 1, "yes"])
def test_what_runs_there_is_not_scheduled_here_unless_that_is_wanted(
    tmp_path: Path, value: Any
) -> None:
    hosted = one(tmp_path, is_running=value, pid=4711)
    assert "it runs there now (pid 4711): stop it there first" in hosted.notes[0]
    (step,) = planned(tmp_path)
    assert (step.deed, step.schedule) == (Deed.CREATE, None)
    assert "two copies would trade" in step.withheld
    (again,) = planned(tmp_path, Here([as_it_is_here(hosted)], EXCHANGES))
    assert (again.deed, again.withheld) == (Deed.SKIP, step.withheld)
    (wanted,) = planned(tmp_path, even_if_running=True)
    assert wanted.schedule is not None
    one(tmp_path, is_running=False, pid=None)
    (later,) = planned(tmp_path, Here([as_it_is_here(hosted)], EXCHANGES))
    assert later.deed is Deed.FINISH


def test_an_exchange_that_no_calendar_knows_is_told(tmp_path: Path) -> None:
    one(tmp_path, exchange="NCDEX")
    (step,) = planned(tmp_path)
    assert (step.deed, step.exchange, step.schedule) == (Deed.CREATE, None, None)
    assert step.withheld == "the calendar here does not know NCDEX"
    (step,) = planned(tmp_path, Here((), ["nse", "ncdex"]))
    assert step.exchange == "NCDEX"


def test_a_market_that_never_closes_needs_no_calendar(tmp_path: Path) -> None:
    one(tmp_path, exchange="CRYPTO")
    (step,) = planned(tmp_path, Here((), ["NSE"]))
    assert step.schedule is not None


def test_variables_are_named_with_how_they_are_set(tmp_path: Path) -> None:
    hosted = one(tmp_path)
    assert options_for(hosted, ()) == "--secret OPENALGO_API_KEY"
    assert options_for(hosted, ["OPENALGO_API_KEY"]) == ""
    (tmp_path / ".env").write_bytes(b"export SYMBOL=x\n\xff\n# HOST_SERVER=y\nSTRATEGY_ID=z\n")
    (hosted,) = read(tmp_path).strategies
    assert options_for(hosted, ()) == "--secret OPENALGO_API_KEY --set SYMBOL=VALUE"


# ---- bringing it, to an Openbell that does not do what it should


class Elsewhere:
    """Answers as an Openbell does, as long as it is told to; and remembers what it was asked."""

    def __init__(self, **answers: httpx.Response | Exception) -> None:
        self.asked: list[str] = []
        self._answers = answers

    def answer(self, request: httpx.Request) -> httpx.Response:
        verb = request.url.path.split("/")[2]
        self.asked.append(verb)
        answer = self._answers.get(verb)
        if isinstance(answer, Exception):
            raise answer
        strategy = {"id": f"x-{len(self.asked)}", "intent": "stop" if verb == "stop" else "auto"}
        listed: list[Any] = [{"code": code, "names": ()} for code in EXCHANGES]
        known: Any = {"strategy": strategy, "strategies": [], "exchanges": listed, "note": None}
        return answer or httpx.Response(200, json=known)

    @contextlib.contextmanager
    def connect(self, url: str) -> Generator[Client]:
        with httpx.Client(base_url=url, transport=httpx.MockTransport(self.answer)) as http:
            yield Client(http)


def bring(
    monkeypatch: pytest.MonkeyPatch, root: Path, elsewhere: Elsewhere
) -> tuple[Result, list[str]]:
    """How the command ends, and what it tells of each strategy."""
    monkeypatch.setattr(client, "connect", elsewhere.connect)
    done = CliRunner().invoke(cli.app, ["import-openalgo", str(root), "--apply", "--json"])
    return done, [one["result"] for one in json.loads(done.stdout)["strategies"]]


def test_a_stop_comes_before_the_schedule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path, {"a": entry("a", manually_stopped=True), "b": entry("b")})
    elsewhere = Elsewhere()
    done, results = bring(monkeypatch, tmp_path, elsewhere)
    assert (done.exit_code, results) == (0, ["created", "created"])
    assert elsewhere.asked[2:] == ["upload", "stop", "schedule", "upload", "schedule"]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(503, json={"code": "service_unavailable", "title": "no scheduler"}),
        httpx.Response(202, json={"strategy": {"intent": "auto"}, "note": None}),
    ],
)
def test_a_stop_that_does_not_hold_leaves_it_without_a_schedule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: httpx.Response
) -> None:
    install(tmp_path, {"a": entry("a", manually_stopped=True)})
    elsewhere = Elsewhere(stop=answer)
    done, results = bring(monkeypatch, tmp_path, elsewhere)
    assert (done.exit_code, results) == (1, ["incomplete"])
    assert "schedule" not in elsewhere.asked


@pytest.mark.parametrize("verb", ["upload", "stop", "schedule"])
def test_an_openbell_that_goes_away_is_told_with_what_was_not_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str
) -> None:
    keys = ("a", "b", "c")
    install(tmp_path, {key: entry(key, manually_stopped=key == "a") for key in keys})
    elsewhere = Elsewhere(**{verb: httpx.ReadTimeout("gone")})
    done, results = bring(monkeypatch, tmp_path, elsewhere)
    assert isinstance(done.exception, Unreachable)
    assert results == ["incomplete", "not tried", "not tried"]
    assert elsewhere.asked[-1] == verb


# ---- whatever the files hold


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("\0", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "it is not a JSON object"),
        ("null", "it is not a JSON object"),
        ("1" * 5000, "is not JSON"),
    ],
)
def test_broken_configs_are_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(BadInstallation, match=why) as caught:
        read(install(tmp_path, text))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("path", ["nowhere", "file", "a\0b", "x" * 5000])
def test_what_is_no_installation_is_one_sentence(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInstallation) as caught:
        read(tmp_path / path)
    assert str(caught.value).isprintable()


def test_no_strategies_is_nothing_to_do(tmp_path: Path) -> None:
    assert planned(install(tmp_path, {})) == []


def test_an_entry_that_is_no_object_is_told(tmp_path: Path) -> None:
    install(tmp_path, {"a": None, "b": [1], "c": "x"})
    assert [step.deed for step in planned(tmp_path)] == [Deed.REFUSE] * 3


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
paths = st.sampled_from(
    ["strategies/scripts/one.py", "../x", "strategies/..", "/", "strategies", "strategies/\0"]
)
plausible = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text() | anything,
        "file_path": paths | anything,
        "file_name": st.sampled_from(["one.py", ".", "..", "a/b"]) | anything,
        "exchange": st.sampled_from([*EXCHANGES, "", "X" * 40]) | anything,
        "is_scheduled": st.booleans() | anything,
        "is_running": st.booleans() | anything,
        "is_error": st.booleans() | anything,
        "manually_stopped": st.booleans() | anything,
        "pid": anything,
        "user_id": anything,
        "error_message": anything,
        "schedule_start": st.from_regex(r"\d{1,2}:\d{1,2}", fullmatch=True) | anything,
        "schedule_stop": st.from_regex(r"\d{1,2}:\d{1,2}", fullmatch=True) | anything,
        "schedule_days": st.lists(st.sampled_from(WEEK)) | anything,
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(), plausible | anything, max_size=4), st.booleans(), st.binary())
def test_whatever_the_configs_hold_reading_ends_in_a_plan(
    configs: dict[str, Any], even_if_running: bool, script: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = install(Path(folder), json.dumps(configs), one=script)
        found = planned(root, even_if_running=even_if_running)
    assert len(found) == len(configs)
    names = [step.hosted.name for step in found]
    assert len({name.casefold() for name in names}) == len(names)
    for step in found:
        assert HERE_NAME.fullmatch(step.hosted.name)
        assert all(note.isprintable() for note in (*step.hosted.notes, step.withheld, step.reason))
        assert step.schedule is None or not step.withheld
        assert not (step.hosted.running and step.schedule and not even_if_running)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8")))
@settings(max_examples=200, deadline=None)
def test_whatever_the_file_holds_reading_ends(body: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = install(Path(folder), {})
        (root / "strategies" / "strategy_configs.json").write_bytes(body)
        with contextlib.suppress(BadInstallation):
            read(root)


@given(anything)
def test_anything_can_be_shown(value: Any) -> None:
    assert shown(value).isprintable()
