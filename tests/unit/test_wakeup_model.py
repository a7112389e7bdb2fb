"""A model of falling asleep: in no order of the steps does a committed change stay unseen.

A step is one statement. There is no poll: once asleep, the daemon looks only if notified.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest

AWAKE = ("look",)
ASLEEP = ()


class Writer(NamedTuple):
    """A backend transaction and its remaining steps; `id` and `seq` are 0 until drawn."""

    left: tuple[str, ...]
    id: int = 0
    seq: int = 0
    notifies: bool = False
    committed: bool = False


class Session(NamedTuple):
    """The server's state of the daemon's session; `lock` is "", "waiting" or "held"."""

    listening: bool = False
    notified: bool = False
    lock: str = ""


class Daemon(NamedTuple):
    """The daemon's knowledge. A mark is represented by the open transactions below it.

    `proof` is the highest seq seen and a mark drawn later; once the transactions below the mark
    have ended, that seq becomes the floor.
    """

    plan: tuple[str, ...]
    spared: bool
    believes_lock: bool = False
    below: frozenset[int] = frozenset()
    seen: frozenset[int] = frozenset()
    floor: int = 0
    proof: tuple[int, frozenset[int]] | None = None


class State(NamedTuple):
    """The whole state; `stale` says that a former session is still alive and holds the lock."""

    writers: tuple[Writer, ...]
    daemon: Daemon
    session: Session = Session()
    stale: bool = False

    @property
    def open(self) -> frozenset[int]:
        return frozenset(w.id for w in self.writers if w.id and w.left)

    @property
    def committed(self) -> frozenset[int]:
        return frozenset(w.seq for w in self.writers if w.committed)

    @property
    def locked(self) -> bool:
        # To a writer, which only tries, a lock that is waited for is as good as held.
        return self.stale or self.session.lock != ""

    @property
    def lockable(self) -> bool:
        return not self.stale and not any(w.notifies for w in self.writers)

    def lock(self, lock: str, *, believed: bool) -> State:
        daemon = self.daemon._replace(believes_lock=believed)
        return self._replace(daemon=daemon, session=self.session._replace(lock=lock))


Steps = Iterator[tuple[str, State]]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The intended rules; the tests change one or a few of them."""

    writer: tuple[str, ...] = ("begin", "record", "try")
    joins: tuple[str, ...] = ("connect", "listen", "look")
    listens_late: tuple[str, ...] = ("listen", "look")
    dozes: tuple[str, ...] = ("unlock", "test", "mark")
    mark: str = "own id"
    watches: bool = True
    watches_after_take_over: bool = True
    reads_xmin_with_look: bool = True
    rests_after: str = "look from the floor"
    floor: str = "proven"
    rouses: str = "waits"
    unlocks: str = "all"
    ends_former_session: bool = False

    def newcomer(self) -> Daemon:
        return Daemon(self.joins, spared=self.watches_after_take_over)

    def moves(self, s: State) -> Steps:
        """Yield the steps that happen by themselves, in words, and the states they lead to."""
        for number, writer in enumerate(s.writers):
            if len(writer.left) <= len(self.writer):
                yield from self._write(s, number, writer)
        d = s.daemon
        if d.plan:
            yield from self._carry_out(d.plan[0], s._replace(daemon=d._replace(plan=d.plan[1:])))
        if s.session.notified and d.plan in {AWAKE, ASLEEP}:
            heard = s.session._replace(notified=False)
            yield "daemon is woken", s._replace(session=heard, daemon=d._replace(plan=AWAKE))
        if d.plan == AWAKE and not d.believes_lock:
            yield from self._rouse(s._replace(daemon=d._replace(spared=True)))
        if s.stale:
            yield "former session ends", s._replace(stale=False)
        if d.plan == self.joins:
            yield "former session ends", s._replace(session=Session())

    def events(self, s: State) -> Steps:
        """Yield the steps that may never happen: further writers, and faults."""
        for number, writer in enumerate(s.writers):
            if len(writer.left) > len(self.writer):
                yield from self._write(s, number, writer)
                # All writers are equal, so it suffices that they begin in their order.
                break
        # No one reads from this session any more, but it keeps its lock until it ends.
        s = s._replace(session=Session(lock=s.session.lock))
        yield "daemon dies, another takes over", s._replace(daemon=self.newcomer())
        yield "session breaks", s._replace(daemon=s.daemon._replace(plan=self.joins))

    def _write(self, s: State, number: int, w: Writer) -> Steps:
        def after(w: Writer) -> State:
            return s._replace(writers=(*s.writers[:number], w, *s.writers[number + 1 :]))

        name, step, w = f"writer {number + 1}", w.left[:1], w._replace(left=w.left[1:])
        match step:
            case ("begin",):
                drawn = 1 + max(each.id for each in s.writers)
                yield f"{name} takes id {drawn}", after(w._replace(id=drawn))
            case ("record",):
                drawn = 1 + max(each.seq for each in s.writers)
                yield f"{name} records seq {drawn}", after(w._replace(seq=drawn))
            case ("try",):
                does = "finds the lock held" if s.locked else "will notify"
                yield f"{name} {does}", after(w._replace(notifies=not s.locked))
            case ("notify",):
                yield f"{name} will notify", after(w._replace(notifies=True))
            case ("end",):
                notified = s.session.notified or (w.notifies and s.session.listening)
                session, w = s.session._replace(notified=notified), w._replace(notifies=False)
                committed = after(w._replace(committed=True))
                yield f"{name} commits", committed._replace(session=session)
                yield f"{name} rolls back", after(w)

    def _carry_out(self, step: str, s: State) -> Steps:
        d = s.daemon
        match step:
            case "connect":
                d = d._replace(believes_lock=False)
                stale = s.stale or (s.session.lock != "" and not self.ends_former_session)
                yield "daemon connects", State(s.writers, d, Session(), stale)
            case "listen":
                yield "daemon listens", s._replace(session=s.session._replace(listening=True))
            case "look":
                yield from self._look(s)
            case "check":
                yield "daemon checks its mark", s._replace(daemon=d._replace(plan=self._rest(s)))
            case "unlock":
                released = self.unlocks == "all" or d.believes_lock
                yield "daemon unlocks", s.lock("" if released else s.session.lock, believed=False)
            case "test":
                # A lock that a session holds itself does not keep it from having it once more.
                plan = AWAKE if s.stale else d.plan
                yield "daemon tries the lock", s._replace(daemon=d._replace(plan=plan))
            case "mark":
                d = d._replace(spared=False, below=self._below(s))
                yield "daemon draws its mark", s._replace(daemon=d)
            case "wait":
                yield "daemon gives up waiting", s.lock("", believed=False)
                if s.lockable:
                    yield "daemon gets the lock", s.lock("held", believed=True)
                    yield "daemon gets it as its wait times out", s.lock("held", believed=False)

    def _rouse(self, s: State) -> Steps:
        if self.rouses == "never":
            return
        if s.lockable:
            yield "daemon locks", s.lock("held", believed=True)
        elif self.rouses == "waits":
            s = s._replace(daemon=s.daemon._replace(plan=("wait", *AWAKE)))
            yield "daemon waits for the lock", s.lock("waiting", believed=False)

    def _below(self, s: State) -> frozenset[int]:
        if self.mark == "own id":
            return s.open
        last_ended = max((w.id for w in s.writers if not w.left), default=0)
        return frozenset(number for number in s.open if number < last_ended)

    def _look(self, s: State) -> Steps:
        highest = max(s.daemon.seen, default=0)
        for after in sorted({s.daemon.floor, highest}):
            full = after == s.daemon.floor
            found = frozenset(seq for seq in s.committed if seq > after) - s.daemon.seen
            does = f"daemon looks after {after}, finds {sorted(found) or 'nothing'}"
            for d in self._learn(s, highest, found, full=full):
                plan: tuple[str, ...] = AWAKE
                if not found and (full or self.rests_after == "any look"):
                    plan = (*self.dozes, *AWAKE) if d.spared else ("check",)
                    if plan == ("check",) and self.reads_xmin_with_look:
                        plan = self._rest(s)
                yield does + ("" if plan else ", sleeps"), s._replace(daemon=d._replace(plan=plan))

    def _learn(
        self, s: State, highest: int, found: frozenset[int], *, full: bool
    ) -> Iterator[Daemon]:
        d = s.daemon._replace(seen=s.daemon.seen | found, below=s.daemon.below & s.open)
        if self.floor == "highest seen":
            yield d._replace(floor=max(d.seen, default=0))
        elif d.proof is None:
            yield d
            if highest > d.floor and self.floor == "proven":
                yield d._replace(proof=(highest, self._below(s)))
        elif full and not d.proof[1] & s.open:
            yield d._replace(floor=d.proof[0], proof=None)
        else:
            yield d

    def _rest(self, s: State) -> tuple[str, ...]:
        if self.watches and s.daemon.below & s.open:
            return AWAKE
        return ASLEEP if s.session.listening else self.listens_late


