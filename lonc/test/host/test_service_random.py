"""
What holds whatever happens: clients, londs and the administrator do anything in any order.

Every request holds a word of its own, and a lond's answer repeats it: so an answer that reaches
the wrong client shows.
"""

from __future__ import annotations

from random import Random

import attrs
from twisted.trial.unittest import SynchronousTestCase

from lonc.host.pause import Pause
from lonc.test.fixtures.beginnings import notes_of
from lonc.test.fixtures.doubles import (
    Attempt,
    FakeClient,
    NotedReceiver,
    ScriptedLond,
    a_host,
    leave_pending,
)
from lonc.test.fixtures.stage import Stage
from lonc.wire.request import CON_LOST, Cause, Request

SCRIPTS = 100
STEPS = 120


class Script:
    """One random life of a host; every step is followed by a look at what has to hold."""

    def __init__(self, test: SynchronousTestCase, seed: int) -> None:
        self.test = test
        self.random = random = Random(seed)
        self.stage = Stage(
            test,
            random=random,
            max_connections=random.choice([1, 2, 5, 10]),
            retries=random.choice([1, 2, 10, 50]),
            queue_limit=random.choice([1, 5, 100]),
            request_timeout=8,
            queue_timeout=5,
            connect_timeout=3,
            idle_timeout=10,
            write_timeout=10,
            max_clients=random.choice([3, 40]),
            max_unread=200,
        )
        self.askers: list[tuple[bytes, NotedReceiver]] = []
        self.clients: list[tuple[FakeClient, list[bytes]]] = []
        self.gone: list[FakeClient] = []
        self.answered: dict[ScriptedLond, int] = {}
        self.speaking: set[ScriptedLond] = set()
        self.words = 0
        often = [self.more_lines, self.answer, self.answer, self.answer, self.answer_in_pieces]
        now_and_then = [self.new_client, self.ask, self.read, self.wait, self.wait]
        rarely = [
            self.half_close,
            self.hang_up,
            self.answer_and_more,
            self.break_connection,
            self.break_all,
            self.speak_out_of_turn,
            self.half_an_answer,
            self.other_network,
            self.other_address,
            self.start_afresh,
            self.reset,
            self.pause,
        ]
        self.steps = 6 * often + 3 * now_and_then + rarely

    def play(self) -> None:
        """Do so many steps, then stop the host, and look at how all ended."""
        for _ in range(STEPS):
            self.random.choice(self.steps)()
            if self.random.random() < 0.7:
                self.stage.turn()
            self.look()
        self.stop()

    # ------------------------------------------------------------------ clients

    def line(self) -> bytes:
        """Return a request like no other."""
        self.words += 1
        kind = self.random.choice([b"", b"", b"encrypt:"])
        return kind + b"w%d" % self.words + b"." * self.random.choice([0, 1, 70]) + b"\n"

    def some_client(self) -> list[tuple[FakeClient, list[bytes]]]:
        """Return one client that has not gone, with its lines; none if there is none."""
        here = [each for each in self.clients if each[0] not in self.gone]
        return [self.random.choice(here)] if here else []

    def new_client(self) -> None:
        """A client comes, and may not read much."""
        room = self.random.choice([float("inf"), float("inf"), 100])
        client = self.stage.client(room=room)
        client.wire.pause_above = self.random.choice([0, 50])
        self.clients.append((client, []))
        self.more_lines()

    def more_lines(self) -> None:
        """A client sends a few lines in any pieces."""
        for client, lines in self.some_client():
            if client.wire._ended:
                return
            new = [self.line() for _ in range(self.random.choice([1, 1, 1, 2, 7]))]
            lines += new
            data = b"".join(new)
            while data:
                size = self.random.choice([1, 5, 1000])
                client.write(data[:size])
                data = data[size:]

    def ask(self) -> None:
        """A request arrives without a client."""
        line, asker = self.line(), NotedReceiver()
        self.askers.append((line, asker))
        self.stage.service.submit(Request(line, asker))

    def half_close(self) -> None:
        """A client closes its sending side."""
        for client, _ in self.some_client():
            client.half_close()
            self.gone.append(client)

    def hang_up(self) -> None:
        """A client goes."""
        for client, _ in self.some_client():
            client.hang_up()
            self.gone.append(client)

    def read(self) -> None:
        """A client reads."""
        for client, _ in self.some_client():
            client.wire.take(self.random.choice([10, 1000]))

    # ------------------------------------------------------------------ londs

    def some_lond(self, owing: bool) -> list[ScriptedLond]:
        """Return one open connection that owes an answer, or does not; none if there is none."""
        found = [
            lond
            for lond in self.stage.network.open_londs
            if (self.answered.get(lond, 0) < len(lond.asked)) is owing and lond not in self.speaking
        ]
        return [self.random.choice(found)] if found else []

    def next_answer(self, lond: ScriptedLond) -> bytes:
        """Return the answer to what was asked first: the request's own word."""
        number = self.answered.get(lond, 0)
        self.answered[lond] = number + 1
        answer = b"re:" + lond.asked[number]
        if lond.asked[number].startswith(b"encrypt:") and self.random.random() < 0.5:
            return lond.cipher.encrypt(answer[:-1]) + b"\n"
        return answer

    def answer(self) -> None:
        """A lond answers."""
        for lond in self.some_lond(owing=True):
            lond.say(self.next_answer(lond))

    def answer_and_more(self) -> None:
        """A lond says more than it was asked."""
        for lond in self.some_lond(owing=True):
            lond.say(self.next_answer(lond) + self.random.choice([b"\n", b"x", b"re:wrong\n"]))

    def answer_in_pieces(self) -> None:
        """A lond's answer comes in pieces, with time between them."""
        for lond in self.some_lond(owing=True):
            answer = self.next_answer(lond)
            half = self.random.randrange(len(answer))
            lond.say(answer[:half])
            self.speaking.add(lond)
            pause = self.random.choice([0, 1, 9])
            self.stage.clock.callLater(pause, self.rest_of_the_answer, lond, answer[half:])

    def rest_of_the_answer(self, lond: ScriptedLond, rest: bytes) -> None:
        """The last piece of an answer comes."""
        self.speaking.remove(lond)
        lond.say(rest)

    def half_an_answer(self) -> None:
        """A lond goes within its answer."""
        for lond in self.some_lond(owing=True):
            lond.say(self.next_answer(lond)[:-1])
            lond.close()

    def break_connection(self) -> None:
        """A connection breaks."""
        for lond in self.some_lond(owing=self.random.random() < 0.5):
            lond.close()

    def break_all(self) -> None:
        """A lond ends."""
        if self.random.random() < 0.5:
            for lond in self.stage.network.open_londs:
                lond.close()

    def speak_out_of_turn(self) -> None:
        """A lond sends a line without a request; otherwise it would be taken for an answer."""
        self.stage.turn()
        for lond in self.some_lond(owing=False):
            lond.say(b"re:wrong\n")

    # ------------------------------------------------------------------ all else

    def other_network(self) -> None:
        """Connections are made, refused, left hanging, or stall."""
        ways = [Attempt.accept, Attempt.accept, Attempt.accept, Attempt.refuse, leave_pending]
        self.stage.network.on_connect = self.random.choice(ways)
        self.stage.stall_at(self.random.choice([b"", b"", b"", b"init\n", b"ekey\n"]))

    def other_address(self) -> None:
        """The host's address changes."""
        if self.random.random() < 0.5:
            address = self.random.choice(["127.0.0.2", "127.0.0.3"])
            settings = attrs.evolve(self.stage.settings)
            self.stage.service.reconfigure(a_host(address=address), settings)

    def start_afresh(self) -> None:
        """Somebody closes every connection."""
        if self.random.random() < 0.5:
            client = self.stage.client(b"close_connection_exit\n")
            self.test.assertIn(client.read, (b"ok\n", CON_LOST))

    def reset(self) -> None:
        """The retries are given back."""
        if self.random.random() < 0.5:
            self.stage.service.reset_retries()

    def pause(self) -> None:
        """Somebody pauses the host, or resumes it."""
        if self.random.random() < 0.5:
            self.stage.service.resume()
        elif self.random.random() < 0.3:
            fail = self.random.random() < 0.5
            pause = Pause(by="root", reason="", since=0.0, until=0.0, fail=fail)
            self.stage.service.pause(pause, self.random.choice([0.0, 5.0]))

    def wait(self) -> None:
        """Time passes."""
        self.stage.advance(self.random.choice([0.25, 0.25, 0.25, 1, 1, 4, 30]))

    # ------------------------------------------------------------------ what has to hold

    def check(self, holds: bool, what: object) -> None:
        """Fail with the seed's story unless it holds."""
        self.test.assertTrue(holds, what)

    def look(self) -> None:
        """Check what holds at any time."""
        status, settings = self.stage.status, self.stage.settings
        self.check(status.connections <= settings.max_connections, status)
        self.check(status.waiting <= settings.queue_limit, status)
        self.check(0 <= status.retries_left <= settings.retries, status)
        if status.state != "stopping":
            self.check((status.state == "DEAD") == (status.retries_left == 0), status)
        self.check(status.state in ("up", "unproven") or status.waiting == 0, status)
        if not status.paused:
            self.check(status.waiting == 0 or status.connections > 0, status)
            self.check(status.waiting == 0 or status.idle == 0, status)
        if status.state == "DEAD":
            proving = self.stage.service.machine.pool.proving
            probing = status.connecting or status.handshaking or proving or status.next_probe >= 0
            self.check(bool(probing), status)
        lost = sum(status.con_lost.values()) - self.stage.lost(Cause.TOO_MANY_CLIENTS)
        self.check(status.answers + lost <= status.requests, status)
        for lond in self.stage.network.open_londs:
            self.check(len(lond.asked) - self.answered.get(lond, 0) <= 1, lond.asked)
        for line, asker in self.askers:
            self.check(len(asker.outcomes) <= 1, (line, asker.outcomes))
        for client, lines in self.clients:
            self.look_at(client, lines)

    def look_at(self, client: FakeClient, lines: list[bytes]) -> None:
        """Check that each answer is that to the client's own line, or con_lost."""
        *answers, rest = client.read.split(b"\n")
        for number, answer in enumerate(answers):
            if answer != CON_LOST[:-1]:
                self.check(number < len(lines), (answers, lines))
                self.check(answer + b"\n" == b"re:" + lines[number], (answers, lines))
        # Who makes room for another reads a con_lost that it did not ask for.
        most = len(lines) + client.wire.half_closed
        self.check(len(answers) + bool(rest) <= max(1, most), (answers, lines))

    def stop(self) -> None:
        """Stop the host, and check that everything has come to its end, once."""
        patient = []
        for client, lines in self.clients:
            client.wire.take()
            turned_away = client.wire.disconnecting or client.wire.half_closed
            if client not in self.gone and not turned_away:
                patient.append((client, lines))
        done = self.stage.stop()
        self.stage.turn()
        for _ in range(self.random.randrange(8)):
            self.answer()
            self.stage.turn()
        self.stage.clock.advance(self.stage.settings.drain_timeout)
        self.stage.clock.advance(1)
        self.stage.turn()
        self.check(done == [True], done)
        self.look()
        for line, asker in self.askers:
            (outcome,) = asker.outcomes
            self.check(isinstance(outcome, Cause) or outcome == b"re:" + line, (line, outcome))
        for client, lines in patient:
            # Who has asked nothing hears con_lost.
            self.check(len(client.answers) == max(1, len(lines)), (client.answers, lines))
        status = self.stage.status
        self.check((status.connections, status.clients, status.waiting) == (0, 0, 0), status)
        shared = self.stage.clients
        self.check((shared.open, shared.unread_bytes, shared.leaving) == (0, 0, {}), shared.leaving)
        self.check(all(lond.wire.closed for lond in self.stage.londs), "a lond's connection")
        self.stage.clock.advance(100)
        self.check(self.stage.clock.getDelayedCalls() == [], self.stage.clock.getDelayedCalls())


class RandomTests(SynchronousTestCase):
    """Every request ends once, and no answer reaches another client."""

    def test_scripts(self) -> None:
        """
        F1, F2, F16: in whatever order things happen, each request ends once, with its answer; and
        every way in which a request may end occurs.
        """
        seen = dict.fromkeys(Cause, 0)
        answers = 0
        notes = notes_of(self)
        for seed in range(SCRIPTS):
            script = Script(self, seed)
            try:
                script.play()
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            answers += script.stage.status.answers
            for cause in Cause:
                seen[cause] += script.stage.lost(cause)
        self.assertGreater(answers, 300)
        rare = {cause.value for cause, count in seen.items() if count == 0}
        self.assertEqual(
            rare - {"too_long", "memory", "no_cipher", "control_byte", "wrong_host", "not_served"},
            set(),
        )
        text = " ".join(str(event.get("trouble")) for event in notes.events)
        for word in ("refused", "timed out", "bad handshake", "broke"):
            self.assertIn(word, text)
