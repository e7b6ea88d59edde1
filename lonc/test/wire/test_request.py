"""A request, and who waits for its outcome."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lonc.wire.request import (
    ADDRESSED,
    Cause,
    ConLost,
    Nobody,
    Request,
    Waiter,
    addressee,
    command_word,
    has_control_byte,
    is_secret,
    refusal,
    without_addressee,
)


class CommandWordTests(SynchronousTestCase):
    """The only part of a request that may be logged."""

    def test_words(self) -> None:
        """The first word, if short; after ``encrypt:``, the next one, too."""
        words = {
            b"ping\n": "ping",
            b"ping": "ping",
            b"ping\r\n": "ping",
            b"x" * 32 + b":": "x" * 32,
            b"put:msu:alice:secret\n": "put",
            b"encrypt:auth:msu:alice:password\n": "encrypt:auth",
            b"encrypt\n": "encrypt",
            b"encrypted:secret\n": "encrypted",
            b"du2:x\n": "du2",
            b"sethost:l2:put:msu:alice:secret\n": "put",
            b"sethost:l2:encrypt:auth:msu:alice:password\n": "encrypt:auth",
            b"sethost:l2\n": "sethost",
        }
        for line, word in words.items():
            self.assertEqual(command_word(line), word)

    def test_no_word(self) -> None:
        """Anything else may be a password, and is not shown."""
        for line in (
            b"",
            b"\n",
            b":secret\n",
            b"a b\n",
            b"caf\xe9:x\n",
            b"a\0b:\n",
            b"a\x1b[2J:\n",
            b"x" * 100_000 + b"\n",
        ):
            self.assertEqual(command_word(line), "?")
        for secret in (b"my secret", b"secret", b"secret\r", b"\0:x", b"x" * 33 + b":"):
            self.assertEqual(command_word(b"encrypt:" + secret + b"\n"), "encrypt")
            self.assertEqual(command_word(b"sethost:l2:encrypt:" + secret + b"\n"), "encrypt")
        self.assertEqual(command_word(b"encrypt:\n"), "encrypt")

    def test_secret(self) -> None:
        """A request to be encrypted is secret, whichever host it names."""
        for line in (b"encrypt:x\n", b"sethost:l2:encrypt:x\n", b"sethost:a:sethost:b:encrypt:x\n"):
            self.assertTrue(is_secret(line), line)
        for line in (b"put:encrypt:x\n", b"encrypted:x\n", b"sethost:l2:put:encrypt:\n"):
            self.assertFalse(is_secret(line), line)

    def test_of_a_request(self) -> None:
        """A request has its command word."""
        self.assertEqual(Request(b"get:msu:alice:x\n", Nobody()).command, "get")


class ControlByteTests(SynchronousTestCase):
    """Requests that a lond might interpret differently from lonc."""

    PREFIXES = (b"", b"encrypt:", b"sethost:l2:", b"sethost:l2:encrypt:", b"encrypt:encrypt:")

    def test_in_the_command(self) -> None:
        """A control byte in the command word is found, after all prefixes."""
        for byte in [*range(0x20), 0x7F]:
            if byte == 0x0A:
                continue
            for prefix in self.PREFIXES:
                for line in (b"ek%cey\n", b"%cekey:x\n", b"ekey%c:x\n", b"p%cing\r\n", b"%c\r\n"):
                    line = prefix + line % byte
                    self.assertTrue(has_control_byte(line), line)
            for line in (b"seth%cost:l2:ping\n", b"encrypt%c:ping\n"):
                self.assertTrue(has_control_byte(line % byte), line % byte)

    def test_elsewhere(self) -> None:
        """Control bytes after the command, and one final carriage return, are allowed."""
        for prefix in self.PREFIXES:
            for line in (b"put:a\0b\x7f\r\n", b"ping\n", b"ping\r\n", b"\n", b"\r\n", b"caf\xe9\n"):
                self.assertFalse(has_control_byte(prefix + line), line)
        self.assertTrue(has_control_byte(b"ping\r\r\n"))


class AddresseeTests(SynchronousTestCase):
    """Requests that name a host (protocol, section 5)."""

    def test_named(self) -> None:
        """The host id after ``sethost:`` is found, with or without a request."""
        for rest in (b"ping", b"put:d:u:x", b"encrypt:put:d:u:x", b"close_connection_exit", b""):
            self.assertEqual(addressee(b"sethost:l2:" + rest + b"\n"), "l2")
        self.assertEqual(addressee(b"sethost:l2\n"), "l2")
        self.assertEqual(addressee(b"sethost:\xff/..:ping\n"), "\ufffd/..")

    def test_none_named(self) -> None:
        """Other requests name no host, even if they look similar."""
        for line in (b"ping\n", b"sethosts:l2:x\n", b"encrypt:sethosts:x\n", b"put:sethost:l2:x\n"):
            self.assertIsNone(addressee(line))

    def test_not_to_be_sent(self) -> None:
        """A missing or nested id, which a lond would remember, gives an empty id."""
        for line in (
            b"sethost\n",
            b"sethost:\n",
            b"sethost::ping\n",
            b"sethost:l2:sethost:l1:ping\n",
            b"sethost:l2:sethost\n",
            b"sethost:l2:encrypt:sethost:l1\n",
            b"encrypt:sethost:l2:ping\n",
            b"encrypt:sethost\n",
        ):
            self.assertEqual(addressee(line), "", line)

    def test_quick_look(self) -> None:
        """The first bytes show whether a request has to be examined."""
        for line in (b"sethost\n", b"sethost:l2:ping\n", b"encrypt:sethost:l2\n"):
            self.assertTrue(line.startswith(ADDRESSED))

    def test_without(self) -> None:
        """Prefix and request are separated, unless there is no request."""
        for line, prefix, rest in (
            (b"sethost:l2:put:d:u:x\n", b"sethost:l2:", b"put:d:u:x\n"),
            (b"sethost:l2:\n", b"sethost:l2:", b"\n"),
            (b"sethost:l2\n", b"", b"sethost:l2\n"),
            (b"put:d:sethost:l2:x\n", b"", b"put:d:sethost:l2:x\n"),
        ):
            self.assertEqual(without_addressee(line), (prefix, rest))


class WaiterTests(SynchronousTestCase):
    """Passing a reply to a Deferred."""

    def test_answered(self) -> None:
        """The Deferred fires with the reply."""
        waiter = Waiter()
        self.assertNoResult(waiter.outcome)
        waiter.answered(b"ok\n")
        self.assertEqual(self.successResultOf(waiter.outcome), b"ok\n")

    def test_nobody(self) -> None:
        """F16: replies to disconnected clients are discarded."""
        Nobody().answered(b"l2\n")
        Nobody().lost(Cause.BROKEN)

    def test_lost(self) -> None:
        """The Deferred fails with ConLost, whose text has the cause and the host."""
        for cause in Cause:
            waiter = Waiter("l2")
            waiter.lost(cause)
            failure = self.failureResultOf(waiter.outcome, ConLost)
            self.assertIs(failure.value.cause, cause)
            self.assertEqual(str(failure.value), f"l2: con_lost ({cause.value}): {cause.why}")
        self.assertEqual(str(ConLost(Cause.DEAD)), "con_lost (dead): the host is DEAD")


class RefusalTests(SynchronousTestCase):
    """Negative replies (F8)."""

    def test_no(self) -> None:
        """F8: negative replies are recognised, with and without further text."""
        for answer, word in [
            (b"error:No such file\n", "error"),
            (b"error: 2 tie(GDBM) Failed while attempting put\n", "error"),
            (b"error\n", "error"),
            (b"Error: disk full\n", "error"),
            (b"refused\n", "refused"),
            (b"rejected\n", "rejected"),
            (b"unknown_cmd\n", "unknown_cmd"),
            (b"unknown_cmd", "unknown_cmd"),
            (b"auth_mode_error:krb4\n", "auth_mode_error"),
            (b"non_authorized: not yours\n", "non_authorized"),
            (b" refused\r\n", "refused"),
            (b"con_lost\n", "con_lost"),
        ]:
            self.assertEqual(refusal(answer), word, answer)

    def test_yes(self) -> None:
        """Values, numbers and empty replies are positive, even if they begin similarly."""
        for answer in [
            b"ok\n",
            b"ok:refused\n",
            b"\n",
            b"",
            b"17\n",
            b"refused=1&error=2\n",
            b"error_rate=3\n",
            b"error=3&warning=4\n",
            b"error&warning\n",
            b"rejected_papers:4\n",
            b"\xff\xfe\n",
        ]:
            self.assertIsNone(refusal(answer), answer)