def explore(protocol: Protocol, writers: int = 2) -> tuple[int, list[str]]:
    """Return the number of states, and the shortest path to a change that stays unseen, if any."""
    start = State((Writer((*protocol.writer, "end")),) * writers, protocol.newcomer())
    came_by: dict[State, tuple[State, str] | None] = {start: None}
    before: dict[State, list[State]] = {}
    to_do, at_rest = deque([start]), []
    while to_do:
        s = to_do.popleft()
        moves = [(does, after) for does, after in protocol.moves(s) if after != s]
        if not moves:
            if unseen := s.committed - s.daemon.seen:
                return len(came_by), [*_way(came_by, s), f"unseen for ever: {sorted(unseen)}"]
            at_rest.append(s)
        for _, after in moves:
            before.setdefault(after, []).append(s)
        for does, after in (*moves, *protocol.events(s)):
            if after not in came_by:
                came_by[after] = s, does
                to_do.append(after)
    # There must be no endless cycle: from every state it can come to rest without another event.
    resting = set(at_rest)
    while at_rest:
        earlier = set(before.get(at_rest.pop(), ())) - resting
        resting |= earlier
        at_rest += earlier
    restless = next((s for s in came_by if s not in resting), None)
    return len(came_by), [*_way(came_by, restless), "it never rests"] if restless else []


