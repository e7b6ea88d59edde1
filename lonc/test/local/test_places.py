"""Silent clients, where every place is taken (row F3)."""

from __future__ import annotations

from lonc.local.client_socket import ClientListener
from lonc.local.limits import Clients
from lonc.test.fixtures.doubles import FakeClient
from lonc.test.fixtures.local_client import ClientTestCase
from lonc.wire.request import CON_LOST


class RoomTests(ClientTestCase):
    """Which client is disconnected for a new one."""

    def of(self, program: int, *segments: bytes, user: int = 33) -> FakeClient:
        """Return a new client of a program, a second after the previous one."""
        self.advance(1)
        return self.client(*segments, program=program, user=user)

    def test_longest_silent(self) -> None:
        """The client silent for longest gets con_lost, and the new one is served."""
        self.begin(max_clients=3)
        one, two, three = (self.of(7) for _ in range(3))
        one.write(b"ping\n")
        self.advance(1)
        self.host.answer()
        newcomer = self.of(8, b"hello\n")
        self.assertEqual((two.read, one.read, three.read), (CON_LOST, b"re:ping\n", b""))
        self.assertEqual(self.host.asked[1:], [b"hello\n"])
        self.assertEqual((self.host.lost, self.clients.cut_off.count), ([], 1))
        self.assertIn("an idle one is disconnected", self.notes.events[0]["what"])
        for client in (one, two, three, newcomer):
            client.hang_up()
        self.assert_forgotten()

    def test_descriptors(self) -> None:
        """If descriptors are short, there are fewer places than configured."""
        places = 1
        self.begin(max_clients=3)
        self.clients = Clients(self.clients.settings, self.clock, lambda: places)
        self.listener = ClientListener(self.host, self.clients)
        one, two = self.of(7), self.of(7)
        self.assertEqual((one.read, two.read), (CON_LOST, b""))
        places = 2
        self.clients.reconfigure(self.clients.settings)
        self.of(7)
        self.assertEqual(two.read, b"")
        self.of(7)
        self.assertEqual(two.read, CON_LOST)

    def test_program_with_most(self) -> None:
        """It is one of the program with most clients, even if others are silent for longer."""
        self.begin(max_clients=3)
        alone, one, two = self.of(7), self.of(8), self.of(8)
        self.of(9)
        self.assertEqual([each.read for each in (alone, one, two)], [b"", CON_LOST, b""])

    def test_who_has_something_to_say(self) -> None:
        """Clients with a request, an incomplete line, or unread data of either side stay."""
        self.begin(max_clients=5)
        asks, begins = self.of(7, b"ping\n"), self.of(7, b"pi")
        reads_slowly = self.of(7, b"a\n")
        self.host.waiting.pop().asker.answered(b"b\n")
        reads_slowly.wire.room = 0
        reads_slowly.write(b"c\n")
        self.host.waiting.pop().asker.answered(b"d\n")
        has_sent = self.of(7)
        has_sent.wire.pauseProducing()
        has_sent.write(b"not read yet\n")
        silent = self.of(7)
        self.of(7)
        self.assertEqual(silent.read, CON_LOST)
        self.assertEqual([each.read for each in (asks, begins, has_sent)], [b""] * 3)
        self.assertEqual(reads_slowly.read, b"b\n")

    def test_nobody_is_silent(self) -> None:
        """If no client is silent, the new one gets con_lost."""
        self.begin(max_clients=2)
        for _ in range(2):
            self.of(7, b"ping\n")
        newcomer = self.of(8, b"ping\n")
        self.assertEqual((newcomer.read, len(self.host.asked)), (CON_LOST, 2))

    def test_program_that_takes_all(self) -> None:
        """A program with requests on all its clients does not displace silent ones of another."""
        self.begin(max_clients=3)
        for _ in range(2):
            self.of(7, b"ping\n")
        silent = self.of(8)
        newcomer = self.of(7, b"ping\n")
        self.assertEqual((newcomer.read, silent.read), (CON_LOST, b""))

    def test_newcomer_counts(self) -> None:
        """The new client counts for its program, which may not have more than the other."""
        self.begin(max_clients=4)
        silent = [self.of(7), self.of(7)]
        for _ in range(2):
            self.of(8, b"ping\n")
        newcomer = self.of(8, b"ping\n")
        self.assertEqual(newcomer.read, CON_LOST)
        self.assertEqual([each.read for each in silent], [b"", b""])
        self.assertEqual(self.of(9, b"ping\n").read, b"")

    def test_next_to_make_room(self) -> None:
        """Each time the program with most clients is determined anew."""
        self.begin(max_clients=5)
        older = [self.of(8), self.of(8)]
        younger = [self.of(7) for _ in range(3)]
        self.advance(1)
        for program in (9, 10):
            self.client(b"ping\n", program=program)
        self.assertEqual([each.read for each in younger], [CON_LOST, b"", b""])
        self.assertEqual([each.read for each in older], [CON_LOST, b""])

    def test_silent_for_as_long(self) -> None:
        """Of clients that connected at the same time it is the first."""
        self.begin(max_clients=2)
        first, second = self.client(program=7), self.client(program=7)
        self.client(program=8)
        self.assertEqual((first.read, second.read), (CON_LOST, b""))

    def test_unknown_programs(self) -> None:
        """Clients of one user whose process is unknown count as one program."""
        self.begin(max_clients=5)
        one, two = self.of(0, user=33), self.of(0, user=34)
        others = [self.of(7), self.of(0, user=34), self.of(0, user=34)]
        self.of(0, user=33)
        self.assertEqual([each.read for each in (one, two, *others)], [b"", CON_LOST] + [b""] * 3)

    def test_container_that_takes_all(self) -> None:
        """A container that connects again and again displaces no other client."""
        self.begin(max_clients=3)
        silent = self.of(7)
        flood = [self.of(0, b"ping\n", user=0) for _ in range(5)]
        self.assertEqual(silent.read, b"")
        self.assertEqual([each.read for each in flood], [b"", b"", CON_LOST, CON_LOST, CON_LOST])

    def test_many_newcomers(self) -> None:
        """A client that is being disconnected has no place any more."""
        self.begin(max_clients=4)
        silent = [self.of(7) for _ in range(4)]
        newcomers = [self.of(program, b"ping\n") for program in (8, 9, 10, 11)]
        self.assertEqual([each.read for each in silent], [CON_LOST] * 4)
        self.assertEqual(len(self.host.waiting), 4)
        self.answer_all()
        self.assertEqual([each.read for each in newcomers], [b"re:ping\n"] * 4)

    def test_flood_of_newcomers(self) -> None:
        """Silent clients are determined once per sweep, for all new clients until the next."""
        self.begin(max_clients=2)
        silent, busy = self.of(7), self.of(7, b"ping\n")
        first = self.of(8, b"ping\n")
        self.host.answer()
        self.assertEqual((silent.read, busy.read), (CON_LOST, b"re:ping\n"))
        second = self.client(b"ping\n", program=9)
        self.assertEqual((busy.read, second.read), (b"re:ping\n", CON_LOST))
        third = self.of(10, b"ping\n")
        self.assertEqual((busy.read, third.read), (b"re:ping\n" + CON_LOST, b""))
        self.assertEqual(first.read, b"")
