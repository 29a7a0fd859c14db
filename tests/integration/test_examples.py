"""Traders copy the examples, so each must trade, survive its server and stop cleanly."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures.default_environment import default_environment
from tests.fixtures.openalgo_server import OpenAlgoServer, openalgo_server

EXAMPLES = Path(__file__).parents[2] / "strategies/examples"
PROMPT = 1.0  # seconds that a stop may take

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
stop_signals = pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])

Run = Callable[..., "Script"]


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

    def wait_for(self, text: str, times: int = 1, timeout: float = 15) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self.output.count(text) >= times, timeout):
                raise TimeoutError(f"no {text!r} within {timeout} s in:\n{self.output}")

    def exit_code(self, timeout: float = 15) -> int:
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


def newer_interpreter() -> Path | None:
    """The newest Python from 3.12 on beside this one: there `openalgo` is 2.x."""
    versions = Path(sys.base_prefix).parent.glob("*3.[1-9][0-9]*/bin/python3.[1-9][0-9]")
    minors = {int(python.name.removeprefix("python3.")): python for python in versions}
    newest = max(minors, default=0)
    return minors[newest] if newest >= 12 else None


@pytest.fixture(scope="module", params=["default", "newer"])
def python(request: pytest.FixtureRequest, strategy_python: Path) -> Path:
    if request.param == "default":
        return strategy_python
    interpreter = newer_interpreter()
    if interpreter is None:
        pytest.skip("no Python 3.12 or newer beside this one")
    return default_environment(interpreter)


@pytest.fixture
def run() -> Iterator[Run]:
    scripts: list[Script] = []

    def start(python: Path, name: str, server: OpenAlgoServer, **variables: str) -> Script:
        env = {
            "OPENALGO_API_KEY": server.api_key,
            "HOST_SERVER": server.url,
            "WEBSOCKET_URL": server.ws_url,
            "SIGNAL_CHECK_INTERVAL": "0.1",
            "RECONNECT_SECONDS": "0.1",
        }
        scripts.append(Script(python, name, env | variables))
        return scripts[-1]

    yield start
    for script in scripts:
        script.end()


@pytest.fixture
def absent_server() -> OpenAlgoServer:
    with openalgo_server() as server:
        return server


class TestEmaCrossover:
    @stop_signals
    def test_trades_each_cross_and_closes_when_stopped(
        self, run: Run, python: Path, openalgo: OpenAlgoServer, stop: signal.Signals
    ) -> None:
        script = run(
            python, "ema_crossover.py", openalgo, SYMBOL="INFY", QUANTITY="10", STRATEGY_NAME="Mine"
        )
        script.wait_for("nothing to do")
        assert not openalgo.orders

        openalgo.trend("up")
        bought = openalgo.wait_for_order()
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
        openalgo.trend("down")
        openalgo.wait_for_order(lambda order: order.position_size == -10)
        script.wait_for("SELL to a position of -10")

        script.stop(stop)
        assert sides(openalgo) == [("BUY", 10), ("SELL", -10), ("BUY", 0)]
        assert openalgo.position("INFY", "NSE") == 0

    def test_goes_on_with_the_position_that_it_finds(
        self, run: Run, strategy_python: Path, openalgo: OpenAlgoServer
    ) -> None:
        openalgo.trend("up")
        openalgo.hold("RELIANCE", "NSE", -5)
        script = run(strategy_python, "ema_crossover.py", openalgo, QUANTITY="5")
        script.wait_for("BUY to a position of 5")
        script.stop()
        assert sides(openalgo) == [("BUY", 5), ("SELL", 0)]

    def test_repeats_a_refused_order_and_waits_for_candles(
        self, run: Run, strategy_python: Path, openalgo: OpenAlgoServer
    ) -> None:
        openalgo.trend("none")
        script = run(
            strategy_python, "ema_crossover.py", openalgo, OPENALGO_STRATEGY_EXCHANGE="BSE"
        )
        script.wait_for("No data available", times=2)
        openalgo.trend("flat")
        script.wait_for("nothing to do")
        openalgo.refuse("placesmartorder", "margin shortfall")
        openalgo.trend("up")
        script.wait_for("margin shortfall", times=2)
        openalgo.accept("placesmartorder")
        assert openalgo.wait_for_order().exchange == "BSE"
        script.wait_for("BUY to a position of 1")
        script.stop()
        assert sides(openalgo) == [("BUY", 1), ("SELL", 0)]

    def test_a_stop_cuts_no_order_short(
        self, run: Run, strategy_python: Path, openalgo: OpenAlgoServer
    ) -> None:
        script = run(strategy_python, "ema_crossover.py", openalgo)
        script.wait_for("nothing to do")
        openalgo.delay("placesmartorder", 0.4)
        openalgo.trend("up")
        openalgo.wait_for_request(lambda request: request.body.get("position_size") == "1")
        script.send(signal.SIGINT)
        openalgo.wait_for_request(lambda request: request.body.get("position_size") == "0")
        script.stop()
        assert sides(openalgo) == [("BUY", 1), ("SELL", 0)]
        assert openalgo.position("RELIANCE", "NSE") == 0

    def test_a_position_that_cannot_be_closed_is_an_error(
        self, run: Run, strategy_python: Path, openalgo: OpenAlgoServer
    ) -> None:
        script = run(strategy_python, "ema_crossover.py", openalgo)
        script.wait_for("nothing to do")
        openalgo.trend("up")
        script.wait_for("BUY to a position of 1")
        openalgo.refuse("placesmartorder", "session expired")
        script.send(signal.SIGTERM)
        assert script.exit_code() == 1
        assert script.output.count("session expired") == 5
        assert "look at your positions now" in script.output

    def test_waits_for_its_server(
        self, run: Run, strategy_python: Path, absent_server: OpenAlgoServer
    ) -> None:
        script = run(strategy_python, "ema_crossover.py", absent_server)
        script.wait_for("Failed to connect to the server", times=2)
        with openalgo_server(absent_server.port):
            script.wait_for("nothing to do")
            script.stop()

    def test_a_stop_interrupts_a_long_sleep(
        self, run: Run, strategy_python: Path, absent_server: OpenAlgoServer
    ) -> None:
        script = run(strategy_python, "ema_crossover.py", absent_server, SIGNAL_CHECK_INTERVAL="60")
        script.wait_for("trying again in 60 s")
        script.stop()


class TestShortStraddle:
    CALL, PUT = "NIFTY29DEC2624000CE", "NIFTY29DEC2624000PE"

    @stop_signals
    def test_sells_both_legs_and_closes_them_when_stopped(
        self, run: Run, python: Path, openalgo: OpenAlgoServer, stop: signal.Signals
    ) -> None:
        script = run(python, "short_straddle.py", openalgo, LOTS="2", STRATEGY_NAME="Mine")
        script.wait_for("premium 200.00")
        assert openalgo.orders[0].body == {
            "strategy": "Mine",
            "symbol": self.CALL,
            "action": "SELL",
            "exchange": "NFO",
            "pricetype": "MARKET",
            "product": "MIS",
            "quantity": "150",
            "position_size": "-150",
        }
        script.stop(stop)
        assert sides(openalgo) == [("SELL", -150), ("SELL", -150), ("BUY", 0), ("BUY", 0)]
        assert openalgo.position(self.CALL, "NFO") == openalgo.position(self.PUT, "NFO") == 0

    @pytest.mark.parametrize(("price", "reason"), [(151.0, "stop"), (0.5, "target")])
    def test_closes_at_the_stop_and_at_the_target(
        self, run: Run, strategy_python: Path, openalgo: OpenAlgoServer, price: float, reason: str
    ) -> None:
        script = run(strategy_python, "short_straddle.py", openalgo)
        script.wait_for("premium 200.00")
        openalgo.set_price(self.CALL, price)
        openalgo.set_price(self.PUT, 99.0)
        assert script.exit_code() == 0
        assert f"{price + 99:.2f}: {reason}" in script.output
        assert openalgo.position(self.CALL, "NFO") == openalgo.position(self.PUT, "NFO") == 0

    def test_a_restart_goes_on_with_the_legs_that_it_finds(
        self, run: Run, strategy_python: Path, openalgo: OpenAlgoServer
    ) -> None:
        script = run(strategy_python, "short_straddle.py", openalgo)
        script.wait_for("premium 200.00")
        script.end()
        openalgo.set_price("NIFTY", 24_500.0)
        script = run(strategy_python, "short_straddle.py", openalgo)
        script.wait_for("premium 200.00")
        script.stop()
        assert len(openalgo.orders) == 4
        assert openalgo.position(self.CALL, "NFO") == openalgo.position(self.PUT, "NFO") == 0

    def test_a_leg_that_is_refused_closes_the_other(
        self, run: Run, strategy_python: Path, openalgo: OpenAlgoServer
    ) -> None:
        openalgo.refuse("placesmartorder", "margin shortfall", symbol=self.PUT)
        script = run(strategy_python, "short_straddle.py", openalgo)
        assert script.exit_code() == 1
        assert "margin shortfall" in script.output
        assert openalgo.position(self.CALL, "NFO") == 0


class TestTickLogger:
    @stop_signals
    def test_prints_ticks_and_says_goodbye(
        self, run: Run, python: Path, openalgo: OpenAlgoServer, stop: signal.Signals
    ) -> None:
        script = run(python, "tick_logger.py", openalgo, SYMBOL="INFY,TCS")
        script.wait_for("following INFY, TCS")
        openalgo.push_tick("TCS", 4101.5)
        openalgo.push_tick("INFY", 1502.25)
        openalgo.push_tick("WIPRO", 250.0)
        script.wait_for("NSE:INFY 1502.25")
        assert "NSE:TCS 4101.5" in script.output
        assert "WIPRO" not in script.output
        script.stop(stop)
        openalgo.wait_for_request(lambda request: request.path == "ws/unsubscribe")

    def test_connects_again(self, run: Run, python: Path, openalgo: OpenAlgoServer) -> None:
        script = run(python, "tick_logger.py", openalgo)
        script.wait_for("following RELIANCE")
        openalgo.hang_up()
        script.wait_for("following RELIANCE", times=2)
        openalgo.push_tick("RELIANCE", 1400.0)
        script.wait_for("NSE:RELIANCE 1400.0")
        script.stop()
        assert script.output.count("NSE:RELIANCE") == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ema_crossover.py", "Invalid openalgo apikey"),
        ("short_straddle.py", "Invalid openalgo apikey"),
        ("tick_logger.py", "does not accept the key"),
    ],
)
def test_a_wrong_key_is_named(
    run: Run, strategy_python: Path, openalgo: OpenAlgoServer, name: str, says: str
) -> None:
    script = run(strategy_python, name, openalgo, OPENALGO_API_KEY="wrong")
    script.wait_for(says)
    script.stop()
    assert not openalgo.orders


@pytest.mark.parametrize("name", ["short_straddle.py", "tick_logger.py"])
def test_an_absent_server_does_not_delay_a_stop(
    run: Run, strategy_python: Path, absent_server: OpenAlgoServer, name: str
) -> None:
    script = run(strategy_python, name, absent_server)
    script.wait_for("does not answer" if name == "tick_logger.py" else "Failed to connect")
    script.stop()


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_a_missing_key_is_named(
    run: Run, strategy_python: Path, absent_server: OpenAlgoServer, example: Path
) -> None:
    script = run(strategy_python, example.name, absent_server, OPENALGO_API_KEY="")
    assert script.exit_code() == 1
    assert script.output.startswith("OPENALGO_API_KEY is not set")


def sides(server: OpenAlgoServer) -> list[tuple[str, int | None]]:
    return [(order.action, order.position_size) for order in server.orders]
