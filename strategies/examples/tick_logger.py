"""Tick logger: prints every traded price of one or more symbols as it arrives.

Connects again when the feed is lost; unsubscribes and disconnects when it is stopped.

Reads OPENALGO_API_KEY (required), HOST_SERVER, WEBSOCKET_URL, SYMBOL (several: RELIANCE,INFY),
EXCHANGE (else OPENALGO_STRATEGY_EXCHANGE), RECONNECT_SECONDS; defaults are below.
"""

import os
import signal
import sys
import time

from openalgo import api

API_KEY = os.getenv("OPENALGO_API_KEY")
HOST = os.getenv("HOST_SERVER", "http://127.0.0.1:5000")
FEED = os.getenv("WEBSOCKET_URL", "ws://127.0.0.1:8765")
EXCHANGE = os.getenv("EXCHANGE") or os.getenv("OPENALGO_STRATEGY_EXCHANGE") or "NSE"
INSTRUMENTS = [
    {"exchange": EXCHANGE, "symbol": symbol.strip()}
    for symbol in os.getenv("SYMBOL", "RELIANCE").split(",")
]
RECONNECT_SECONDS = float(os.getenv("RECONNECT_SECONDS", "2"))

stops = []


def on_stop(*_):
    stops.append(True)  # remembered, for websocket-client swallows exceptions while it closes
    raise KeyboardInterrupt


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


def on_tick(tick):
    say(f"{tick['exchange']}:{tick['symbol']} {tick['data']['ltp']}")


def follow():
    """Prints ticks until the connection ends."""
    client = api(API_KEY, host=HOST, ws_url=FEED)
    client.auto_reconnect = False  # 2.x of the package could, 1.x cannot; this serves both
    try:
        if client.connect() and client.subscribe_ltp(INSTRUMENTS, on_data_received=on_tick):
            say(f"following {', '.join(one['symbol'] for one in INSTRUMENTS)} on {FEED}")
            while client.connected:
                time.sleep(0.2)
            say("the connection was lost")
        elif client.connected:
            say(f"{FEED} does not accept the key in OPENALGO_API_KEY")
        else:
            say(f"{FEED} does not answer")
    finally:
        client.unsubscribe_ltp(INSTRUMENTS)
        if client.ws:
            client.ws.close(timeout=0)  # `disconnect` would wait for seconds


def main():
    if not API_KEY:
        sys.exit("OPENALGO_API_KEY is not set: copy the key from your OpenAlgo's API key page")
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # the last is how Windows hosts stop a script
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), on_stop)
    try:
        while not stops:
            follow()
            time.sleep(RECONNECT_SECONDS)
    except KeyboardInterrupt:
        pass
    say("stopped")


if __name__ == "__main__":
    main()
