"""Short straddle: sells the at-the-money call and put, and buys both back at a stop or a target.

Give it a schedule: it sells as soon as it starts and closes both legs when it is stopped. The
premium that it watches is the sum of both prices; stop and target are percentages of the sum it
sold at. A restart goes on with the two legs that it finds, so let no other strategy sell options
of the same underlying, expiry and product.

Reads OPENALGO_API_KEY (required), HOST_SERVER, STRATEGY_NAME, UNDERLYING, UNDERLYING_EXCHANGE,
OPTIONS_EXCHANGE, EXPIRY_DATE (like 28OCT25; else the nearest), LOTS, PRODUCT, STOPLOSS and TARGET
(percent), SIGNAL_CHECK_INTERVAL (seconds); defaults are below.
"""

import contextlib
import logging
import os
import signal
import sys
import time

from openalgo import api

API_KEY = os.getenv("OPENALGO_API_KEY")
HOST = os.getenv("HOST_SERVER", "http://127.0.0.1:5000")
UNDERLYING = os.getenv("UNDERLYING", "NIFTY")
UNDERLYING_EXCHANGE = os.getenv("UNDERLYING_EXCHANGE", "NSE_INDEX")
EXCHANGE = os.getenv("OPTIONS_EXCHANGE", "NFO")
EXPIRY = os.getenv("EXPIRY_DATE")
LOTS = int(os.getenv("LOTS", "1"))
PRODUCT = os.getenv("PRODUCT", "MIS")
STOPLOSS = float(os.getenv("STOPLOSS", "25"))
TARGET = float(os.getenv("TARGET", "50"))
INTERVAL = float(os.getenv("SIGNAL_CHECK_INTERVAL", "5"))
STRATEGY = os.getenv("STRATEGY_NAME", "Short Straddle")

log = logging.getLogger("short_straddle")


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
    if answer.get("status") != "success":
        raise RuntimeError(answer.get("message", answer))
    return answer


def until_answered(question):
    while True:
        try:
            return question()
        except Exception as problem:
            log.warning("%s; trying again in %g s", problem, INTERVAL)
            time.sleep(INTERVAL)


class Straddle:
    def __init__(self, client):
        self.client = client
        self.legs = []

    def open(self):
        expiry = EXPIRY or until_answered(self.nearest_expiry)
        found = until_answered(lambda: self.shorts(UNDERLYING + expiry))
        if len(found) not in {0, 2}:
            raise RuntimeError(f"0 or 2 open legs expected; these are for you to close: {found}")
        self.legs = list(found)
        if not found:
            for option in until_answered(lambda: self.at_the_money(expiry)):
                self.sell(option["symbol"], LOTS * int(option["lotsize"]))

    def nearest_expiry(self):
        dates = checked(
            self.client.expiry(symbol=UNDERLYING, exchange=EXCHANGE, instrumenttype="options")
        )["data"]
        return dates[0].replace("-", "")

    def at_the_money(self, expiry):
        wanted = {"underlying": UNDERLYING, "exchange": UNDERLYING_EXCHANGE, "expiry_date": expiry}
        return [
            checked(self.client.optionsymbol(**wanted, offset="ATM", option_type=option_type))
            for option_type in ("CE", "PE")
        ]

    def shorts(self, *prefixes):
        """Prices at which open short positions of our product were sold, by symbol."""
        return {
            position["symbol"]: float(position["average_price"])
            for position in checked(self.client.positionbook())["data"]
            if position["symbol"].startswith(prefixes)
            and position["product"] == PRODUCT
            and float(position["quantity"]) < 0
        }

    def sell(self, symbol, quantity):
        self.legs.append(symbol)
        with undisturbed():
            answer = self.order(symbol, "SELL", quantity=quantity, position_size=-quantity)
        log.info("SELL %d %s: order %s", quantity, symbol, answer.get("orderid"))

    def order(self, symbol, action, **sizes):
        """A smart order names the position to reach, so repeating one never doubles it."""
        trade = {"strategy": STRATEGY, "exchange": EXCHANGE, "product": PRODUCT, "symbol": symbol}
        return checked(self.client.placesmartorder(**trade, action=action, **sizes))

    def watch(self):
        sold_at = self.sold_at()
        stop, target = sold_at * (1 + STOPLOSS / 100), sold_at * (1 - TARGET / 100)
        log.info("sold at %.2f: stop %.2f, target %.2f", sold_at, stop, target)
        while target < (premium := until_answered(self.premium)) < stop:
            log.info("premium %.2f", premium)
            time.sleep(INTERVAL)
        log.info("premium %.2f: %s", premium, "stop" if premium >= stop else "target")

    def sold_at(self):
        for _ in range(20):  # a broker may take a moment to fill, or refuse one leg after all
            filled = until_answered(lambda: self.shorts(*self.legs))
            if len(filled) == 2:
                return sum(filled.values())
            time.sleep(0.5)
        raise RuntimeError(f"both legs were ordered, but only these are open: {list(filled)}")

    def premium(self):
        quotes = [self.client.quotes(symbol=leg, exchange=EXCHANGE) for leg in self.legs]
        return sum(float(checked(quote)["data"]["ltp"]) for quote in quotes)

    def close(self):
        if not self.legs:
            return True
        for _ in range(5):
            try:
                for leg in self.shorts(*self.legs):
                    # With quantity 0 a smart order can close a position but never open one.
                    answer = self.order(leg, "BUY", quantity=0, position_size=0)
                    log.info("BUY closes %s: order %s", leg, answer.get("orderid"))
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
    straddle = Straddle(api(API_KEY, host=HOST, timeout=10))
    try:
        straddle.open()
        straddle.watch()
    except KeyboardInterrupt:
        log.info("stopping")
    finally:
        on_stop_signals(signal.SIG_IGN)  # a second signal must not cut the closing short
        closed = straddle.close()
    sys.exit(not closed)


if __name__ == "__main__":
    main()
