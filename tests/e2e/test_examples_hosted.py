"""Our examples as a trader hosts them: the real product, the real package, an OpenAlgo that tells.

Every order must arrive, the closing one above all, and the log and the events must tell the story.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.default_environment import default_environment, newer_interpreter
from tests.fixtures.openalgo_server import OpenAlgoServer, Order, openalgo_server
from tests.fixtures.stack import (
    OPENBELL,
    Stack,
    end_all,
    eventually,
    processes_of,
    start_one_process,
)

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "strategies/examples"
OPTIONS = ["NIFTY29DEC2624000CE", "NIFTY29DEC2624000PE"]
WAIT_S = 20  # that a request for more of a log may last
KINDS = ["intent_changed", "run_granted", "run_started", "run_stopping", "run_exited"]


STUCK = """
import sys, time
try:
    print("trading")
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit("not closed: look at your positions")
"""


@dataclass
class Floor:
    """An Openbell, and the OpenAlgo that its host's variables name."""

    openbell: Stack
    openalgo: OpenAlgoServer

    def upload(self, example: str, name: str, grace_s: str = "15", **parameters: str) -> str:
        """Upload an example for NSE as it is in the repository. Returns the strategy's id."""
        wanted = {"OPENALGO_API_KEY": self.openalgo.api_key, "SIGNAL_CHECK_INTERVAL": "0.1"}
        return self.openbell.upload(
            (EXAMPLES / example).read_text(),
            name,
            exchange="NSE",
            stop_grace_s=grace_s,
            parameters=wanted | parameters,
        )

    def start(self, strategy: str) -> None:
        answer = self.openbell.post(f"/python/start/{strategy}", params={"wait": 20})
        assert answer["strategy"]["status"] == "running"

    def stop(self, strategy: str) -> dict[str, Any]:
        """Stop it over HTTP. Returns its run, which has ended well."""
        answer = self.openbell.post(f"/python/stop/{strategy}", params={"wait": 20})
        view = answer["strategy"]
        assert (view["status"], view["reason"]) == ("stopped", "stopped by hand")
        assert (view["run"]["state"], view["run"]["reason"]) == ("exited", "stopped_by_user")
        assert (view["run"]["exit_code"], view["run"]["signal"]) == (0, None)
        return view["run"]

    def delete(self, strategy: str) -> None:
        self.openbell.http.delete(f"/python/delete/{strategy}").raise_for_status()

    def orders(self, name: str) -> list[Order]:
        return [order for order in self.openalgo.orders if order.strategy == name]

    def sides(self, name: str) -> list[tuple[str, int | None]]:
        return [(order.action, order.position_size) for order in self.orders(name)]

    def wait_for_order(self, name: str, position_size: int) -> Order:
        return self.openalgo.wait_for_order(
            lambda order: (order.strategy, order.position_size) == (name, position_size),
            timeout=30,
        )


def open_floor(home: Path, openalgo: OpenAlgoServer, python: Path, **settings: str) -> Floor:
    variables = {"HOST_SERVER": openalgo.url, "WEBSOCKET_URL": openalgo.ws_url}
    stack = start_one_process(
        home,
        OPENBELL_RUNNER__PYTHON=str(python),
        OPENBELL_RUNNER__ENVIRONMENT=json.dumps(variables),
        **settings,
    )
    return Floor(stack, openalgo)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, strategy_python: Path) -> Generator[Floor]:
    home = tmp_path_factory.mktemp("examples") / "home"
    try:
        with openalgo_server() as openalgo:
            floor = open_floor(home, openalgo, strategy_python)
            yield floor
            assert floor.openbell.stop() == [0]
            assert processes_of(home) == []
    finally:
        end_all(home)


@pytest.fixture
def newest_python(strategy_python: Path) -> Path:
    """Where there is none beside the base interpreter, that one again."""
    interpreter = newer_interpreter()
    return default_environment(interpreter) if interpreter else strategy_python


@pytest.fixture
def floor(shared: Floor) -> Floor:
    """The one that most tests share; they tell their orders apart by the strategy's name."""
    shared.openalgo.trend("flat")
    return shared


