"""Variables in a real database: sealed there, opened for their run, masked ever after."""

import asyncio
import base64
import contextlib
import json
import sqlite3
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Engine, event
from sqlmodel import select

from openbell import sealing
from openbell.bus import Bus
from openbell.contracts.base import utc_now
from openbell.contracts.commands import GetRunEnvironment, RunVariables
from openbell.contracts.errors import (
    InvalidRequest,
    LogWithheld,
    SealBroken,
    SecretInUse,
    ServiceUnavailable,
    UnknownRun,
    UnknownSecret,
    UnknownStrategy,
)
from openbell.contracts.logs import GetLogSecrets, LogChunk, ReadLog
from openbell.contracts.model import Role, RunnerInfo, RunState, Scope
from openbell.db import migrate
from openbell.db.models import ApiOutbox, AuditEntry, Run, Strategy, Variable
from openbell.db.session import Database
from openbell.identity import Caller
from openbell.outbox import Outbox
from openbell.redaction import Mask
from openbell.sealing import RunnerKey
from services.api.acts import Act, StrategyAct
from services.api.logs import Logs
from services.api.uploads import MOST_BYTES, MOST_VARIABLES, Given
from services.api.variables import rotation, vault
from services.api.variables.delivery import Delivery
from services.api.variables.keyring import Keyring
from services.api.variables.masks import Masks
from services.api.variables.rotation import Resealed, Rotation
from services.api.variables.sealed import size
from services.api.variables.vault import Vault
from services.runner.logs import log_file
from services.runner.logs.reading import Reader
from services.runner.logs.runlog import LogBook
from services.runner.logs.secrets import Secrets as LogSecretsOf
from tests.fixtures import databases
from tests.fixtures.nats import NatsServer

NOW = datetime(2026, 8, 3, 3, 45, tzinfo=UTC)
NO_BUS = cast("Bus", None)
KEY = "kite-live-0a1b2c3d4e"
PIN = "pin-471108"
PAPER = "kite-paper-9z8y7x"
ONE, TWO = (base64.urlsafe_b64encode(bytes([n]) * 32).decode() for n in (1, 2))


