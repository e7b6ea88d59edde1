"""Requests as they end, over the management port."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from lonc.control.responders import TRACE_WAIT
from lonc.report.records import RequestRecord
from lonc.test.fixtures.management import ConnectedTests


class TraceTests(ConnectedTests):
    """From the end of a request to the client that traces it."""

    def setUp(self) -> None:
        super().setUp()
        self.log = self.daemon.request_log

    def note(self, line: bytes, host_id: str = "msul1") -> None:
        """Let a request end."""
        self.log.note(host_id, 7, line, "get", "answered", lond=1.0)
        self.pump.flush()

    def next_of(self, host_id: str = "", contents: bool = False) -> Deferred[RequestRecord]:
        """Ask for the next request."""
        if not hasattr(self, "records"):
            self.records = self.client.trace(host_id, contents)
        return self.ask(self.records.__anext__())  # type: ignore[arg-type]

    def test_as_they_end(self) -> None:
        """Each request is sent once, in order, even if it ended between two calls."""
        first = self.next_of()
        self.note(b"one\n")
        self.assertEqual(self.successResultOf(first).number, 1)
        self.note(b"two\n")
        self.note(b"three\n")
        self.assertEqual(self.successResultOf(self.next_of()).number, 2)
        self.assertEqual(self.successResultOf(self.next_of()).number, 3)

    def test_nothing(self) -> None:
        """Without requests, a call is answered after a second, and repeated."""
        record = self.next_of()
        for _ in range(3):
            self.clock.advance(TRACE_WAIT)
            self.pump.flush()
        self.assertNoResult(record)
        self.note(b"one\n")
        self.assertEqual(self.successResultOf(record).contents, "")

    def test_one_host(self) -> None:
        """Only the requests of a host are sent, to the owner with their contents."""
        record = self.next_of("msul1", contents=True)
        self.note(b"other\n", "msua1")
        self.note(b"mine\n")
        self.assertEqual(self.successResultOf(record).contents, "mine")

    def test_more_than_fits(self) -> None:
        """Requests that do not fit into an answer are sent with the next one."""
        record = self.next_of(contents=True)
        for number in range(200):
            self.log.note("msul1", 7, b"%d:" % number + b"x" * 1900, "get", "answered", lond=1.0)
        self.pump.flush()
        numbers = [self.successResultOf(record).number]
        numbers += [self.successResultOf(self.next_of()).number for _ in range(199)]
        self.assertEqual(numbers, list(range(1, 201)))

    def test_gone(self) -> None:
        """When the client has gone, nothing is traced any more."""
        self.next_of()
        self.assertTrue(self.log._watchers)
        Deferred.fromCoroutine(self.client.close())
        self.pump.flush()
        self.assertFalse(self.log._watchers)
