"""Events reach those who may see them, are encoded once, and wait for nobody."""

import gc
from datetime import UTC, datetime
from typing import Any

import pytest

from openbell.bus import Stored, StreamState
from openbell.contracts.base import Event
from openbell.contracts.errors import TooManyStreams
from openbell.contracts.events import EVENTS, AccessChanged, RunStarted
from openbell.contracts.model import Permission, Role
from services.status import fanout as module
from services.status.fanout import Client, Fanout, Frame
from tests.fixtures.people import somebody

NOW = datetime(2026, 8, 3, 3, 45, tzinfo=UTC)


def event(sequence: int, owner: str = "local", detail: str = "r1") -> Stored:
    told = RunStarted(
        owner=owner, strategy_id="ema-1a2b3c", at=NOW, run_id=detail, epoch=1, started_at=NOW
    )
    return Stored(sequence, told.subject, told.encode())


def new(last: int = 0) -> Fanout:
    return Fanout(StreamState("5f3a", 1, last))


def joined(fanout: Fanout, owner: str, queue_size: int, **fields: Any) -> Client:
    client = Client(
        somebody(owner, **fields), everybody=False, headers={}, known_at=0, queue_size=queue_size
    )
    fanout.join(client)
    return client


LOCAL = joined(new(), "local", 1)


def queued(client: Client) -> list[int]:
    return [client.queue.get_nowait().sequence for _ in range(client.queue.qsize())]


def sequences(frames: list[Frame] | None) -> list[int] | None:
    return None if frames is None else [frame.sequence for frame in frames]


def test_an_owner_gets_only_their_own() -> None:
    fanout = new()
    alice, bob, nobody = (joined(fanout, owner, 10) for owner in ("alice", "bob", "alic"))
    for sequence, owner in enumerate(["alice", "bob", "alice", "carol"], 1):
        fanout.publish(event(sequence, owner))
    assert (queued(alice), queued(bob), queued(nobody)) == ([1, 3], [2], [])
    assert sequences(fanout.recent(bob, 0)) == [2]
    assert sequences(fanout.recent(nobody, 0)) == []


def test_what_is_shared_is_seen_and_an_account_is_its_owners_alone() -> None:
    fanout = new()
    shared = {"ema-1a2b3c": Permission.VIEWER}
    friend, stranger = joined(fanout, "bob", 10, shared=shared), joined(fanout, "carol", 10)
    admin = joined(fanout, "dora", 10, role=Role.ADMIN)
    admin.everybody = True
    fanout.publish(event(1, "alice"))
    changed = AccessChanged(owner="alice", at=NOW)
    fanout.publish(Stored(2, changed.subject, changed.encode()))
    assert (queued(friend), queued(stranger), queued(admin)) == ([1], [], [1])


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_every_kind_of_event_reaches_its_owner_and_no_stranger(kind: type[Event]) -> None:
    fanout = new()
    owner, stranger = joined(fanout, "alice", 10), joined(fanout, "bob", 10)
    fields: dict[str, Any] = {"owner": "alice", "strategy_id": "ema-1a2b3c"}
    fanout.publish(Stored(1, kind.model_construct(**fields).subject, b"{}"))
    assert (queued(owner), queued(stranger)) == ([1], [])
    assert sequences(fanout.recent(stranger, 0)) == []


def test_one_user_has_so_many_streams_and_no_more() -> None:
    fanout = new()
    clients = [joined(fanout, "alice", 1) for _ in range(module.MOST_STREAMS)]
    with pytest.raises(TooManyStreams):
        joined(fanout, "alice", 1)
    joined(fanout, "bob", 1)
    fanout.leave(clients[0])
    fanout.leave(clients[0])
    joined(fanout, "alice", 1)
    with pytest.raises(TooManyStreams):
        joined(fanout, "alice", 1)


def test_all_tabs_of_one_owner_get_all() -> None:
    fanout = new()
    tabs = [joined(fanout, "local", 10) for _ in range(3)]
    fanout.publish(event(1))
    assert [queued(tab) for tab in tabs] == [[1]] * 3


