"""The exchange as a lond sees it."""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs

from lonc.lond.faults import ENDLESS, Fault, Step
from lonc.lond.store import Store
from lonc.test.fixtures.daemon_in_memory import breaks
from lonc.test.fixtures.lond_caller import Caller, LondTestCase
from lonc.wire.cipher import SessionCipher, session_key


class HandshakeTests(LondTestCase):
    """The handshake (protocol, section 2)."""

    def test_handshake(self) -> None:
        """Challenge, ok and build key have the right form; then a request is answered."""
        caller = Caller(self.lond())
        self.assertEqual(caller.heard(), b"")
        challenge = caller.say(b"init")
        self.assertRegex(challenge, rb"\A[0-9]+\n\Z")
        self.assertEqual(caller.say(challenge[:-1]), b"ok\n")
        self.assertRegex(caller.say(b"ekey"), rb"\A[0-9A-F]{32}\n\Z")
        self.assertEqual(caller.say(b"ping"), b"l2\n")
        self.assertFalse(caller.hung_up)

    def test_random(self) -> None:
        """Each connection has another challenge and another key."""
        factory = self.lond()
        callers = [Caller(factory), Caller(factory)]
        challenges = [caller.say(b"init")[:-1] for caller in callers]
        self.assertNotEqual(*challenges)
        for caller, challenge in zip(callers, challenges, strict=True):
            caller.say(challenge)
        self.assertNotEqual(*(caller.say(b"ekey") for caller in callers))

    def test_other_ways_in(self) -> None:
        """A caller that asks for an unsupported authentication mode gets a challenge."""
        for line in (b"init:ssl", b"init:", b"init:local", b"init:other:/tmp/key"):
            self.assertRegex(Caller(self.lond()).say(line), rb"\A[0-9]+\n\Z")
        old: dict[str, Any] = {"revision": None}
        for options in (old, {}):
            caller = Caller(self.lond(**options))
            self.assertRegex(caller.say(b"init:local:/tmp/key"), rb"\A[0-9]+\n\Z")

    def test_wrong_beginning(self) -> None:
        """Anything but init is refused, also requests."""
        for line in (b"ping", b"", b"initial", b"ekey", b"GET / HTTP/1.0"):
            caller = Caller(self.lond())
            self.assertEqual(caller.say(line), b"refused\n", line)
            self.assertTrue(caller.hung_up)
        self.assertEqual(self.requests, [])

    def test_wrong_challenge(self) -> None:
        """A caller that does not return the challenge is refused and no longer answered."""
        caller = Caller(self.lond())
        challenge = caller.say(b"init")[:-1]
        self.assertEqual(caller.say(b"0" + challenge), b"refused\n")
        self.assertTrue(caller.hung_up)
        self.assertEqual([caller.say(challenge), caller.say(b"ping")], [b"", b""])

    def test_lines_behind(self) -> None:
        """Lines after a refused one are not answered."""
        self.assertEqual(Caller(self.lond()).say(b"wrong\ninit"), b"refused\n")

    def test_unknown_caller(self) -> None:
        """A caller from an unknown address is refused, which is logged."""
        factory = self.lond({"127.0.0.1": "l1"})
        caller = Caller(factory, "127.0.0.9")
        with capturedLogs() as events:
            self.assertEqual(caller.say(b"init"), b"refused\n")
        self.assertTrue(caller.hung_up)
        self.assertEqual(events[0]["why"], "comes from an unknown address")

    def test_callers_by_address(self) -> None:
        """The address of a caller determines its host id."""
        factory = self.lond({"127.0.0.1": "l1", "127.0.0.3": "l3"})
        for address, answer in (("127.0.0.1", b"l2:l1\n"), ("127.0.0.3", b"l2:l3\n")):
            caller = Caller(factory, address)
            caller.enter()
            self.assertEqual(caller.say(b"pong"), answer)

    def test_in_pieces_and_at_once(self) -> None:
        """The data may be split anywhere."""
        caller = Caller(self.lond())
        for byte in b"init":
            caller.lond.dataReceived(bytes([byte]))
        self.assertEqual(caller.heard(), b"")
        challenge = caller.say(b"")
        caller.lond.dataReceived(challenge + b"ping\npong\nloa")
        self.assertEqual(caller.heard(), b"ok\nl2\nl2:l1\n")
        self.assertRegex(caller.say(b"d"), rb"\A[0-9.]+\n\Z")


