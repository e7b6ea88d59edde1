# trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""What a program does to ask lonc, step by step, without a socket."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lonc.client.exchange import (
    CON_DELAYED,
    CON_FAILED,
    CON_LOST,
    Broken,
    Connect,
    Conversation,
    HangUp,
    Late,
    Limits,
    Plan,
    Receive,
    Reply,
    Send,
    Step,
    Work,
    advance,
    critical,
)

PATH = "/sockets/l2"
LIMITS = Limits(connect=10.0, exchange=130.0, store=7.0)

Outcome = bytes | Broken | Late


def take(plan: Plan, *outcomes: Outcome) -> tuple[list[Step], Step | Reply]:
    """Tell a plan how its steps went; return these, and what follows them."""
    steps: list[Step] = []
    step = advance(plan)
    for outcome in outcomes:
        assert not isinstance(step, Reply), step
        steps.append(step)
        step = advance(plan, outcome)
    return steps, step


class ConversationTests(SynchronousTestCase):
    """One request, or several on one connection (protocol, section 5)."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.talk = Conversation(PATH, 100, LIMITS, self.clock.seconds)

    def ask(self, *outcomes: Outcome) -> Reply:
        """Ask for a ping, with the given outcomes of the steps; return the reply."""
        self.steps, reply = take(self.talk.ask(b"ping", 130.0), *outcomes)
        assert isinstance(reply, Reply), reply
        return reply

    def test_steps(self) -> None:
        """It connects, sends the line, and reads until there is a whole one."""
        reply = self.ask(b"", b"", b"l", b"2\n")
        self.assertEqual((reply, reply.why), (b"l2", ""))
        self.assertEqual(
            self.steps,
            [Connect(PATH, 10.0), Send(b"ping\n", 130.0), Receive(130.0), Receive(130.0)],
        )

    def test_limits(self) -> None:
        """What has passed is taken off the limit of each step, bytes that trickle in or not."""
        plan = self.talk.ask(b"ping", 30.0)
        self.assertEqual(advance(plan), Connect(PATH, 10.0))
        self.clock.advance(1)
        self.assertEqual(advance(plan, b""), Send(b"ping\n", 29.0))
        self.clock.advance(1)
        self.assertEqual(advance(plan, b""), Receive(28.0))
        for left in range(27, 0, -1):
            self.clock.advance(1)
            self.assertEqual(advance(plan, b"."), Receive(float(left)))
        self.clock.advance(1)
        self.assertEqual(advance(plan, b"."), HangUp())
        reply = advance(plan, b"")
        assert isinstance(reply, Reply)
        self.assertEqual((reply, reply.why), (b"con_lost", f"{PATH}: no answer within 30 s"))

    def test_short_limit(self) -> None:
        """Connecting gets no more than what the caller gives to the whole."""
        self.assertEqual(advance(self.talk.ask(b"ping", 3.0)), Connect(PATH, 3.0))

    def test_no_connection(self) -> None:
        """No socket, or nobody who takes the connection: con_lost, and the reason is told."""
        reply = self.ask(Broken("No such file or directory"), b"")
        self.assertEqual((reply, reply.why), (CON_LOST, f"{PATH}: No such file or directory"))
        reply = self.ask(Late(), b"")
        self.assertEqual((reply, reply.why), (CON_LOST, f"{PATH}: no connection within 10 s"))

    def test_lost_later(self) -> None:
        """A failure at any later step: con_lost, after the connection is closed."""
        cases: list[tuple[list[Outcome], str]] = [
            ([Broken("Broken pipe")], "Broken pipe"),
            ([Late()], "no answer within 130 s"),
            ([b"", Broken("Connection reset by peer")], "Connection reset by peer"),
            ([b"", Late()], "no answer within 130 s"),
            ([b"", b"l2", Late()], "no answer within 130 s"),
        ]
        for outcomes, why in cases:
            reply = self.ask(b"", *outcomes, b"")
            self.assertEqual((reply, reply.why), (CON_LOST, f"{PATH}: {why}"))
            self.assertEqual(self.steps[-1], HangUp())

    def test_cut_short(self) -> None:
        """An answer without its end is no answer."""
        for outcomes in ([b""], [b"o", b""]):
            reply = self.ask(b"", b"", *outcomes, b"")
            self.assertEqual((reply, reply.why), (CON_LOST, f"{PATH}: closed without an answer"))

    def test_too_long(self) -> None:
        """An answer over the limit is not kept in memory."""
        reply = self.ask(b"", b"", b"." * 101, b"")
        self.assertEqual((reply, reply.why), (CON_LOST, f"{PATH}: a line is longer than 100 bytes"))
        self.assertEqual(self.ask(b"", b"", b"." * 100 + b"\n"), b"." * 100)

    def test_lonc_says_con_lost(self) -> None:
        """lonc's own con_lost is told from ours, and leaves the connection as it is."""
        reply = self.ask(b"", b"", b"con_lost\n")
        self.assertEqual((reply, reply.why), (CON_LOST, f"{PATH}: lonc says so"))
        self.ask(Late(), b"", b"l2\n")
        self.assertEqual(self.steps[0], Receive(0.0))

    def test_again(self) -> None:
        """The next request uses the connection, once it is seen that nothing has come on it."""
        self.ask(b"", b"", b"l2\n")
        self.assertEqual(self.ask(Late(), b"", b"again\n"), b"again")
        self.assertEqual(self.steps, [Receive(0.0), Send(b"ping\n", 130.0), Receive(130.0)])

    def test_closed_meanwhile(self) -> None:
        """A connection that lonc has closed, or broken, or spoken on, is made anew."""
        self.ask(b"", b"", b"l2\n")
        for found in (b"", Broken("Connection reset by peer"), b"what nobody asked for\n"):
            self.assertEqual(self.ask(found, b"", b"", b"l2\n"), b"l2")
            self.assertIsInstance(self.steps[1], Connect)

    def test_more_than_an_answer(self) -> None:
        """What follows an answer is never taken for the answer to the next request."""
        self.assertEqual(self.ask(b"", b"", b"l2\nanother's\n", b""), b"l2")
        self.assertEqual(self.steps[-1], HangUp())
        self.assertEqual(self.ask(b"", b"", b"mine\n"), b"mine")
        self.assertIsInstance(self.steps[0], Connect)

    def test_left_in_the_middle(self) -> None:
        """A request that is given up leaves its answer to nobody: the next one connects anew."""
        self.ask(b"", b"", b"l2\n")
        for outcomes in ([Late(), b""], [b""]):  # the second one is still connecting
            plan = self.talk.ask(b"ping", 130.0)
            take(plan, *outcomes)
            plan.close()
            self.assertEqual(self.ask(b"", b"", b"mine\n"), b"mine")
            self.assertIsInstance(self.steps[0], Connect)