class Process:
    """What serves variables, with one process's keys."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self.keyring = keyring
        self.vault = Vault(database, Outbox(ApiOutbox, database, NO_BUS), keyring)
        self.masks = Masks(database, keyring)
        self.rotation = Rotation(database, keyring)
        self.delivery = Delivery(NO_BUS, database, keyring, self.masks)

    async def mask(self, owner: str, strategy_id: str) -> Mask:
        """What hides the secrets of a strategy."""
        return Mask((await self.masks.of(owner, strategy_id)).values)


class Home(Process):
    """A database, a key file, and a process on them; `reopened` is another one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = databases.migrated(folder / "openbell.db")
        self.database = Database(self.url)
        self.keys = folder / "keys"
        super().__init__(self.database, Keyring.of(None, self.keys))

    def reopened(self, setting: str | None = None) -> Process:
        return Process(self.database, Keyring.of(setting, self.keys))

    async def add(
        self, name: str, given: Given, *, owner: str = "ann", run: str | None = "local"
    ) -> None:
        """A strategy, of which `name-1` runs on this runner."""
        async with self.database.write() as session:
            session.add(
                Strategy(id=name, owner=owner, name=name, name_key=name, version=1, created_at=NOW)
            )
            await self.vault.add(session, owner, name, given)
            if run is not None:
                session.add(
                    Run(
                        id=f"{name}-1",
                        strategy_id=name,
                        owner=owner,
                        epoch=1,
                        runner=run,
                        state=RunState.RUNNING,
                        version=1,
                        granted_at=utc_now(),
                    )
                )

    async def found(self, name: str, process: Process | None = None) -> RunVariables:
        return await (process or self).delivery.for_run(f"{name}-1", 1, "local")

    async def run(self, name: str) -> Run:
        async with self.database.read() as session:
            run = await session.get(Run, f"{name}-1")
        assert run is not None
        return run

    async def rows(self) -> list[Variable]:
        async with self.database.read() as session:
            return list((await session.exec(select(Variable))).all())

    async def audit(self) -> list[AuditEntry]:
        async with self.database.read() as session:
            return list((await session.exec(select(AuditEntry))).all())

    def execute(self, statement: str, **values: Any) -> None:
        databases.execute(self.url, statement, **values)

    def holds(self, value: str) -> list[str]:
        """The files, and in PostgreSQL the tables, in which it can be read."""
        files = [file for file in self.folder.rglob("*") if file.is_file()]
        found = [file.name for file in files if value.encode() in file.read_bytes()]
        return found + databases.tables_with(self.url, value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncGenerator[Home]:
    home = Home(folder)
    try:
        yield home
    finally:
        await home.database.close()


def caller(user: str = "ann") -> Caller:
    return Caller(user, user, Role.TRADER, frozenset(Scope), "c1", {})


def act(user: str = "ann") -> Act:
    return Act(caller(user), "set_own_variables", "127.0.0.1", "r1")


def on(strategy_id: str, *, owner: str = "ann", user: str = "ann") -> StrategyAct:
    strategy: Any = SimpleNamespace(id=strategy_id)
    return StrategyAct(
        caller(user), "set_strategy_variables", "127.0.0.1", "r1", strategy=strategy, owner=owner
    )


async def brokers(home: Home) -> None:
    """Two brokers, two keys; one parameter for everything."""
    own = Given(parameters={"REGION": "IN"}, secrets={"kite-live": KEY, "kite-paper": PAPER})
    await home.vault.change_own(act(), own)


def test_a_run_sees_what_its_owner_set_and_nothing_else(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await brokers(home)
            await home.vault.change_own(act("bob"), Given(parameters={"OTHERS": "x"}))
            given = Given(
                parameters={"SYMBOL": "SBIN"}, secrets={"PIN": PIN}, uses={"API_KEY": "kite-paper"}
            )
            await home.add("ema", given)
            await home.add("plain", Given(parameters={"REGION": "US"}))
            found = await home.found("ema")
            assert found.variables == {
                "REGION": "IN",
                "SYMBOL": "SBIN",
                "PIN": PIN,
                "API_KEY": PAPER,
            }
            assert found.secrets == {"PIN", "API_KEY"}
            assert found.earlier == ()
            plain = await home.found("plain")
            assert (plain.variables, plain.secrets) == ({"REGION": "US"}, frozenset())

    asyncio.run(scenario())


def test_another_use_is_another_broker_at_the_next_start(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await brokers(home)
            await home.add("ema", Given(uses={"API_KEY": "kite-paper"}))
            await home.vault.change(on("ema"), Given(uses={"API_KEY": "kite-live"}))
            found = await home.found("ema")
            assert found.variables["API_KEY"] == KEY
            assert found.earlier == (PAPER,)  # the run that is live may still hold it
            await home.vault.change_own(act(), Given(secrets={"kite-live": "kite-live-anew"}))
            found = await home.found("ema")
            assert found.variables["API_KEY"] == "kite-live-anew"
            assert set(found.earlier) == {PAPER, KEY}
            await home.vault.change(on("ema"), Given(remove=("API_KEY",)))
            assert "API_KEY" not in (await home.found("ema")).variables

    asyncio.run(scenario())


def test_what_is_not_named_stays_and_a_kind_may_change(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await home.add("ema", Given(parameters={"A": "1", "B": "2"}, secrets={"PIN": PIN}))
            await home.vault.change(
                on("ema"), Given(parameters={"A": "3"}, secrets={"B": "four"}, remove=("C",))
            )
            rows = await home.vault.variables("ann", "ema")
            assert [(row.name, row.kind) for row in rows] == [
                ("A", "parameter"),
                ("B", "secret"),
                ("PIN", "secret"),
            ]
            found = await home.found("ema")
            assert found.variables == {"A": "3", "B": "four", "PIN": PIN}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ("UPDATE run SET epoch = 2", UnknownRun),
        ("UPDATE run SET runner = 'other'", UnknownRun),
        ("UPDATE run SET state = 'exited'", UnknownRun),
        ("UPDATE variable SET sealed = :planted", SealBroken),
        ("UPDATE variable SET sealed = substr(sealed, 1, 20)", SealBroken),
        ("UPDATE variable SET name = 'PIN2' WHERE name = 'PIN'", SealBroken),
        ("UPDATE variable SET kind = 'parameter' WHERE name = 'PIN'", SealBroken),
        ("UPDATE variable SET owner = 'ann', strategy_id = 'ema' WHERE owner = 'bob'", SealBroken),
        ("UPDATE variable SET sealed = (SELECT sealed FROM variable WHERE name = 'Q')", SealBroken),
        (
            "UPDATE variable SET retired_at = CASE WHEN retired_at IS NULL THEN updated_at"
            " END, sealed = (SELECT max(sealed) FROM variable WHERE name = 'PIN')",
            SealBroken,
        ),
    ],
)
def test_nothing_is_handed_out_that_is_not_just_what_was_set(
    folder: Path, change: str, because: type[Exception]
) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await home.add("ema", Given(secrets={"PIN": "old-" + PIN}))
            await home.vault.change(on("ema"), Given(secrets={"PIN": PIN, "Q": "qqqqqq"}))
            await home.add("bobs", Given(secrets={"BOBS": "bob-value"}), owner="bob", run=None)
            home.execute("DROP INDEX ix_variable_name")
            home.execute(change, planted=b"\0planted")
            with pytest.raises(because) as caught:
                await home.found("ema")
            assert PIN not in str(caught.value)

    asyncio.run(scenario())


def test_no_value_is_in_any_file_nor_in_the_audit_nor_in_the_event(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await brokers(home)
            await home.add("ema", Given(parameters={"SYMBOL": "symbol-sbin"}))
            given = Given(secrets={"PIN": PIN}, uses={"API_KEY": "kite-live"}, remove=("SYMBOL",))
            await home.vault.change(on("ema"), given)
            for value in (KEY, PIN, PAPER, "symbol-sbin"):
                assert home.holds(value) == []
            own, changed = await home.audit()
            assert own.before == {}
            assert own.after == {
                "parameters": ["REGION"],
                "secrets": ["kite-live", "kite-paper"],
                "changed": ["REGION", "kite-live", "kite-paper"],
            }
            assert (changed.owner, changed.strategy_id) == ("ann", "ema")
            assert changed.before == {"parameters": ["SYMBOL"]}
            assert changed.after == {
                "secrets": ["PIN"],
                "uses": {"API_KEY": "kite-live"},
                "changed": ["API_KEY", "PIN", "SYMBOL"],
            }
            async with home.database.read() as session:
                (event,) = (await session.exec(select(ApiOutbox))).all()
            assert event.subject == "openbell.v1.event.ann.ema.variables_changed"
            assert json.loads(event.payload)["names"] == ["API_KEY", "PIN", "SYMBOL"]

    asyncio.run(scenario())


def test_a_secret_must_be_there_to_be_used_and_stays_while_it_is(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            with pytest.raises(UnknownSecret) as caught:
                await home.add("ema", Given(uses={"API_KEY": "kite-live"}))
            assert (caught.value.errors or [])[0]["field"] == "uses.API_KEY"
            await brokers(home)
            with pytest.raises(UnknownSecret):  # a parameter is none
                await home.add("ema", Given(uses={"API_KEY": "REGION"}))
            with pytest.raises(UnknownSecret):  # nor is another's
                await home.add("ema", Given(uses={"API_KEY": "kite-live"}), owner="bob")
            await home.add("ema", Given(uses={"API_KEY": "kite-live"}))
            for given in (Given(remove=("kite-live",)), Given(parameters={"kite-live": "x"})):
                with pytest.raises(SecretInUse, match="kite-live by ema"):
                    await home.vault.change_own(act(), given)
            await home.vault.change_own(act("bob"), Given(remove=("kite-live",)))
            await home.vault.change_own(act(), Given(remove=("kite-paper",)))
            home.execute("UPDATE strategy SET deleted_at = '2026-01-01'")
            await home.vault.change_own(act(), Given(remove=("kite-live",)))
            with pytest.raises(UnknownStrategy):
                await home.vault.change(on("ema"), Given(parameters={"A": "1"}))

    asyncio.run(scenario())


def test_limits_count_what_is_there_already(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            many = {f"V{n}": "x" for n in range(MOST_VARIABLES)}
            await home.add("ema", Given(parameters=many))
            with pytest.raises(InvalidRequest):
                await home.vault.change(on("ema"), Given(parameters={"ONE_MORE": "x"}))
            big = {f"V{n}": "x" * 30_000 for n in range(9)}
            with pytest.raises(InvalidRequest):
                await home.vault.change(on("ema"), Given(parameters=big))
            await home.vault.change(on("ema"), Given(parameters={"NEW": "x"}, remove=("V0",)))

    asyncio.run(scenario())


def test_what_was_replaced_is_masked_still_up_to_a_number(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await home.add("ema", Given(secrets={"PIN": "value-0000"}))
            first = await home.masks.of("ann", "ema")
            assert await home.masks.of("ann", "ema") is first
            for n in range(1, 30):
                await home.vault.change(on("ema"), Given(secrets={"PIN": f"value-{n:04}"}))
            await home.vault.change(on("ema"), Given(remove=("PIN",)))
            await home.vault.change_own(act(), Given(secrets={"kite-live": KEY}))
            mask = await home.mask("ann", "ema")
            assert mask.text(f"value-0029 value-0010 value-0001 {KEY}") == (
                f"{'*' * 10} {'*' * 10} value-0001 {'*' * len(KEY)}"
            )
            retired = [row for row in await home.rows() if row.retired_at]
            assert len(retired) == vault.MOST_RETIRED_OF_A_NAME
            assert (await home.mask("bob", "ema")).patterns == ()

    asyncio.run(scenario())


def test_what_was_not_there_is_not_told_as_removed(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await home.add("ema", Given(parameters={"A": "1"}))
            many = tuple(f"NO_{n}" for n in range(100))
            await home.vault.change(on("ema"), Given(remove=many))
            await home.vault.change(on("ema"), Given(parameters={"B": "2"}, remove=("A", *many)))
            await home.vault.change_own(act(), Given(remove=many))
            changed = [(entry.after or {})["changed"] for entry in await home.audit()]
            assert changed == [[], ["A", "B"], []]
            async with home.database.read() as session:
                (event,) = (await session.exec(select(ApiOutbox))).all()
            assert json.loads(event.payload)["names"] == ["A", "B"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("secret", "most"),
    [
        ("{0:04}" * 8_000, MOST_BYTES // 32_000),
        ("value-{0:04}", vault.MOST_RETIRED),
        ("\n".join(f"{{0:04}}-{line:04}" for line in range(19)), vault.MOST_LINES // 20),
    ],
    ids=["large", "many", "of many lines"],
)
def test_retired_secrets_of_any_names_are_forgotten_the_oldest_first(
    folder: Path, secret: str, most: int
) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await home.add("ema", Given(secrets={"KEPT": "a-value-of-now"}))
            await home.add("other", Given(secrets={"PIN": PIN}))
            await home.vault.change(on("other"), Given(remove=("PIN",)))
            for n in range(130):
                await home.vault.change(on("ema"), Given(secrets={f"S{n}": secret.format(n)}))
                await home.vault.change(on("ema"), Given(remove=(f"S{n}",)))
            retired = {r.name for r in await home.rows() if r.retired_at and r.strategy_id == "ema"}
            assert retired == {f"S{n}" for n in range(130 - most, 130)}
            assert sum(size(row) for row in await home.rows() if row.retired_at) <= MOST_BYTES
            mask = await home.mask("ann", "ema")
            assert set(mask.text(secret.format(129))) <= {"*", "\n"}
            assert (await home.mask("ann", "other")).text(PIN) == "*" * len(PIN)

    asyncio.run(scenario())


def test_secrets_of_too_many_lines_are_refused(folder: Path) -> None:
    """Each is searched for whenever a log is read."""

    async def scenario() -> None:
        async with opened(folder) as home:
            lines = "\n".join(f"line-{n:08}" for n in range(vault.MOST_LINES - 10))
            await home.add("ema", Given(secrets={"PEM": lines}, parameters={"TEXT": lines}))
            more = "\n".join(f"more-{n:08}" for n in range(10))
            with pytest.raises(InvalidRequest) as caught:
                await home.vault.change(on("ema"), Given(secrets={"MORE": more}))
            assert (caught.value.errors or [])[0]["field"] == "secrets"
            await home.vault.change(on("ema"), Given(parameters={"MORE": more}))
            await home.vault.change(on("ema"), Given(secrets={"MORE": more}, remove=("PEM",)))

    asyncio.run(scenario())


@pytest.mark.sqlite("its plans are asked for")
def test_no_look_goes_through_the_variables_of_everybody(folder: Path) -> None:
    looks: list[tuple[str, Any]] = []

    def note(_1: Any, _2: Any, statement: str, parameters: Any, *_: Any) -> None:
        looks.append((statement, parameters))

    async def scenario() -> None:
        async with opened(folder) as home:
            await brokers(home)
            await home.add("ema", Given(secrets={"PIN": PIN}, uses={"API_KEY": "kite-live"}))
            event.listen(Engine, "before_cursor_execute", note)
            try:
                await home.vault.change(on("ema"), Given(secrets={"PIN": PIN + "x"}))
                await home.vault.change_own(act(), Given(secrets={"kite-paper": PAPER + "x"}))
                await home.found("ema")
                await home.masks.of("ann", "ema")
                await home.vault.variables("ann", "ema")
            finally:
                event.remove(Engine, "before_cursor_execute", note)

    asyncio.run(scenario())
    with contextlib.closing(sqlite3.connect(folder / "openbell.db")) as connection:
        plans = [
            row[3]
            for statement, parameters in looks
            if "FROM variable" in statement
            for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    assert plans
    assert [plan for plan in plans if plan.startswith(("SCAN variable", "SCAN strategy"))] == []


# ---- keys


async def filled(home: Home) -> None:
    await brokers(home)
    await home.add("ema", Given(parameters={"A": "1"}, secrets={"PIN": PIN}))
    await home.vault.change(on("ema"), Given(secrets={"PIN": PIN + "x"}))


def keys_in(home: Home) -> int:
    return len(home.keys.read_text().split())


def test_rotation_seals_everything_anew_and_drops_the_old_key(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await filled(home)
            before = home.keys.read_text()
            old = {row.id: row.sealed for row in await home.rows()}
            done = await home.rotation.rotate(act())
            assert (done.resealed, done.broken) == (6, 0)
            assert keys_in(home) == 1
            assert home.keys.read_text() != before
            assert not [row for row in await home.rows() if row.sealed in old.values()]
            found = await home.found("ema", home.reopened())
            assert found.variables["PIN"] == PIN + "x"
            assert {entry.outcome for entry in (await home.audit())[-2:]} == {"requested", "done"}

    asyncio.run(scenario())


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_a_rotation_that_is_killed_loses_nothing_and_is_ended_by_the_next_start(
    folder: Path, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "BATCH", 2)

    async def scenario() -> None:
        async with opened(folder) as home:
            await filled(home)
            looks, not_under = 0, rotation._not_under  # pyright: ignore[reportPrivateUsage]

            async def killed(*arguments: Any) -> Any:
                nonlocal looks
                if looks == batches:
                    raise KeyboardInterrupt
                looks += 1
                return await not_under(*arguments)

            monkeypatch.setattr(rotation, "_not_under", killed)
            with pytest.raises(KeyboardInterrupt):
                await home.rotation.rotate(act())
            monkeypatch.setattr(rotation, "_not_under", not_under)
            assert keys_in(home) == 2
            again = home.reopened()
            assert (await home.found("ema", again)).variables["PIN"] == PIN + "x"
            assert (await again.rotation.reseal()).resealed == 6 - 2 * batches
            assert keys_in(home) == 1
            found = await home.found("ema", home.reopened())
            assert found.variables["PIN"] == PIN + "x"
            assert (await again.mask("ann", "ema")).text(PIN) == "*" * len(PIN)

    asyncio.run(scenario())


def test_another_replica_seals_on_while_keys_rotate(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await filled(home)
            other = home.reopened()

            async def write_on() -> None:
                for n in range(15):
                    await other.vault.change(on("ema"), Given(secrets={"PIN": f"value-{n:04}"}))

            writing = asyncio.create_task(write_on())
            for _ in range(5):
                await home.rotation.rotate(act())
            await writing
            assert (await home.found("ema", home.reopened())).variables["PIN"] == "value-0014"
            assert (await home.reopened().mask("ann", "ema")).text(PIN) == "*" * len(PIN)
            assert keys_in(home) == 1

    asyncio.run(scenario())


def test_a_value_that_no_key_opens_keeps_the_keys_and_is_told(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await filled(home)
            home.execute("UPDATE variable SET sealed = substr(sealed, 1, 20) WHERE name = 'A'")
            done = await home.rotation.rotate(act())
            assert (done.resealed, done.broken) == (5, 1)
            assert keys_in(home) == 2
            with pytest.raises(SealBroken, match="A"):
                await home.found("ema")
            await home.vault.change(on("ema"), Given(parameters={"A": "2"}))
            assert (await home.found("ema")).variables["A"] == "2"
            assert await home.rotation.reseal() == Resealed(0, 0)
            assert keys_in(home) == 1

    asyncio.run(scenario())


def test_without_its_key_a_log_is_withheld_until_the_secret_is_set_again(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await home.add("ema", Given(secrets={"PIN": PIN}))
            home.keys.unlink()
            lost = home.reopened()
            assert (await lost.rotation.reseal()).broken == 1
            with pytest.raises(SealBroken, match="PIN"):
                await lost.masks.of("ann", "ema")
            await lost.vault.change(on("ema"), Given(secrets={"PIN": "pin-anew"}))
            assert (await lost.mask("ann", "ema")).text("pin-anew") == "********"

    asyncio.run(scenario())


@pytest.mark.parametrize("first", ["parameters in the clear", "sealed ones alone"])
def test_keys_that_open_nothing_are_refused_at_the_start(folder: Path, first: str) -> None:
    """A lost file is made anew, and a copied database comes without it: neither opens anything."""

    async def scenario() -> None:
        async with opened(folder) as home:
            await home.rotation.start()
            await filled(home)
            if first == "parameters in the clear":
                home.execute("UPDATE variable SET sealed = :clear WHERE name = 'A'", clear=b"\x001")
            await home.rotation.start()
            backup = home.keys.read_bytes()
            home.keys.unlink()
            for setting, place in ((None, str(home.keys)), (ONE, "OPENBELL_API__KEYS")):
                with pytest.raises(ServiceUnavailable, match="Restore them") as caught:
                    await home.reopened(setting).rotation.start()
                assert place in caught.value.detail
            home.keys.write_bytes(backup)
            again = home.reopened()
            await again.rotation.start()
            assert (await home.found("ema", again)).variables["PIN"] == PIN + "x"
            home.keys.unlink()
            home.execute("DELETE FROM variable")  # as it says
            await home.reopened().rotation.start()

    asyncio.run(scenario())


def test_keys_that_open_something_are_taken(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await filled(home)
            home.keys.unlink()
            newer = home.reopened()
            await newer.vault.change(on("ema"), Given(secrets={"PIN": PIN}))
            await newer.rotation.start()
            assert (await newer.rotation.reseal()).broken == 4

    asyncio.run(scenario())


def test_keys_of_the_environment_are_not_ours_to_make(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            home.vault = home.reopened(ONE).vault
            await filled(home)
            newer = home.reopened(f"{TWO},{ONE}")
            assert (await newer.rotation.rotate(act())).resealed == 6
            assert not newer.rotation.makes_keys
            assert (await home.found("ema", home.reopened(TWO))).variables["PIN"] == PIN + "x"

    asyncio.run(scenario())


def test_parameters_of_the_first_release_are_kept_and_sealed(tmp_path: Path) -> None:
    url = databases.empty(tmp_path / "openbell.db")
    databases.upgrade(url, "0001")
    parameters = json.dumps({"API_KEY": KEY, "RUPEE": "₹"})
    databases.execute(
        url,
        "INSERT INTO strategy (id, owner, name, name_key, version, parameters, restart,"
        " stop_grace_s, created_at)"
        f" VALUES ('ema', 'local', 'ema', 'ema', 1, '{parameters}', 'never', 15, '{NOW}')",
    )

    async def scenario() -> None:
        await migrate.upgrade(url)
        async with opened(tmp_path) as home:
            assert await home.rotation.reseal() == Resealed(2, 0)
            assert await home.rotation.reseal() == Resealed(0, 0)
            async with home.database.write() as session:
                session.add(
                    Run(
                        id="ema-1",
                        strategy_id="ema",
                        owner="local",
                        epoch=1,
                        runner="local",
                        version=1,
                        granted_at=NOW + timedelta(seconds=1),
                    )
                )
            found = await home.found("ema")
            assert found.variables == {"API_KEY": KEY, "RUPEE": "₹"}
            assert {row.sealed[:1] for row in await home.rows()} == {b"\1"}

    asyncio.run(scenario())


# ---- over the bus


def info(runner: str, key: RunnerKey) -> RunnerInfo:
    return RunnerInfo(
        runner=runner,
        platform="Linux",
        python="3.11",
        at=utc_now(),
        capabilities={},
        public_key=key.public,
    )


def test_only_the_runner_that_holds_a_run_can_open_its_variables(
    folder: Path, nats: NatsServer
) -> None:
    async def scenario() -> None:
        async with opened(folder) as home, nats.bus() as bus:
            mine, other = RunnerKey(RunnerKey.made()), RunnerKey(RunnerKey.made())
            await home.add("ema", Given(secrets={"PIN": PIN}))
            delivery = Delivery(bus, home.database, home.keyring, home.masks)
            ask = GetRunEnvironment(runner="local", run_id="ema-1", epoch=1)
            with pytest.raises(ServiceUnavailable):
                await delivery.answer(ask)
            await bus.announce(info("local", mine))
            await bus.announce(info("other", other))
            sealed = (await delivery.answer(ask)).sealed
            purpose = sealing.for_run("ema-1", 1)
            assert PIN.encode() not in sealed
            opened_ = RunVariables.model_validate_json(mine.open(sealed, purpose))
            assert opened_.variables == {"PIN": PIN}
            with pytest.raises(SealBroken):
                other.open(sealed, purpose)
            with pytest.raises(SealBroken):
                mine.open(sealed, sealing.for_run("ema-1", 2))
            with pytest.raises(UnknownRun):
                await delivery.answer(ask.model_copy(update={"runner": "other"}))

    asyncio.run(scenario())


class Runner:
    """Answers for a log as a runner does, and may do something just before."""

    def __init__(self, data: bytes, masks: Masks) -> None:
        self.data = data
        self.asked: list[ReadLog] = []
        self.before: Callable[[], Any] | None = None
        self._masks = masks

    async def request(self, command: ReadLog, _runner: str, *, timeout_s: float) -> LogChunk:
        self.asked.append(command)
        known = await self._masks.of("ann", "ema")
        if self.before is not None:
            happening, self.before = self.before, None
            await happening()
        begin, end = command.offset, min(len(self.data), command.offset + command.limit)
        return LogChunk.model_construct(
            offset=begin,
            next_offset=end,
            size=len(self.data),
            data=Mask(known.values).masked(self.data)[begin:end],
            first=0,
            generation=0,
            reset=False,
            secrets=known.version,
        )


def test_a_secret_that_is_set_while_a_log_is_read_is_masked_in_it(folder: Path) -> None:
    async def scenario() -> None:
        async with opened(folder) as home:
            await home.add("ema", Given())
            runner = Runner(f"key {KEY} end".encode(), home.masks)

            async def set_it() -> None:
                await home.vault.change(on("ema"), Given(secrets={"K": KEY}))

            runner.before = set_it
            logs = Logs(cast("Bus", runner), home.masks)
            chunk = await logs.read(await home.run("ema"), offset=6, limit=4)
            assert (chunk.data, chunk.offset, chunk.next_offset) == (b"****", 6, 10)
            first, second = (one.secrets for one in runner.asked)
            assert first != second

    asyncio.run(scenario())


def test_a_runner_that_hides_other_secrets_is_not_believed(folder: Path) -> None:
    """One of an earlier release, or one that will not learn."""

    class Stale(Runner):
        async def request(self, command: ReadLog, _runner: str, *, timeout_s: float) -> LogChunk:
            chunk = await super().request(command, _runner, timeout_s=timeout_s)
            return chunk.model_copy(update={"secrets": ""})

    async def scenario() -> None:
        async with opened(folder) as home:
            await home.add("ema", Given(secrets={"K": KEY}))
            logs = Logs(cast("Bus", Stale(b"text", home.masks)), home.masks)
            with pytest.raises(LogWithheld):
                await logs.read(await home.run("ema"), offset=0, limit=4)

    asyncio.run(scenario())


def test_a_log_is_read_in_any_pieces_from_a_real_runner_without_its_secrets(
    folder: Path, nats: NatsServer
) -> None:
    async def scenario() -> None:
        async with opened(folder) as home, nats.bus() as bus:
            await home.add("ema", Given(secrets={"K": KEY, "PEM": "-----BEGIN-----\nabcdefgh\n"}))
            lines = f"start\nkey={KEY};{KEY}\n₹ {KEY[:-1]}\n> abcdefgh\n"
            text = (f"{lines}-----BEGIN-----\nabcdefgh\n" * 40).encode()
            file = log_file(folder, "ema", "ema-1")
            file.parent.mkdir()
            file.write_bytes(text)
            key = RunnerKey(RunnerKey.made())
            await bus.announce(info("local", key))
            delivery = Delivery(bus, home.database, home.keyring, home.masks)
            await bus.answer(GetLogSecrets, delivery.answer_log)
            reader = Reader(LogBook(folder), LogSecretsOf(bus, "local", key))
            await bus.answer(ReadLog, reader.read, "local")
            run = await home.run("ema")
            logs = Logs(bus, home.masks)
            whole = (await home.mask("ann", "ema")).masked(text)
            assert KEY.encode() not in whole
            assert b"abcdefgh" not in whole
            for limit in (1, 7, 64, 4096, 524_288):
                pieces, offset = b"", 0
                while offset < min(len(text), 60 * limit):
                    chunk = await logs.read(run, offset=offset, limit=limit)
                    assert 0 < len(chunk.data) <= limit
                    pieces, offset = pieces + chunk.data, chunk.next_offset
                assert pieces == whole[: len(pieces)]
            assert (await logs.read(run, offset=-9, limit=100)).data == whole[-9:]
            beyond = await logs.read(run, offset=10**9, limit=9, wait_s=0.2)
            assert (beyond.data, beyond.offset) == (b"", len(text))

    asyncio.run(scenario())


def test_what_must_be_hidden_goes_to_the_runner_that_had_the_run_alone(
    folder: Path, nats: NatsServer
) -> None:
    """Live or ended, in as many pages as it takes; anew when a secret was set; else withheld."""

    async def scenario() -> None:
        async with opened(folder) as home, nats.bus() as bus:
            many = {f"S{n}": f"{n}" + "\U0001f4c8" * 32_000 for n in range(3)}
            await home.add("ema", Given(secrets={"PIN": PIN}))
            key = RunnerKey(RunnerKey.made())
            await bus.announce(info("local", key))
            await bus.announce(info("other", RunnerKey(RunnerKey.made())))
            delivery = Delivery(bus, home.database, home.keyring, home.masks)
            await bus.answer(GetLogSecrets, delivery.answer_log)
            mine = LogSecretsOf(bus, "local", key)
            first = await mine.of("ema-1", "")
            assert first.mask.text(PIN) == "*" * len(PIN)
            assert await mine.of("ema-1", first.version) is first
            home.execute("UPDATE run SET state = 'exited'")
            for secret in many.items():
                await home.vault.change(on("ema"), Given(secrets=dict([secret])))
                await home.vault.change(on("ema"), Given(remove=(secret[0],)))
            second = await mine.of("ema-1", await home.masks.version("ann", "ema"))
            assert set(second.mask.text(f"{many['S2']}{PIN}")) == {"*"}
            with pytest.raises(LogWithheld, match="not granted to this runner"):
                await LogSecretsOf(bus, "other", key).of("ema-1", "")
            await home.vault.change(on("ema"), Given(secrets={"TOTP": PIN}))
            home.execute("UPDATE variable SET sealed = substr(sealed, 1, 20)")
            with pytest.raises(LogWithheld, match="the value of"):
                await LogSecretsOf(bus, "local", key).of("ema-1", "")

    asyncio.run(scenario())


def test_the_api_may_read_the_key_of_any_runner(folder: Path, nats: NatsServer) -> None:
    async def scenario() -> None:
        key = RunnerKey(RunnerKey.made())
        async with nats.bus(), nats.bus_of("runner-box-1") as runner, nats.bus_of("api") as api:
            await runner.announce(info("box-1", key))
            told = await api.runner("box-1")
            assert told is not None
            assert told.public_key == key.public

    asyncio.run(scenario())