def _way(came_by: dict[State, tuple[State, str] | None], s: State) -> list[str]:
    way = []
    while (step := came_by[s]) is not None:
        s, does = step
        way.append(does)
    return way[::-1]


@pytest.mark.parametrize(("writers", "at_least"), [(1, 400), (2, 10_000)])
def test_no_change_stays_unseen(writers: int, at_least: int) -> None:
    states, missed = explore(Protocol(), writers)
    assert not missed, "\n".join(missed)
    assert states > at_least


BROKEN = {
    "sleeps without a watch": Protocol(watches=False),
    "draws its mark before it unlocks": Protocol(dozes=("mark", "unlock", "test")),
    "dozes without end, as it draws no mark": Protocol(dozes=("unlock", "test")),
    "draws its mark without trying the lock": Protocol(dozes=("unlock", "mark")),
    "tries the lock after its mark": Protocol(dozes=("unlock", "mark", "test")),
    "takes the xmax of a snapshot for a mark": Protocol(mark="xmax"),
    "writer tries the lock before it has an id": Protocol(writer=("try", "begin", "record")),
    "writer draws a seq before it has an id": Protocol(writer=("record", "begin", "try")),
    "sleeps without a watch after a take-over": Protocol(watches_after_take_over=False),
    "listens after its last look": Protocol(joins=("connect", "look"), listens_late=("listen",)),
    "releases only the lock it believes to hold": Protocol(unlocks="believed"),
    "looks before it reads xmin": Protocol(reads_xmin_with_look=False),
    "rests after a look above the floor": Protocol(rests_after="any look"),
    "reads after the highest seq seen": Protocol(floor="highest seen"),
}


@pytest.mark.parametrize("protocol", BROKEN.values(), ids=BROKEN)
def test_broken_rule_is_caught(protocol: Protocol) -> None:
    _, missed = explore(protocol)
    assert missed


def test_way_to_an_unseen_change_is_short_and_readable() -> None:
    _, missed = explore(BROKEN["sleeps without a watch after a take-over"])
    assert missed == [
        "daemon connects",
        "daemon listens",
        "daemon locks",
        "writer 1 takes id 1",
        "writer 1 records seq 1",
        "writer 1 finds the lock held",
        "daemon dies, another takes over",
        "daemon connects",
        "daemon listens",
        "daemon looks after 0, finds nothing, sleeps",
        "writer 1 commits",
        "former session ends",
        "unseen for ever: [1]",
    ]


ALSO_SOUND = {
    "writers always notify, without lock, mark and watch": Protocol(
        writer=("begin", "record", "notify"),
        rouses="never",
        watches=False,
        watches_after_take_over=False,
    ),
    "writer tries the lock between its id and its seq": Protocol(writer=("begin", "try", "record")),
    "listens only before it sleeps, and looks again": Protocol(joins=("connect", "look")),
    "never waits for the lock, releases what it believes to hold": Protocol(
        rouses="tries", unlocks="believed"
    ),
    "reads from the beginning": Protocol(floor="beginning"),
    "draws its mark without trying the lock, which no former session has": Protocol(
        dozes=("unlock", "mark"), ends_former_session=True
    ),
}


@pytest.mark.parametrize("protocol", ALSO_SOUND.values(), ids=ALSO_SOUND)
def test_other_rule_is_sound(protocol: Protocol) -> None:
    _, missed = explore(protocol)
    assert not missed, "\n".join(missed)
