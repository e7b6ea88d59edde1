"""What is offered to other people's tests: a host, its lond and faults."""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lonc.testing import (
    CLOSE,
    CON_LOST,
    EXTRA_LINE,
    REFUSE,
    SLOW,
    SPLIT,
    STALL,
    Fault,
    ServedHost,
    SkippingClock,
    Step,
)

PUT = "put:msu:alice:grades:essay=A"
GET = "get:msu:alice:grades:essay"


class ServedHostTests(TestCase):
    """A host in a test; that nothing is left of it is seen by trial itself."""

    async def test_ask(self) -> None:
        """It is asked over its socket, in text or bytes, and the lond has the requests."""
        host = ServedHost(self)
        self.assertEqual(await host.ask(PUT), b"ok")
        self.assertEqual(await host.ask(GET.encode()), b"A")
        self.assertEqual(host.requests, [PUT.encode(), GET.encode()])
        self.assertTrue(os.path.exists(host.path))

    async def test_two_hosts(self) -> None:
        """Two hosts of a test, also of one id, are apart."""
        one, other = ServedHost(self), ServedHost(self, "l3")
        another = ServedHost(self, "l3")
        self.assertEqual(await one.ask("ping"), b"l2")
        self.assertEqual(await other.ask(PUT), b"ok")
        self.assertEqual(await another.ask(GET), b"")

    async def test_settings(self) -> None:
        """Settings can be given."""
        host = ServedHost(self, request_timeout=5.0)
        host.faults.order(Step.REQUEST, STALL, times=1)
        reply = host.ask("load")
        await host.reached("load")
        host.skip(4.0)
        self.assertEqual(host.status.con_lost["timeout"], 0)
        host.skip(1.5)
        self.assertEqual(await reply, CON_LOST)
        self.assertEqual(host.status.con_lost["timeout"], 1)

    async def test_unknown_setting(self) -> None:
        """A setting that does not exist is an exception, and leaves nothing behind."""
        with self.assertRaises(TypeError):
            ServedHost(self, patience=5.0)

    async def test_stop_and_start(self) -> None:
        """A lond that is stopped is not reached; it comes back with its data."""
        host = ServedHost(self, retries=1)
        await host.ask(PUT)
        host.start_lond()  # it runs already
        await host.stop_lond()
        await host.stop_lond()  # it is stopped already
        self.assertEqual(await host.ask(GET), CON_LOST)
        host.start_lond()
        host.service.reset_retries()
        self.assertEqual(await host.ask(GET), b"A")

    async def test_refuse(self) -> None:
        """A lond that refuses lonc is not reached."""
        host = ServedHost(self, retries=1)
        host.faults.order(Step.INIT, REFUSE)
        self.assertEqual(await host.ask("ping"), CON_LOST)

    async def test_hang_up(self) -> None:
        """A lond that hangs up loses that request and no other."""
        host = ServedHost(self)
        host.faults.order(Step.REQUEST, CLOSE, times=1)
        self.assertEqual(await host.ask("ping"), CON_LOST)
        self.assertEqual(host.status.con_lost["broken"], 1)
        self.assertEqual(await host.ask("ping"), b"l2")

    async def test_slow(self) -> None:
        """A slow answer comes when its time was skipped, however long that is."""
        host = ServedHost(self)
        host.faults.order(Step.REQUEST, Fault(delay=SLOW.delay + 50.0))
        reply = host.ask("ping")
        await host.reached("ping")
        host.skip(SLOW.delay + 50.0)
        self.assertEqual(await reply, b"l2")

    async def test_split(self) -> None:
        """The time goes on by itself: an answer that comes byte by byte is there in the end."""
        host = ServedHost(self)
        host.faults.order(Step.REQUEST, SPLIT)
        self.assertEqual(await host.ask("ping"), b"l2")

    async def test_extra_line(self) -> None:
        """A line too many is not taken for the next answer."""
        host = ServedHost(self)
        host.faults.order(Step.REQUEST, EXTRA_LINE, times=1, command=b"ping")
        self.assertEqual(await host.ask("ping"), b"l2")
        self.assertEqual(await host.ask(PUT), b"ok")

    async def test_reached(self) -> None:
        """Several may await requests; a request that came before has reached the lond too."""
        host = ServedHost(self)
        put, load = host.reached("put"), host.reached(b"load")
        await host.ask(PUT)
        self.assertEqual(await put, PUT.encode())
        self.assertNoResult(load)
        self.assertEqual(await host.reached("put"), PUT.encode())
        await host.ask("load")
        self.assertEqual(await load, b"load")


class Forsaken(TestCase):
    """A test that ends with a host in the middle of its work."""

    async def runTest(self) -> None:
        """Leave a request without an answer, and another that waits for a connection."""
        host = ServedHost(self, max_connections=1)
        host.faults.order(Step.REQUEST, STALL)
        self.replies = [host.ask("load"), host.ask("ping")]
        self.path = host.path
        await host.reached("load")


class ClearingTests(TestCase):
    """What becomes of a host when the test is over."""

    async def test_end(self) -> None:
        """Whoever waits gets con_lost, and the folder is gone."""
        clean_ups: list[Callable[[], object]] = []
        test = Forsaken()
        test.addCleanup = clean_ups.append  # type: ignore[method-assign,assignment]
        await test.runTest()
        for clean_up in reversed(clean_ups):
            done = clean_up()
            if isinstance(done, Deferred):
                await done
        self.assertEqual([await reply for reply in test.replies], [CON_LOST] * 2)
        self.assertFalse(os.path.exists(os.path.dirname(test.path)))


class SkippingClockTests(SynchronousTestCase):
    """Time that goes on by itself, and can be skipped."""

    def setUp(self) -> None:
        """Have a clock on top of a test's own."""
        self.real = Clock()
        self.clock = SkippingClock(self.real)
        self.called: list[float] = []

    def note(self) -> None:
        """Take note of the time."""
        self.called.append(self.clock.seconds())

    def test_by_itself(self) -> None:
        """What is due is called as the real time goes on, in its order."""
        self.clock.callLater(2.0, self.note)
        self.clock.callLater(1.0, self.note)
        self.real.pump([0.5, 0.5, 1.0])
        self.assertEqual(self.called, [1.0, 2.0])
        self.assertEqual(self.real.getDelayedCalls(), [])

    def test_skip(self) -> None:
        """What is skipped is past, and the real time counts on from there."""
        self.clock.callLater(60.0, self.note)
        self.clock.skip(59.5)
        self.real.advance(0.25)
        self.assertEqual(self.called, [])
        self.real.advance(0.25)
        self.assertEqual(self.called, [60.0])

    def test_cancelled(self) -> None:
        """What is cancelled is not called, nor does it keep others from it."""
        self.clock.callLater(1.0, self.note).cancel()
        self.clock.callLater(2.0, self.note)
        self.real.advance(2.0)
        self.assertEqual(self.called, [2.0])

    def test_fault(self) -> None:
        """An exception in a call leaves the later ones as they were."""

        def fail() -> None:
            raise ValueError

        self.clock.callLater(1.0, fail)
        self.clock.callLater(2.0, self.note)
        with self.assertRaises(ValueError):
            self.real.advance(1.0)
        self.real.advance(1.0)
        self.assertEqual(self.called, [2.0])

    def test_stop(self) -> None:
        """A clock that is stopped calls nothing, and leaves nothing with the reactor."""
        self.clock.callLater(1.0, self.note)
        self.clock.stop()
        self.clock.callLater(1.0, self.note)
        self.assertEqual(self.real.getDelayedCalls(), [])