class VersionTests(LondTestCase):
    """``version`` and ``sethost``."""

    def test_one_id(self) -> None:
        """Its own id may be set, or precede a request; others cannot be set."""
        caller = self.entered(revision="1.467")
        unable = b"unable_to_set"
        for _ in range(2):  # on both sides of ekey
            self.assert_answers(
                caller,
                (b"version", b"$Revision: 1.467 $"),
                (b"sethost:l2", b"ok"),
                *((line, unable) for line in (b"sethost:l1", b"sethost:", b"sethost")),
                (b"ping", b"l2"),
                (b"sethost:l2:ping", b"l2"),
                (b"sethost:l1:ping", unable),
            )
            frame = caller.cipher().encrypt(b"ping")
            self.assert_answers(caller, (b"sethost:l2:" + frame, b"l2"))

    def test_several(self) -> None:
        """A request without a host id is for the one set last."""
        self.assert_answers(
            self.entered(others={"l3": Store(":memory:")}),
            (b"ping", b"l2"),
            (b"sethost:l3:ping", b"l3"),
            (b"ping", b"l2"),
            (b"sethost:l3:put:d:u:n:a=1", b"ok"),
            (b"sethost:l2:get:d:u:n:a", b""),
            (b"sethost:l3", b"ok"),
            (b"get:d:u:n:a", b"1"),
            (b"pong", b"l3:l1"),
            (b"sethost:l9", b"unable_to_set"),
            (b"ping", b"l3"),
            (b"sethost:l2:ping", b"l2"),
        )

    def test_key_of_the_id_that_is_set(self) -> None:
        """The key is derived from the id set last, and is used for requests to all."""
        caller = self.entered(others={"l3": Store(":memory:")})
        caller.say(b"sethost:l3")
        cipher = SessionCipher(session_key("l3", "l1", caller.say(b"ekey")[:-1]))
        for host_id in (b"l2", b"l3"):
            frame = b"sethost:%s:%s" % (host_id, cipher.encrypt(b"ping"))
            self.assert_answers(caller, (frame, host_id))

    def test_no_sethost(self) -> None:
        """A lond without ``sethost`` serves its first id only."""
        self.assert_answers(
            self.entered(others={"l3": Store(":memory:")}, knows_sethost=False),
            (b"version", b"$Revision: 1.0 $"),
            (b"sethost:l3", b"unknown_cmd"),
            (b"sethost:l3:ping", b"unknown_cmd"),
            (b"ping", b"l2"),
        )

    def test_old(self) -> None:
        """A lond of an old release supports neither; the release can be changed at any time."""
        factory = self.lond()
        caller = Caller(factory)
        caller.enter()
        factory.revision = None
        self.assert_answers(
            caller,
            (b"version", b"unknown_cmd"),
            (b"sethost:l2", b"unknown_cmd"),
            (b"sethost:l2:ping", b"unknown_cmd"),
            (b"ping", b"l2"),
        )


class EncryptedTests(LondTestCase):
    """Encrypted requests (protocol, section 4)."""

    def test_request(self) -> None:
        """An encrypted request is decrypted; answers and errors are not encrypted."""
        caller = self.entered()
        cipher = caller.cipher()
        self.assert_answers(
            caller,
            (cipher.encrypt(b"put:d:u:n:password=x"), b"ok"),
            (b"get:d:u:n:password", b"x"),
            (b"eget:d:u:n", b"error:no key is given"),
            # A newline at the end of the text is no part of the request; stored, one in it would
            # break an answer in two.
            (cipher.encrypt(b"get:d:u:n:password\n"), b"x"),
            (cipher.encrypt(b"put:d:u:n:a=1\nb"), b"error:more than one line in a frame"),
            (b"enc:5:zz", b"error:a text of 5 bytes takes 16 hex digits, not 2"),
            # An encrypted text is a request, not a frame again.
            (cipher.encrypt(cipher.encrypt(b"ping")), b"unknown_cmd"),
        )
        clear = b"get:d:u:n:password"
        self.assertEqual(self.requests[:2], [b"put:d:u:n:password=x", clear])
        self.assertEqual(self.requests[3], clear)

    def test_eget(self) -> None:
        """The answer to eget is encrypted, even if the request was not."""
        caller = self.entered()
        cipher = caller.cipher()
        caller.say(b"put:d:u:n:a=1&b=2")
        for line in (b"eget:d:u:n:b&a", cipher.encrypt(b"eget:d:u:n:b&a")):
            answer = caller.say(line)
            self.assertTrue(answer.startswith(b"enc:"), answer)
            self.assertEqual(cipher.decrypt(answer[:-1]), b"2&1")

    def test_without_a_key(self) -> None:
        """Before ekey, nothing can be decrypted or encrypted."""
        frame = SessionCipher(bytes(16)).encrypt(b"ping")
        no_key = b"error:no_key"
        self.assert_answers(self.entered(), (frame, no_key), (b"eget:d:u:n:a", no_key))


