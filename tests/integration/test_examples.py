"""Traders copy the examples, so each must trade, survive its server and stop cleanly.

Each tells its whole story once on every interpreter. What can go wrong is a longer list, and most
of it is waiting (for imports, for the package's own time-outs): those cases run side by side, each
against a server of its own, and are reported one by one.
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.fixtures.default_environment import default_environment, newer_interpreter
from tests.fixtures.openalgo_server import OpenAlgoServer, openalgo_server

EXAMPLES = Path(__file__).parents[2] / "strategies/examples"
CALL, PUT = "NIFTY29DEC2624000CE", "NIFTY29DEC2624000PE"
PROMPT = 4.5  # seconds that a stop may take: it waits for no time-out, and the package's last 5
SIDE_BY_SIDE = 3  # with a story, as many as two cores keep up with

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


class Script:
    def __init__(self, python: Path, name: str, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [python, EXAMPLES / name],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def wait_for(self, text: str, times: int = 1, timeout: float = 30) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self.output.count(text) >= times, timeout):
                raise TimeoutError(f"no {text!r} within {timeout} s in:\n{self.output}")

    def exit_code(self, timeout: float = 30) -> int:
        code = self._process.wait(timeout)
        self._reader.join()
        return code

    def send(self, stop: signal.Signals) -> None:
        self._process.send_signal(stop)

    def stop(self, stop: signal.Signals = signal.SIGTERM) -> None:
        started = time.monotonic()
        self.send(stop)
        code = self.exit_code()
        took = time.monotonic() - started
        assert code == 0, self.output
        assert "Traceback" not in self.output
        assert took < PROMPT

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()


class Stage:
    """An interpreter, an OpenAlgo, and the scripts that one test runs there."""

    def __init__(self, python: Path, server: OpenAlgoServer) -> None:
        self.server = server
        self._python = python
        self._scripts: list[Script] = []

    def run(self, name: str, **variables: str) -> Script:
        env = {
            "OPENALGO_API_KEY": self.server.api_key,
            "HOST_SERVER": self.server.url,
            "WEBSOCKET_URL": self.server.ws_url,
            "SIGNAL_CHECK_INTERVAL": "0.1",
            "RECONNECT_SECONDS": "0.1",
        }
        self._scripts.append(Script(self._python, name, env | variables))
        return self._scripts[-1]

    def sides(self) -> list[tuple[str, int | None]]:
        return [(order.action, order.position_size) for order in self.server.orders]

    def end(self) -> None:
        for script in self._scripts:
            script.end()


@contextmanager
def staged(python: Path, *, absent: bool = False) -> Generator[Stage]:
    """With `absent`, nothing listens where the server was."""
    with ExitStack() as server_is_there:
        stage = Stage(python, server_is_there.enter_context(openalgo_server()))
        if absent:
            server_is_there.close()
        try:
            yield stage
        finally:
            stage.end()


# ---- the whole story, on every interpreter


@pytest.fixture(scope="module", params=["default", "newer"])
def python(request: pytest.FixtureRequest, strategy_python: Path) -> Path:
    if request.param == "default":
        return strategy_python
    interpreter = newer_interpreter()
    if interpreter is None:
        pytest.skip("no Python 3.12 or newer beside this one")
    return default_environment(interpreter)


@pytest.fixture
def stage(python: Path) -> Generator[Stage]:
    with staged(python) as stage:
        yield stage


@pytest.fixture
def stop(python: Path, strategy_python: Path) -> signal.Signals:
    """The first rung of Openbell's ladder here, the second there; the cases below send it too."""
    return signal.SIGINT if python == strategy_python else signal.SIGTERM


def test_ema_crossover_trades_each_cross_and_closes_when_stopped(
    stage: Stage, stop: signal.Signals
) -> None:
    variables = {"SYMBOL": "INFY", "QUANTITY": "10", "STRATEGY_NAME": "Mine"}
    script = stage.run("ema_crossover.py", **variables)
    script.wait_for("nothing to do")
    assert not stage.server.orders

    stage.server.trend("up")
    bought = stage.server.wait_for_order()
    assert bought.endpoint == "placesmartorder"
    assert bought.body == {
        "strategy": "Mine",
        "symbol": "INFY",
        "action": "BUY",
        "exchange": "NSE",
        "pricetype": "MARKET",
        "product": "MIS",
        "quantity": "10",
        "position_size": "10",
    }
    stage.server.trend("down")
    stage.server.wait_for_order(lambda order: order.position_size == -10)
    script.wait_for("SELL to a position of -10")

    script.stop(stop)
    assert stage.sides() == [("BUY", 10), ("SELL", -10), ("BUY", 0)]
    assert stage.server.position("INFY", "NSE") == 0


