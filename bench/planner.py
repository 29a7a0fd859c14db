"""The plans of 10,000 strategies, each with a schedule of its own: what is wanted, what comes next.

Seconds are of processor time. A tenth each are cron and interval schedules, the others market
schedules with times of their own.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from bench.figure import Figure
from openbell.contracts.schedules import SCHEDULE, AnySchedule
from services.calendar.days import list_sessions
from services.calendar.sessions import segments
from services.scheduler.days import LOOK_BACK, Known
from services.scheduler.planner import LOOK_AHEAD, plan

STRATEGIES = 10_000
BUDGET_S = 1.0
NOW = datetime(2026, 11, 19, 5, 30, tzinfo=UTC)
SEGMENTS = ("NSE", "NFO", "MCX", "CDS")


def measure() -> Iterator[Figure]:
    first, last = (NOW - LOOK_BACK).date(), (NOW + LOOK_AHEAD).date()
    known = {
        segment: Known(list_sessions(segments()[segment], first, last)) for segment in SEGMENTS
    }
    schedules = [SCHEDULE.validate_python(_spec(number)) for number in range(STRATEGIES)]
    cold = _plan_all(schedules, known, NOW)
    warm = _plan_all(schedules, known, NOW + timedelta(seconds=15))
    yield Figure(f"plans of {STRATEGIES}, never planned before", cold, BUDGET_S, "s", 1)
    yield Figure(f"plans of {STRATEGIES}, 15 s later", warm, BUDGET_S, "s", 1)


def _plan_all(schedules: list[AnySchedule], known: dict[str, Known], now: datetime) -> float:
    since = now - timedelta(days=30)
    began = time.process_time()
    for schedule in schedules:
        exchange = getattr(schedule, "exchange", None)
        found = plan(schedule, since, known.get(exchange or ""), now)
        assert found.next_start is not None
    return time.process_time() - began


def _spec(number: int) -> dict[str, Any]:
    minute, hour = number % 60, 9 + number // 60 % 5
    match number % 10:
        case 0:
            cron = f"{minute} {hour} * * 1-5"
            return {"kind": "cron", "cron": cron, "timezone": "Asia/Kolkata", "duration": "1h"}
        case 1:
            return {"kind": "interval", "every": f"{5 + minute}m", "exchange": "NSE"}
        case _:
            exchange = SEGMENTS[number % len(SEGMENTS)]
            start = f"{hour:02}:{minute:02}:{number % 59:02}"
            return {"kind": "market", "exchange": exchange, "start": start, "stop": "close-5m"}
