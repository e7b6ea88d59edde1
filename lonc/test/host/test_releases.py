"""
No request is carried out for another host id, whichever releases of a lond answer at its address.

Every request names in its text the id that it is for, and each lond notes for which id it carried
it out. ``EXAMPLES`` says how many lives of a machine are tried; ``make soak`` tries 10,000.
"""

from __future__ import annotations

import os

import attrs

from lonc.daemon.rounds import SWEEP
from lonc.test.fixtures.doubles import (
    BUILD_KEY,
    CHALLENGE,
    Attempt,
    NotedReceiver,
    ScriptedLond,
)
from lonc.test.fixtures.properties import given, settings, st
from lonc.test.fixtures.stage import HostTestCase, Together
from lonc.wire.request import Cause, Request

EXAMPLES = int(os.environ.get("EXAMPLES", "100"))

IDS = ("l2", "l3", "l4")
TARGETS = ("127.0.0.2", "127.0.0.9")


@attrs.frozen
class Release:
    """
    What a lond is.

    :ivar default: the id that it acts for unless told otherwise.
    :ivar serves: the ids that it serves; empty for one that knows no ``sethost``.
    :ivar version: what it says to ``version``; empty for one that does not know that.
    """

    default: str
    serves: tuple[str, ...]
    version: str


#: Those of the seed's time, which know neither question, one that knows its version only, and
#: later ones, whose default is any of the ids.
RELEASES = [
    *(Release(each, (), "") for each in IDS),
    Release("l2", (), "1.100"),
    *(Release(each, IDS, "1.400") for each in IDS),
    Release("l3", ("l3", "l4"), "1.401"),
]


class Connection:
    """One connection to a lond of a release, which says what it owes when it is told to."""

    def __init__(self, lond: ScriptedLond, release: Release, done: list[tuple[str, str]]) -> None:
        self.lond = lond
        self._release = release
        self._acts_for = release.default
        self._done = done
        self._to_say: list[bytes] = []
        self._data = b""
        lond.wire.heard = self._hear

    def _hear(self, data: bytes) -> None:
        *lines, self._data = (self._data + data).split(b"\n")
        self._to_say += [self._answer(line) + b"\n" for line in lines]

    def _answer(self, line: bytes) -> bytes:
        known = {b"init": CHALLENGE, CHALLENGE: b"ok", b"ekey": BUILD_KEY}
        if line in known:
            return known[line]
        if line == b"version" and self._release.version:
            return b"$Revision: %s $" % self._release.version.encode()
        host_id = self._acts_for
        if line.startswith(b"sethost:") and self._release.serves:
            name, is_request, line = line[8:].partition(b":")
            host_id = name.decode()
            if host_id not in self._release.serves:
                return b"unable_to_set"
            if not is_request:
                self._acts_for = host_id
                return b"ok"
        if line == b"ping":
            return host_id.encode()
        if not line.startswith(b"put:"):
            return b"unknown_cmd"
        self._done.append((line.split(b":")[1].decode(), host_id))
        return b"done:" + line

    def speak(self) -> None:
        """Say one line of what is owed."""
        if self._to_say:
            self.lond.say(self._to_say.pop(0))


class Life(Together):
    """Three host ids, on one machine at first, and what may happen to them; see `act`."""

    def __init__(self, test: HostTestCase) -> None:
        self.release = RELEASES[0]
        self.connections: list[Connection] = []
        self.done: list[tuple[str, str]] = []
        self.asked: list[tuple[bytes, NotedReceiver]] = []
        super().__init__(
            test, IDS, max_connections=3, retries=50, request_timeout=10, socket_names="hostname"
        )
        self.network.on_connect = self._accept

    def _accept(self, attempt: Attempt) -> None:
        """Have the release of now at the other end of a new connection."""
        release = self.release
        here = [each.host_id for each in self.hosts.values() if each.host.target == attempt.host]
        if not release.serves and here and release.default not in here:
            release = attrs.evolve(release, default=here[0])  # nobody could tell otherwise
        self.network.prepare = lambda lond: self.connections.append(
            Connection(lond, release, self.done)
        )
        attempt.accept()

    def act(self, what: str, number: int) -> None:
        """Do one thing."""
        host_id = IDS[number % len(IDS)]
        host = self.hosts[host_id]
        open_ones = [each for each in self.connections if not each.lond.wire.disconnecting]
        if what == "ask":
            line, asker = b"put:%s:%d\n" % (host_id.encode(), len(self.asked)), NotedReceiver()
            self.asked.append((line, asker))
            host.submit(Request(line, asker))
        elif what == "release":
            self.release = RELEASES[number % len(RELEASES)]
        elif what == "speak" and open_ones:
            open_ones[number % len(open_ones)].speak()
        elif what == "run":
            for _ in range(8):
                self.clock.advance(0)
                for each in open_ones:
                    each.speak()
        elif what == "break" and open_ones:
            open_ones[number % len(open_ones)].lond.close()
        elif what == "renew":
            for each in open_ones:
                each.lond.close()
        elif what == "row":
            target = TARGETS[number // len(IDS) % len(TARGETS)]
            self.rows[host_id] = attrs.evolve(self.rows[host_id], address=target)
        elif what == "follow":
            self.follow(*(IDS if number % 2 else [host_id]))
        elif what == "close":
            host.close_connections()
        elif what == "wait":
            self.advance(number % 50 * SWEEP)
        self.clock.advance(0)


#: What happens most often stands several times.
ACTS = [
    *(["ask"] * 6),
    *(["speak"] * 8),
    *(["run"] * 6),
    *(["release", "row", "follow", "break"] * 2),
    *("renew", "close", "wait"),
]


class ReleasesTests(HostTestCase):
    """Londs of all releases, renewals, moves in the table and accidents, in any order."""

    @settings(derandomize=EXAMPLES <= 100, deadline=None, max_examples=EXAMPLES, database=None)
    @given(st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 11)), min_size=20, max_size=80))
    def test_right_id(self, acts: list[tuple[str, int]]) -> None:
        """What was carried out was carried out for the id that it is for, and has its answer."""
        life = Life(self)
        for what, number in acts:
            life.act(what, number)
        for intended, host_id in life.done:
            self.assertEqual(intended, host_id, acts)
        for line, asker in life.asked:
            self.assertLessEqual(len(asker.outcomes), 1)
            for outcome in asker.outcomes:
                self.assertTrue(isinstance(outcome, Cause) or outcome == b"done:" + line, outcome)

    def test_what_is_tried(self) -> None:
        """Such a life has requests that are carried out by each kind of release."""
        for release in (0, 4):
            life = Life(self)
            for what, number in (("release", release), ("ask", 0), *[("run", 0)] * 3):
                life.act(what, number)
            self.assertEqual(life.done, [("l2", "l2")])