def test_ema_crossover_from_upload_to_its_closing_order(floor: Floor) -> None:
    the_ema_story(floor)


def the_ema_story(floor: Floor) -> None:
    openbell = floor.openbell
    with openbell.events() as events:
        strategy = floor.upload("ema_crossover.py", "My EMA", SYMBOL="INFY", QUANTITY="10")
        assert openbell.status(strategy)["parameters"] == [
            *("OPENALGO_API_KEY", "QUANTITY", "SIGNAL_CHECK_INTERVAL", "SYMBOL")
        ]
        floor.start(strategy)
        openbell.wait_log(strategy, "nothing to do")
        assert floor.orders("My EMA") == []

        floor.openalgo.trend("up")
        bought = floor.wait_for_order("My EMA", 10)
        assert (bought.symbol, bought.exchange, bought.product) == ("INFY", "NSE", "MIS")
        floor.openalgo.trend("down")
        floor.wait_for_order("My EMA", -10)
        openbell.wait_log(strategy, "SELL to a position of -10")

        run = floor.stop(strategy)
        seen = [(kind, data) for kind, data in until_exited(events, strategy) if kind in KINDS]
    assert floor.sides("My EMA") == [("BUY", 10), ("SELL", -10), ("BUY", 0)]
    assert floor.openalgo.position("INFY", "NSE") == 0
    assert floor.orders("My EMA")[-1].at <= instant(run["exited_at"]).timestamp()

    log = openbell.log(strategy)
    assert in_order(
        log,
        "starting with a position of 0 INFY",
        "BUY to a position of 10: order",
        "SELL to a position of -10: order",
        "stopping",
        "BUY closes -10: order",
    ), log
    assert log.endswith(f"order {floor.orders('My EMA')[-1].id}\n")
    assert "Traceback" not in log

    assert [kind for kind, _ in seen] == [*KINDS[:3], KINDS[0], *KINDS[3:]]
    exited = seen[-1][1]
    assert (exited["run_id"], exited["reason"]) == (run["id"], "stopped_by_user")
    assert (exited["exit_code"], exited["signal"], exited["retry_at"]) == (0, None, None)
    told = json.dumps([log, seen, openbell.status(strategy)])
    assert floor.openalgo.api_key not in told
    floor.delete(strategy)


def test_short_straddle_sells_at_its_scheduled_start_and_closes_at_its_stop(floor: Floor) -> None:
    openbell = floor.openbell
    with openbell.events() as events:
        strategy = floor.upload("short_straddle.py", "My straddle", LOTS="2")
        start = in_seconds(2)
        view = set_window(openbell, strategy, start, start + timedelta(minutes=10))
        assert view["status"] == "starting"  # so near, it is prepared at once
        assert instant(view["run"]["due_at"]) == start

        openbell.wait_log(strategy, "premium 200.00")
        legs = floor.orders("My straddle")
        assert [order.symbol for order in legs] == OPTIONS
        assert [order.body["position_size"] for order in legs] == ["-150", "-150"]
        assert legs[0].at >= start.timestamp()
        view = openbell.status(strategy)
        assert (view["status"], view["reason"]) == ("running", "started by its schedule")
        assert instant(view["run"]["due_at"]) == start

        stop = in_seconds(2)
        view = set_window(openbell, strategy, start, stop)
        assert instant(view["next_stop"]) == stop
        kinds = dict(until_exited(events, strategy))
    closing = floor.orders("My straddle")[2:]
    assert sorted(order.symbol for order in closing) == OPTIONS
    assert {(order.action, order.position_size) for order in closing} == {("BUY", 0)}
    assert closing[0].at >= stop.timestamp()
    assert [floor.openalgo.position(option, "NFO") for option in OPTIONS] == [0, 0]

    assert (kinds["run_granted"]["cause"], "intent_changed" in kinds) == ("schedule", False)
    assert kinds["run_exited"]["reason"] == "stopped_by_schedule"
    view = openbell.wait_status(strategy, "scheduled")
    assert (view["run"]["reason"], view["run"]["exit_code"]) == ("stopped_by_schedule", 0)
    assert instant(view["next_start"]) == start + timedelta(days=1)
    sold, bought = (f"{side} {leg}" for side, leg in (("SELL 150", OPTIONS[0]), ("BUY closes", "")))
    log = openbell.log(strategy)
    assert in_order(log, sold, "sold at 200.00", "stopping", bought, bought), log
    floor.delete(strategy)