def test_a_frame_is_what_a_browser_reads() -> None:
    frame = new().encode(event(7, detail="line\nbreak"))
    assert frame.data.startswith(b"id: 5f3a-7\nevent: run_started\ndata: {")
    assert frame.data.endswith(b"}\n\n")
    assert frame.data.count(b"\n") == 4  # a line break inside would end the event


def test_an_event_is_encoded_once_however_many_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    fanout = new()
    clients = [joined(fanout, "local", 10) for _ in range(100)]
    encoded: list[int] = []
    encode = Fanout.encode

    def counted(self: Fanout, stored: Stored) -> Frame:
        encoded.append(stored.sequence)
        return encode(self, stored)

    monkeypatch.setattr(Fanout, "encode", counted)
    for sequence in range(1, 6):
        fanout.publish(event(sequence))
    assert encoded == [1, 2, 3, 4, 5]
    first = [client.queue.get_nowait().data for client in clients]
    assert len({id(data) for data in first}) == 1  # the same bytes, not equal ones


def test_a_client_that_does_not_read_is_marked_and_others_are_unaffected() -> None:
    fanout = new()
    slow, quick = joined(fanout, "local", 5), joined(fanout, "local", 5)
    read: list[int] = []
    for sequence in range(1, 101):
        fanout.publish(event(sequence))
        read += queued(quick)
    assert slow.overflowed.is_set()
    assert slow.queue.qsize() == 5
    assert not quick.overflowed.is_set()
    assert read == list(range(1, 101))


@pytest.mark.parametrize(("several", "overflows"), [(5, False), (6, True)])
def test_a_full_queue_is_not_yet_too_full(several: int, *, overflows: bool) -> None:
    fanout = new()
    client = joined(fanout, "local", 5)
    for sequence in range(1, several + 1):
        fanout.publish(event(sequence))
    assert client.overflowed.is_set() == overflows


def test_memory_does_not_grow_with_what_nobody_reads() -> None:
    gc.collect()  # what other tests have left
    fanout = new()
    clients = [joined(fanout, "local", 10) for _ in range(50)]
    for sequence in range(1, 2 * module.RECENT):
        fanout.publish(event(sequence))
    assert all(client.queue.qsize() == 10 for client in clients)
    kept = sum(isinstance(thing, Frame) for thing in gc.get_objects())
    assert kept <= module.RECENT + 10  # the clients hold the same ten


def test_who_has_left_gets_nothing_and_may_leave_twice() -> None:
    fanout = new()
    client = joined(fanout, "local", 5)
    fanout.leave(client)
    fanout.leave(client)
    fanout.publish(event(1))
    assert queued(client) == []


def test_memory_reaches_back_as_far_as_it_says() -> None:
    fanout = new(last=100)
    assert fanout.recent(LOCAL, 100) is None  # it does not know yet what came before
    for sequence in range(101, 104):
        fanout.publish(event(sequence))
    assert sequences(fanout.recent(LOCAL, 99)) is None
    assert sequences(fanout.recent(LOCAL, 100)) == [101, 102, 103]
    assert sequences(fanout.recent(LOCAL, 102)) == [103]
    assert sequences(fanout.recent(LOCAL, 103)) == []


def test_memory_forgets_the_oldest() -> None:
    fanout = new()
    last = module.RECENT + 10
    for sequence in range(1, last + 1):
        fanout.publish(event(sequence))
    assert fanout.sequence == last
    assert fanout.recent(LOCAL, 9) is None
    assert sequences(fanout.recent(LOCAL, 10)) == list(range(11, last + 1))


def test_numbers_that_the_stream_no_longer_has_are_no_gap() -> None:
    fanout = new(last=4)
    for sequence in (5, 9, 10):
        fanout.publish(event(sequence))
    assert fanout.sequence == 10
    assert sequences(fanout.recent(LOCAL, 5)) == [9, 10]
    assert sequences(fanout.recent(LOCAL, 7)) == [9, 10]


@pytest.mark.parametrize("text", ["नमस्ते", '"', "\r", "\u2028", "\\n"])
def test_any_text_stays_on_its_line(text: str) -> None:
    data: Any = new().encode(event(1, detail=text)).data
    assert data.decode().splitlines(keepends=False)[0] == "id: 5f3a-1"
    assert data[:-2].count(b"\n") == 2
    assert b"\r" not in data
