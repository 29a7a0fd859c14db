"""EMA crossover: buys when the fast average crosses above the slow one, sells when below.

Looks at the finished candles every few seconds and trades when the averages have changed sides
since the last look. Stopping it (Ctrl-C, or its host's stop) closes the position. A restart goes
on with the position it finds, so let no other strategy trade the same symbol and product.

Reads OPENALGO_API_KEY (required), HOST_SERVER, STRATEGY_NAME, SYMBOL, EXCHANGE (else
OPENALGO_STRATEGY_EXCHANGE), PRODUCT, QUANTITY, FAST_EMA_PERIOD, SLOW_EMA_PERIOD,
CANDLE_TIMEFRAME, LOOKBACK_DAYS, SIGNAL_CHECK_INTERVAL (seconds); defaults are below.
"""

import contextlib
import logging
import os
import signal
import sys
import time

import pandas as pd
from openalgo import api

API_KEY = os.getenv("OPENALGO_API_KEY")
HOST = os.getenv("HOST_SERVER", "http://127.0.0.1:5000")
SYMBOL = os.getenv("SYMBOL", "RELIANCE")
EXCHANGE = os.getenv("EXCHANGE") or os.getenv("OPENALGO_STRATEGY_EXCHANGE") or "NSE"
PRODUCT = os.getenv("PRODUCT", "MIS")
QUANTITY = int(os.getenv("QUANTITY", "1"))
FAST = int(os.getenv("FAST_EMA_PERIOD", "9"))
SLOW = int(os.getenv("SLOW_EMA_PERIOD", "21"))
TIMEFRAME = os.getenv("CANDLE_TIMEFRAME", "5m")
LOOKBACK = pd.Timedelta(days=int(os.getenv("LOOKBACK_DAYS", "5")))
INTERVAL = float(os.getenv("SIGNAL_CHECK_INTERVAL", "5"))
STRATEGY = os.getenv("STRATEGY_NAME", "EMA Crossover")
TRADE = {"strategy": STRATEGY, "symbol": SYMBOL, "exchange": EXCHANGE, "product": PRODUCT}

log = logging.getLogger("ema_crossover")


def on_stop_signals(handler):
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # the last is how Windows hosts stop a script
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)


@contextlib.contextmanager
def undisturbed():
    """Holds a stop back until the order's answer is here: one cut off could fill unseen."""
    stops = []
    on_stop_signals(lambda *_: stops.append(True))
    try:
        yield
    finally:
        on_stop_signals(signal.default_int_handler)
        if stops:
            raise KeyboardInterrupt


def checked(answer):
    """The package returns failures as dictionaries; this raises them."""
    if isinstance(answer, dict) and answer.get("status") != "success":
        raise RuntimeError(answer.get("message", answer))
    return answer


class Crossover:
    def __init__(self, client):
        self.client = client
        self.side = None  # of the slow average that the fast one was on: 1 above, -1 below
        self.candle = None
        self.may_hold = False

    def run(self):
        while True:
            try:
                if self.side is None:
                    self.resume()
                self.look()
            except Exception as problem:
                log.warning("%s; trying again in %g s", problem, INTERVAL)
            time.sleep(INTERVAL)

    def resume(self):
        held = self.held()
        log.info("starting with a position of %d %s", held, SYMBOL)
        self.may_hold = held != 0
        self.side = (held > 0) - (held < 0)

    def look(self):
        candle, fast, slow = self.averages()
        side = (fast > slow) - (fast < slow)
        if self.side and side == -self.side:
            log.info("%s: fast %.2f crossed slow %.2f", candle, fast, slow)
            self.move_to(side * QUANTITY)
        elif candle != self.candle:
            log.info("%s: fast %.2f, slow %.2f, nothing to do", candle, fast, slow)
        # Only now: a refused order leaves the side as it was, and the next look tries again.
        self.side, self.candle = side or self.side, candle

    def averages(self):
        today = pd.Timestamp.now("Asia/Kolkata")
        days = {"start_date": f"{today - LOOKBACK:%Y-%m-%d}", "end_date": f"{today:%Y-%m-%d}"}
        candles = checked(
            self.client.history(symbol=SYMBOL, exchange=EXCHANGE, interval=TIMEFRAME, **days)
        )
        closes = candles["close"].iloc[:-1]  # the last candle is still moving
        if len(closes) < SLOW:
            raise RuntimeError(f"{len(closes)} finished candles, {SLOW} needed")
        fast, slow = (closes.ewm(span=span, adjust=False).mean() for span in (FAST, SLOW))
        return closes.index[-1], float(fast.iloc[-1]), float(slow.iloc[-1])

    def held(self):
        return int(float(checked(self.client.openposition(**TRADE))["quantity"]))

    def move_to(self, target):
        action = "BUY" if target > 0 else "SELL"
        self.may_hold = True
        with undisturbed():
            answer = self.order(action, quantity=abs(target), position_size=target)
        log.info("%s to a position of %d: order %s", action, target, answer.get("orderid"))

    def order(self, action, **sizes):
        """A smart order names the position to reach, so repeating one never doubles it."""
        return checked(self.client.placesmartorder(**TRADE, action=action, **sizes))

    def square_off(self):
        if not self.may_hold:
            return True
        for _ in range(5):
            try:
                held = self.held()
                if held:
                    # With quantity 0 a smart order can close a position but never open one.
                    action = "SELL" if held > 0 else "BUY"
                    answer = self.order(action, quantity=0, position_size=0)
                    log.info("%s closes %d: order %s", action, held, answer.get("orderid"))
                return True
            except Exception as problem:
                log.warning("not closed: %s", problem)
                time.sleep(1)
        log.error("gave up closing: look at your positions now")
        return False


def main():
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s")
    log.setLevel(logging.INFO)
    if not API_KEY:
        sys.exit("OPENALGO_API_KEY is not set: copy the key from your OpenAlgo's API key page")
    on_stop_signals(signal.default_int_handler)
    crossover = Crossover(api(API_KEY, host=HOST, timeout=10))
    try:
        crossover.run()
    except KeyboardInterrupt:
        on_stop_signals(signal.SIG_IGN)  # a second signal must not cut the closing short
        log.info("stopping")
        sys.exit(not crossover.square_off())


if __name__ == "__main__":
    main()