def test_short_straddle_sells_both_legs_and_closes_them_when_stopped(
    stage: Stage, stop: signal.Signals
) -> None:
    script = stage.run("short_straddle.py", LOTS="2", STRATEGY_NAME="Mine")
    script.wait_for("premium 200.00")
    assert stage.server.orders[0].body == {
        "strategy": "Mine",
        "symbol": CALL,
        "action": "SELL",
        "exchange": "NFO",
        "pricetype": "MARKET",
        "product": "MIS",
        "quantity": "150",
        "position_size": "-150",
    }
    script.stop(stop)
    assert stage.sides() == [("SELL", -150), ("SELL", -150), ("BUY", 0), ("BUY", 0)]
    assert held(stage) == (0, 0)


def test_tick_logger_prints_ticks_connects_again_and_says_goodbye(
    stage: Stage, stop: signal.Signals
) -> None:
    script = stage.run("tick_logger.py", SYMBOL="INFY,TCS")
    script.wait_for("following INFY, TCS")
    stage.server.push_tick("TCS", 4101.5)
    stage.server.push_tick("INFY", 1502.25)
    stage.server.push_tick("WIPRO", 250.0)
    script.wait_for("NSE:INFY 1502.25")
    assert "NSE:TCS 4101.5" in script.output
    assert "WIPRO" not in script.output

    stage.server.hang_up()
    script.wait_for("following INFY, TCS", times=2)
    stage.server.push_tick("INFY", 1503.0)
    script.wait_for("NSE:INFY 1503.0")

    script.stop(stop)
    assert script.output.count("NSE:INFY") == 2
    stage.server.wait_for_request(lambda request: request.path == "ws/unsubscribe")


# ---- what can go wrong, on the default interpreter

CASES: dict[str, Callable[[Path], None]] = {}


def case(*, absent: bool = False, **arguments: str | float) -> Callable[..., Callable[..., None]]:
    """Makes a case of a function that is given a stage, and `arguments`."""

    def register(play: Callable[..., None]) -> Callable[..., None]:
        def staged_play(python: Path) -> None:
            with staged(python, absent=absent) as stage:
                play(stage, **arguments)

        CASES["-".join((play.__name__, *map(str, arguments.values())))] = staged_play
        return play

    return register


@pytest.fixture(scope="module", autouse=True)
def outcomes(strategy_python: Path) -> Generator[dict[str, Future[None]]]:
    """The cases begin before the stories, and play beside them."""
    pool = ThreadPoolExecutor(SIDE_BY_SIDE)
    yield {name: pool.submit(play, strategy_python) for name, play in CASES.items()}
    pool.shutdown(cancel_futures=True)


def held(stage: Stage) -> tuple[int, int]:
    return stage.server.position(CALL, "NFO"), stage.server.position(PUT, "NFO")


# Those that wait for seconds come first, beside all others.


@case()
def ema_crossover_calls_a_position_that_cannot_be_closed_an_error(stage: Stage) -> None:
    script = stage.run("ema_crossover.py")
    script.wait_for("nothing to do")
    stage.server.trend("up")
    script.wait_for("BUY to a position of 1")
    stage.server.refuse("placesmartorder", "session expired")
    script.send(signal.SIGTERM)
    assert script.exit_code() == 1
    assert script.output.count("session expired") == 5
    assert "look at your positions now" in script.output


@case(name="short_straddle.py", says="Invalid openalgo apikey")
@case(name="ema_crossover.py", says="Invalid openalgo apikey")
@case(name="tick_logger.py", says="does not accept the key")
def a_wrong_key_is_named(stage: Stage, name: str, says: str) -> None:
    script = stage.run(name, OPENALGO_API_KEY="wrong")
    script.wait_for(says)
    script.stop()
    assert not stage.server.orders


@case(absent=True, name="short_straddle.py", says="Failed to connect")
@case(absent=True, name="tick_logger.py", says="does not answer")
def an_absent_server_does_not_delay_a_stop(stage: Stage, name: str, says: str) -> None:
    script = stage.run(name)
    script.wait_for(says)
    script.stop()