class CriticalTests(SynchronousTestCase):
    """A request that must not be lost (protocol, section 6)."""

    def setUp(self) -> None:
        self.notes: list[str] = []

    def store(self) -> None:
        """Is never called: how it goes is said instead."""

    def critical(self, asked: Plan) -> Plan:
        return critical(asked, self.store, self.notes.append, 7.0)

    def asked(self, reply: bytes, why: str = "") -> Plan:
        """An exchange that has its reply without a step."""
        yield from ()
        return Reply(reply, why)

    def note(self, step: Step | Reply) -> list[str]:
        """Take the step that notes; return what was noted."""
        assert isinstance(step, Work)
        self.assertEqual(step.limit, 7.0)
        step.call()
        return self.notes

    def test_answered(self) -> None:
        """Whatever a lond answers is the reply, a refusal too, and nothing is stored."""
        for answer in (b"ok", b"refused", b"error:no", b"", b"con_lost_and_found"):
            self.assertEqual(advance(self.critical(self.asked(answer))), answer)

    def test_delayed(self) -> None:
        """On con_lost it is stored, that is noted, and the reply tells so and why."""
        plan = self.critical(self.asked(CON_LOST, "no lonc"))
        steps, step = take(plan, b"")
        self.assertEqual(steps, [Work(self.store, 7.0)])
        self.assertEqual(self.note(step), ["D"])
        reply = advance(plan, b"")
        assert isinstance(reply, Reply)
        self.assertEqual((reply, reply.why), (CON_DELAYED, "no lonc"))

    def test_failed(self) -> None:
        """When it cannot be stored, or not in time, that is noted, and nothing is promised."""
        cases: list[tuple[Outcome, str]] = [
            (Broken("disk full"), "disk full"),
            (Broken(""), "no reason is known"),
            (Late(), "no answer from the disk within 7 s, and it may be stored all the same"),
        ]
        for outcome, why in cases:
            self.notes.clear()
            plan = self.critical(self.asked(CON_LOST, "no lonc"))
            _, step = take(plan, outcome)
            self.assertEqual(self.note(step), ["F"])
            reply = advance(plan, b"")
            assert isinstance(reply, Reply)
            self.assertEqual((reply, reply.why), (CON_FAILED, f"no lonc; {why}"))

    def test_no_note(self) -> None:
        """A note that cannot be written changes nothing but the reason."""
        plan = self.critical(self.asked(CON_LOST, "no lonc"))
        _, reply = take(plan, b"", Broken("no log"))
        assert isinstance(reply, Reply)
        self.assertEqual((reply, reply.why), (CON_DELAYED, "no lonc; no log"))

    def test_own_time_limit(self) -> None:
        """It is stored too when only our own time was over: done twice is better than never."""
        talk = Conversation(PATH, 100, LIMITS, Clock().seconds)
        plan = self.critical(talk.ask(b"put:d:u:n:a=1", 130.0))
        steps, step = take(plan, b"", b"", Late(), b"")
        self.assertEqual(steps[-1], HangUp())
        self.assertEqual(step, Work(self.store, 7.0))


class ReplyTests(SynchronousTestCase):
    """What a program gets."""

    def test_bytes(self) -> None:
        """It is bytes, and equal to them."""
        reply = Reply(b"ok", "a reason")
        self.assertIsInstance(reply, bytes)
        self.assertEqual(reply, b"ok")
        self.assertEqual({b"ok": 1}[reply], 1)

    def test_text(self) -> None:
        r"""For people it is text, and what is no UTF-8 is written as ``\xff``."""
        self.assertEqual(Reply("né".encode() + b"\xff").text, "né\\xff")