def test_tick_logger_is_followed_while_it_prints(floor: Floor) -> None:
    strategy = floor.upload("tick_logger.py", "My ticks", SYMBOL="INFY,TCS")
    floor.start(strategy)
    log = Followed(floor.openbell, strategy)
    log.read_until("following INFY, TCS")
    for symbol, price in (("TCS", 4101.5), ("INFY", 1502.25), ("INFY", 1502.5)):
        floor.openalgo.push_tick(symbol, price)
        floor.openalgo.push_tick("WIPRO", price)
        log.read_until(f"NSE:{symbol} {price}\n")
    floor.stop(strategy)
    log.read_to_the_end()
    assert log.text.endswith(" stopped\n")
    assert log.text == floor.openbell.log(strategy)
    assert log.text.count("NSE:") == 3
    floor.openalgo.wait_for_request(lambda request: request.path == "ws/unsubscribe")
    floor.delete(strategy)


def test_a_wrong_key_is_in_the_log_and_costs_no_order(floor: Floor) -> None:
    """They go on trying, as they would with a server that is away: to Openbell, they run."""
    ids = [
        floor.upload(example, f"Wrong key {example}", OPENALGO_API_KEY="wr0ng")
        for example in ("ema_crossover.py", "short_straddle.py")
    ]
    for strategy in ids:
        floor.start(strategy)
    for strategy in ids:
        log = floor.openbell.wait_log(strategy, "Invalid openalgo apikey")
        assert "wr0ng" not in log
        view = floor.openbell.status(strategy)
        assert (view["status"], view["reason"]) == ("running", "started by hand")
        floor.stop(strategy)
        floor.delete(strategy)
    assert not [order for order in floor.openalgo.orders if order.strategy.startswith("Wrong key")]


def test_a_closing_that_failed_is_told(floor: Floor) -> None:
    strategy = start_stuck(floor)
    view = floor.openbell.post(f"/python/stop/{strategy}", params={"wait": 20})["strategy"]
    assert view["status"] == "stopped"
    tells_that_closing_failed(floor, strategy)


def test_a_closing_that_failed_is_told_when_a_schedule_is_overruled(floor: Floor) -> None:
    strategy = start_stuck(floor)
    now = datetime.now(UTC)
    set_window(floor.openbell, strategy, now - timedelta(hours=1), now + timedelta(hours=1))
    view = floor.openbell.post(f"/python/stop/{strategy}", params={"wait": 20})["strategy"]
    assert view["status"] == "paused"
    tells_that_closing_failed(floor, strategy)


def test_a_closing_that_failed_is_told_when_a_schedule_stopped_it(floor: Floor) -> None:
    strategy = floor.openbell.upload(STUCK, "Stuck")
    now = datetime.now(UTC)
    set_window(floor.openbell, strategy, now - timedelta(hours=1), now + timedelta(hours=1))
    floor.openbell.wait_log(strategy, "trading")
    set_window(floor.openbell, strategy, now + timedelta(hours=1), now + timedelta(hours=2))
    view = floor.openbell.wait_status(strategy, "scheduled")
    assert view["run"]["reason"] == "stopped_by_schedule"
    tells_that_closing_failed(floor, strategy)


def start_stuck(floor: Floor) -> str:
    strategy = floor.openbell.upload(STUCK, "Stuck")
    floor.start(strategy)
    floor.openbell.wait_log(strategy, "trading")
    return strategy


def tells_that_closing_failed(floor: Floor, strategy: str) -> None:
    view = floor.openbell.status(strategy)
    log = floor.openbell.log(strategy)
    floor.delete(strategy)
    assert view["run"]["exit_code"] == 1
    assert log.endswith("not closed: look at your positions\n")
    assert "exit code 1" in view["reason"]