@case(absent=True)
def ema_crossover_waits_for_its_server(stage: Stage) -> None:
    script = stage.run("ema_crossover.py")
    script.wait_for("Failed to connect to the server", times=2)
    with openalgo_server(stage.server.port):
        script.wait_for("nothing to do")
        script.stop()


@case(absent=True)
def a_stop_interrupts_a_long_sleep(stage: Stage) -> None:
    script = stage.run("ema_crossover.py", SIGNAL_CHECK_INTERVAL="60")
    script.wait_for("trying again in 60 s")
    script.stop()


@case()
def ema_crossover_goes_on_with_the_position_that_it_finds(stage: Stage) -> None:
    stage.server.trend("up")
    stage.server.hold("RELIANCE", "NSE", -5)
    script = stage.run("ema_crossover.py", QUANTITY="5")
    script.wait_for("BUY to a position of 5")
    script.stop()
    assert stage.sides() == [("BUY", 5), ("SELL", 0)]


@case()
def ema_crossover_repeats_a_refused_order_and_waits_for_candles(stage: Stage) -> None:
    stage.server.trend("none")
    script = stage.run("ema_crossover.py", OPENALGO_STRATEGY_EXCHANGE="BSE")
    script.wait_for("No data available", times=2)
    stage.server.trend("flat")
    script.wait_for("nothing to do")
    stage.server.refuse("placesmartorder", "margin shortfall")
    stage.server.trend("up")
    script.wait_for("margin shortfall", times=2)
    stage.server.accept("placesmartorder")
    assert stage.server.wait_for_order().exchange == "BSE"
    script.wait_for("BUY to a position of 1")
    script.stop()
    assert stage.sides() == [("BUY", 1), ("SELL", 0)]


@case()
def a_stop_cuts_no_order_short(stage: Stage) -> None:
    script = stage.run("ema_crossover.py")
    script.wait_for("nothing to do")
    stage.server.delay("placesmartorder", 0.4)
    stage.server.trend("up")
    stage.server.wait_for_request(lambda request: request.body.get("position_size") == "1")
    script.send(signal.SIGINT)
    stage.server.wait_for_request(lambda request: request.body.get("position_size") == "0")
    script.stop()
    assert stage.sides() == [("BUY", 1), ("SELL", 0)]
    assert stage.server.position("RELIANCE", "NSE") == 0


@case(price=151.0, reason="stop")
@case(price=0.5, reason="target")
def short_straddle_closes_at_its(stage: Stage, price: float, reason: str) -> None:
    script = stage.run("short_straddle.py")
    script.wait_for("premium 200.00")
    stage.server.set_price(CALL, price)
    stage.server.set_price(PUT, 99.0)
    assert script.exit_code() == 0
    assert f"{price + 99:.2f}: {reason}" in script.output
    assert held(stage) == (0, 0)


@case()
def short_straddle_goes_on_with_the_legs_that_it_finds(stage: Stage) -> None:
    script = stage.run("short_straddle.py")
    script.wait_for("premium 200.00")
    script.end()
    stage.server.set_price("NIFTY", 24_500.0)
    script = stage.run("short_straddle.py")
    script.wait_for("premium 200.00")
    script.stop()
    assert len(stage.server.orders) == 4
    assert held(stage) == (0, 0)


@case()
def short_straddle_closes_one_leg_when_the_other_is_refused(stage: Stage) -> None:
    stage.server.refuse("placesmartorder", "margin shortfall", symbol=PUT)
    script = stage.run("short_straddle.py")
    assert script.exit_code() == 1
    assert "margin shortfall" in script.output
    assert held(stage) == (0, 0)


@case(absent=True, name="ema_crossover.py")
@case(absent=True, name="short_straddle.py")
@case(absent=True, name="tick_logger.py")
def a_missing_key_is_named(stage: Stage, name: str) -> None:
    script = stage.run(name, OPENALGO_API_KEY="")
    assert script.exit_code() == 1
    assert script.output.startswith("OPENALGO_API_KEY is not set")


@pytest.mark.parametrize("name", CASES)
def test_case(outcomes: dict[str, Future[None]], name: str) -> None:
    outcomes[name].result()


def test_every_example_is_tried_without_its_key() -> None:
    tried = {name.rpartition("-")[2] for name in CASES if name.startswith("a_missing_key")}
    assert tried == {path.name for path in EXAMPLES.glob("*.py")}