class LimitTests(LondTestCase):
    """Limits on time and on lines."""

    def test_handshake_as_a_whole(self) -> None:
        """The whole handshake has to be complete after a minute."""
        caller = Caller(self.lond())
        for _ in range(59):
            self.clock.advance(1)
            caller.lond.dataReceived(b"x")
            self.assertFalse(caller.hung_up)
        self.clock.advance(1)
        self.assertTrue(caller.hung_up)

    def test_idle(self) -> None:
        """A caller that sends nothing until the time limit is disconnected."""
        caller = self.entered(idle_limit=100.0)
        self.clock.advance(99)
        caller.say(b"ping")
        self.clock.advance(99)
        self.assertFalse(caller.hung_up)
        self.clock.advance(1)
        self.assertTrue(caller.hung_up)

    def test_line_before_the_handshake(self) -> None:
        """Lines of the handshake have a lower limit."""
        caller = Caller(self.lond())
        caller.lond.dataReceived(b"x" * 4097)
        self.assertEqual(caller.heard(), b"error:a line is longer than 4096 bytes\n")
        self.assertTrue(caller.hung_up)

    def test_line(self) -> None:
        """A line over the limit ends the connection."""
        caller = self.entered(line_limit=10)
        self.assertEqual(caller.say(b"0123456789"), b"unknown_cmd\n")
        self.assertEqual(caller.say(b"01234567890"), b"error:a line is longer than 10 bytes\n")
        self.assertTrue(caller.hung_up)

    def test_hanging_up_has_a_limit(self) -> None:
        """A caller that does not read the last data is aborted after seconds."""
        caller = Caller(self.lond())
        caller.say(b"wrong")
        self.assertFalse(caller.transport.disconnected)
        self.clock.advance(5)
        self.assertTrue(caller.transport.disconnected)

    def test_gone(self) -> None:
        """A caller that disconnects leaves no delayed call."""
        factory = self.lond()
        factory.faults.order(Step.INIT, Fault(delay=10.0))
        caller = Caller(factory)
        caller.say(b"init")
        caller.hang_up()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class UnreadAnswersTests(LondTestCase):
    """A caller that does not read."""

    def test_choked(self) -> None:
        """It is not read from, and its requests are answered when it reads again."""
        caller = self.entered()
        self.assertIs(caller.transport.producer, caller.lond)
        caller.lond.pauseProducing()
        self.assertEqual(caller.transport.producerState, "paused")
        self.assertEqual(caller.say(b"ping"), b"")
        caller.lond.resumeProducing()
        self.assertEqual(caller.transport.producerState, "producing")
        self.assertEqual(caller.heard(), b"l2\n")

    def test_endless_line(self) -> None:
        """An endless line continues only while it is read."""
        factory = self.lond()
        factory.faults.order(Step.REQUEST, ENDLESS)
        caller = Caller(factory)
        caller.enter()
        self.assertEqual(len(caller.say(b"ping")), 65536)
        self.clock.pump([0.001] * 3)
        self.assertEqual(len(caller.heard()), 3 * 65536)
        caller.lond.pauseProducing()
        self.clock.pump([0.001] * 3)
        self.assertEqual(caller.heard(), b"")
        caller.lond.resumeProducing()
        self.assertEqual(len(caller.heard()), 65536)

    def test_pause_of_a_fault_is_kept(self) -> None:
        """The pause of a fault is not shortened when it reads again."""
        factory = self.lond()
        factory.faults.order(Step.REQUEST, Fault(delay=10.0))
        caller = Caller(factory)
        caller.enter()
        caller.say(b"ping")
        caller.lond.pauseProducing()
        caller.lond.resumeProducing()
        self.assertEqual(caller.heard(), b"")
        self.clock.advance(10)
        self.assertEqual(caller.heard(), b"l2\n")


class FactoryTests(LondTestCase):
    """The lond as a whole."""

    def test_counts(self) -> None:
        """Connections and requests are counted, and each request is passed to the witness."""
        factory = self.lond()
        first, second = Caller(factory), Caller(factory)
        self.assertEqual(factory.connections, {first.lond, second.lond})
        first.enter()
        first.say(b"version")
        first.say(b"ping")
        first.say(b"what")
        first.hang_up()
        self.assertEqual(factory.connections, {second.lond})
        self.assertEqual((factory.accepted, factory.requests), (2, 2))
        self.assertEqual(self.requests, [b"ping", b"what"])

    def test_close_connections(self) -> None:
        """All are closed; each Deferred fires when the last one is."""
        factory = self.lond()
        self.assertIsNone(self.successResultOf(factory.close_connections()))
        callers = [Caller(factory), Caller(factory)]
        closed = [factory.close_connections(), factory.close_connections()]
        for caller in callers:
            self.assertTrue(caller.hung_up)
            for deferred in closed:
                self.assertNoResult(deferred)
            caller.hang_up()
        for deferred in closed:
            self.assertIsNone(self.successResultOf(deferred))

    def test_nothing_after_close(self) -> None:
        """Once the connections are closed, requests that have arrived are not carried out."""
        factory = self.lond()
        caller = Caller(factory)
        caller.enter()
        factory.witness = lambda request: factory.close_connections()
        self.assertEqual(caller.say(b"ping\nping"), b"l2\n")
        self.assertEqual((factory.requests, caller.hung_up), (1, True))

    def test_fault(self) -> None:
        """An exception inside the lond is logged, and aborts that connection."""
        factory = self.lond()
        caller = Caller(factory)
        caller.enter()
        factory.witness = breaks
        caller.say(b"ping")
        self.assertTrue(caller.hung_up)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_log_keeps_requests_to_itself(self) -> None:
        """No part of a request or an answer is logged."""
        with capturedLogs() as events:
            caller = self.entered(line_limit=40)
            caller.say(b"put:d:u:n:secret=1")
            caller.say(b"put:d:u:n:secret")
            caller.say(b"get:d:u:n:" + b"secret" * 10)
            Caller(self.lond()).say(b"secret")
        self.assertNotIn("secret", str(events))