def test_what_was_stopped_and_started_by_hand_was_started_by_you(floor: Floor) -> None:
    strategy = start_stuck(floor)
    floor.openbell.post(f"/python/stop/{strategy}", params={"wait": 20})
    answer = floor.openbell.post(f"/python/start/{strategy}", params={"wait": 20})
    floor.openbell.http.delete(f"/python/delete/{strategy}", params={"stop": True})
    assert answer["strategy"]["reason"] == "started by hand"


def test_nobody_waits_for_more_of_a_log_whose_run_has_ended(floor: Floor) -> None:
    strategy = floor.openbell.upload("print('done')", "Done")
    floor.openbell.post(f"/python/start/{strategy}")
    floor.openbell.wait_status(strategy, "stopped")
    path = f"/python/logs/{strategy}"
    chunk = floor.openbell.http.get(path).json()
    assert chunk["ended"]
    asked = time.monotonic()
    floor.openbell.http.get(path, params={"offset": chunk["size"], "wait": 2})
    floor.delete(strategy)
    assert time.monotonic() - asked < 2


def test_what_the_readme_says_works(floor: Floor) -> None:
    """Every command in its blocks, in its order."""
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```", (EXAMPLES / "README.md").read_text())
    commands = [line for block in blocks for line in block.splitlines()]
    assert {command.split()[0] for command in commands} == {"openbell"}
    environment = {
        "PATH": f"{OPENBELL.parent}{os.pathsep}{os.environ['PATH']}",
        "OPENBELL_URL": floor.openbell.url,
        "OPENBELL_HOME": str(floor.openbell.home),
        "XDG_CONFIG_HOME": str(floor.openbell.home),
        "OPENALGO_API_KEY": floor.openalgo.api_key,
    }
    for command in commands:
        done = subprocess.run(
            command, check=False, shell=True, cwd=ROOT, env=environment, capture_output=True
        )
        assert done.returncode == 0, (command, done.stderr)
    uploaded = floor.openbell.http.get("/python/").json()["strategies"]
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {view["name"] for view in uploaded}
    for view in uploaded:
        floor.openbell.http.delete(f"/python/delete/{view['id']}", params={"stop": True})


def test_the_readme_names_every_variable_that_an_example_reads() -> None:
    text = (EXAMPLES / "README.md").read_text()
    for example in EXAMPLES.glob("*.py"):
        for name in re.findall(r'os\.getenv\("(\w+)"', example.read_text()):
            assert f"`{name}`" in text, (example.name, name)


def test_a_missing_key_is_a_crash_that_names_it(floor: Floor) -> None:
    source = (EXAMPLES / "ema_crossover.py").read_text()
    strategy = floor.openbell.upload(source, "Keyless", restart="never")
    floor.openbell.post(f"/python/start/{strategy}")
    view = floor.openbell.wait_status(strategy, "crashed")
    assert view["reason"].startswith("crashed with exit code 1: OPENALGO_API_KEY is not set")
    assert (view["run"]["reason"], view["run"]["exit_code"]) == ("crashed", 1)
    floor.delete(strategy)


def test_the_newest_python_trades_too_and_ctrl_c_of_openbell_closes_its_position(
    home: Path, openalgo: OpenAlgoServer, newest_python: Path
) -> None:
    floor = open_floor(home, openalgo, newest_python)
    the_ema_story(floor)
    openalgo.trend("flat")
    trades_on_after_ctrl_c(floor, newest_python)


def trades_on_after_ctrl_c(floor: Floor, python: Path) -> None:
    home, openalgo = floor.openbell.home, floor.openalgo
    strategy = floor.upload("ema_crossover.py", "Overnight", SYMBOL="SBIN")
    floor.start(strategy)
    floor.openbell.wait_log(strategy, "nothing to do")
    openalgo.trend("up")
    floor.wait_for_order("Overnight", 1)
    floor.openbell.wait_log(strategy, "BUY to a position of 1")
    assert floor.openbell.stop(signal.SIGINT) == [0]
    assert floor.sides("Overnight") == [("BUY", 1), ("SELL", 0)]  # before Openbell ended
    assert openalgo.position("SBIN", "NSE") == 0
    assert processes_of(home) == []

    floor = open_floor(home, openalgo, python)
    view = eventually(
        lambda: v if (v := floor.openbell.status(strategy))["run"]["epoch"] == 2 else None,
        lambda: str(floor.openbell.status(strategy)),
    )
    assert view["run"]["cause"] == "resume"
    first = floor.openbell.http.get(f"/python/runs/{strategy}").json()[1]
    assert (first["reason"], first["exit_code"]) == ("host_shutdown", 0)
    assert in_order(floor.openbell.log(strategy, first["id"]), "stopping", "SELL closes 1: order")

    floor.openbell.wait_log(strategy, "nothing to do")
    openalgo.trend("down")
    floor.wait_for_order("Overnight", -1)
    floor.stop(strategy)
    assert floor.sides("Overnight")[2:] == [("SELL", -1), ("BUY", 0)]
    assert floor.openbell.stop(signal.SIGINT) == [0]


def test_ctrl_c_of_openbell_gives_a_strategy_its_own_grace(
    home: Path, openalgo: OpenAlgoServer, strategy_python: Path
) -> None:
    floor = open_floor(home, openalgo, strategy_python, OPENBELL_RUNNER__STOP_GRACE_S="0.5")
    strategy = floor.upload("ema_crossover.py", "Slow", SYMBOL="SBIN", grace_s="20")
    floor.start(strategy)
    floor.openbell.wait_log(strategy, "nothing to do")
    openalgo.trend("up")
    floor.openbell.wait_log(strategy, "BUY to a position of 1")
    openalgo.delay("placesmartorder", 1)
    assert floor.openbell.stop(signal.SIGINT) == [0]
    log = home / "log" / "strategies" / strategy / f"{strategy}-1.log"
    assert "SELL closes 1: order" in log.read_text()


class Followed:
    """A log read as `openbell logs --follow` reads it: from where the last answer ended."""

    def __init__(self, openbell: Stack, strategy: str) -> None:
        self.text = ""
        self._openbell = openbell
        self._path = f"/python/logs/{strategy}"
        self._offset = 0

    def read_until(self, text: str) -> None:
        """Each answer must come with what is new, not when the time to wait is over."""
        while text not in self.text:
            asked = time.monotonic()
            assert self._read()["content"], f"{text!r} is not in {self.text!r}"
            assert time.monotonic() - asked < WAIT_S / 2

    def read_to_the_end(self) -> None:
        while not ((chunk := self._read())["ended"] and self._offset == chunk["size"]):
            pass

    def _read(self) -> dict[str, Any]:
        params = {"offset": self._offset, "wait": WAIT_S}
        chunk = self._openbell.http.get(self._path, params=params).raise_for_status().json()
        assert chunk["offset"] == self._offset
        self.text += chunk["content"]
        self._offset = chunk["next_offset"]
        return chunk


def until_exited(
    events: Iterator[tuple[str, str, Any]], strategy: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is told of this strategy, up to the end of its run."""
    for _, kind, data in events:
        if data.get("strategy_id") == strategy:
            yield kind, data
            if kind == "run_exited":
                return


def set_window(openbell: Stack, strategy: str, start: datetime, stop: datetime) -> dict[str, Any]:
    schedule = {"kind": "market", "exchange": "CRYPTO"}
    times = {"start": f"{start:%H:%M:%S}", "stop": f"{stop:%H:%M:%S}"}
    return openbell.post(f"/python/schedule/{strategy}", json=schedule | times)["strategy"]


def in_seconds(seconds: int) -> datetime:
    """A whole second, at least so far away."""
    return datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds + 1)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def in_order(text: str, *parts: str) -> bool:
    place = 0
    for part in parts:
        place = text.find(part, place) + len(part)
        if place < len(part):
            return False
    return True
