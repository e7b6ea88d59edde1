"""What a lond answers to requests."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from lonc.lond.commands import Commands
from lonc.lond.store import Store


class CommandTestCase(SynchronousTestCase):
    """The lond of ``l2``, called by ``l1``."""

    def setUp(self) -> None:
        """Start without data."""
        self.store = Store(":memory:")
        self.addCleanup(self.store.close)
        self.commands = Commands("l2", self.store, load=lambda: 0.256)

    def ask(self, request: bytes) -> bytes:
        """Return the answer to a request."""
        return self.commands.answer(request, "l1")


class AnswerTests(CommandTestCase):
    """Requests and their answers."""

    def test_plain(self) -> None:
        """The commands without data; all others are unknown, including upper case."""
        for request, answer in (
            (b"ping", b"l2"),
            (b"pong", b"l2:l1"),
            (b"load", b"0.26"),
            *dict.fromkeys(
                (b"", b"quota:x", b"PING", b"putt:d:u:n:a=1", b"encrypt:ping", b":", b"\xff"),
                b"unknown_cmd",
            ).items(),
        ):
            self.assertEqual(self.ask(request), answer, request)

    def test_real_load(self) -> None:
        """By default, the load is that of this machine."""
        answer = Commands("l2", self.store).answer(b"load", "l1")
        self.assertGreaterEqual(float(answer), 0)

    def test_data(self) -> None:
        """The commands for data, one after the other."""
        for request, answer in (
            # What is not there is empty.
            (b"get:msu:alice:env:a", b""),
            (b"keys:msu:alice:env", b""),
            (b"dump:msu:alice:env", b""),
            # Values come back as they were put, in the order of the question.
            (b"put:msu:alice:env:b=2&a=1&c=x%26y&d=", b"ok"),
            (b"get:msu:alice:env:c&d&a&z", b"x%26y&&1&"),
            # Who sends the answer to eget encrypts it.
            (b"eget:msu:alice:env:b&a", b"2&1"),
            # Keys and pairs come in the order of the keys.
            (b"keys:msu:alice:env", b"a&b&c&d"),
            *dict.fromkeys(
                (b"dump:msu:alice:env", b"dump:msu:alice:env:", b"dump:msu:alice:env:."),
                b"a=1&b=2&c=x%26y&d=",
            ).items(),
            # Keys are removed, also such as are not there.
            (b"del:msu:alice:env:a&c&d&z", b"ok"),
            (b"dump:msu:alice:env", b"b=2"),
            # The last value counts. One may hold marks; a mark behind the last pair is no pair.
            (b"put:msu:alice:env:b=3&b=b=c:d&", b"ok"),
            (b"dump:msu:alice:env", b"b=b=c:d"),
            # Domain, user and namespace keep data apart.
            (b"put:msu:alice:grades:b=1", b"ok"),
            (b"put:msu:bob:env:b=2", b"ok"),
            (b"put:sfu:alice:env:b=3", b"ok"),
            (b"get:msu:alice:env:b", b"b=c:d"),
            (b"get:msu:bob:env:b", b"2"),
        ):
            self.assertEqual(self.ask(request), answer, request)

    def test_dump_some(self) -> None:
        """A regular expression selects keys, not values; an invalid one is an error."""
        self.ask(b"put:msu:alice:env:apple=b&banana=a&cherry=c")
        self.assertEqual(self.ask(b"dump:msu:alice:env:%5e%5bab%5d"), b"apple=b&banana=a")
        self.assertEqual(
            self.ask(b"dump:msu:alice:env:("),
            b"error:not a regular expression: missing ), unterminated subpattern at position 0",
        )
        self.assertEqual(
            self.ask(b"dump:msu:alice:env:(a+)+"),
            b"error:a regular expression that repeats a group is not served",
        )

    def test_errors(self) -> None:
        """Invalid arguments are errors with a reason."""
        where = b"error:the command takes a domain, a user and a namespace"
        pairs = b"error:not of the form key=value&key=value"
        for request, answer in [
            (b"put", where),
            (b"put:", where),
            (b"get:msu:alice", where),
            (b"get:msu::env:a", where),
            (b"dump::::", where),
            (b"keys:msu:alice:", where),
            (
                b"keys:msu:alice:env:more",
                b"error:keys takes a domain, a user and a namespace, and no more",
            ),
            (b"put:msu:alice:env", b"error:no key is given"),
            (b"get:msu:alice:env:", b"error:no key is given"),
            (b"del:msu:alice:env", b"error:no key is given"),
            (b"inc:msu:alice:env", b"error:no key is given"),
            (b"put:msu:alice:env:a", pairs),
            (b"put:msu:alice:env:=1", pairs),
            (b"put:msu:alice:env:a=1&&b=2", pairs),
        ]:
            self.assertEqual(self.ask(request), answer, request)

    def test_all_or_nothing(self) -> None:
        """A request with an error changes nothing, also in what precedes it."""
        self.ask(b"put:msu:alice:env:n=1&word=x")
        self.ask(b"put:msu:alice:env:n=2&bad")
        self.ask(b"inc:msu:alice:env:n=5&word=1")
        self.assertEqual(self.ask(b"dump:msu:alice:env"), b"n=1&word=x")


class IncTests(CommandTestCase):
    """Counting with ``inc``."""

    def counted(self, value: bytes | None, amount: bytes) -> bytes:
        """Set a value, add an amount, and return the result."""
        if value is not None:
            self.ask(b"put:msu:alice:env:n=" + value)
        self.assertEqual(self.ask(b"inc:msu:alice:env:n" + amount), b"ok")
        return self.ask(b"get:msu:alice:env:n")

    def test_amounts(self) -> None:
        """Integers and decimals are added, escaped; missing values are 0, missing amounts 1."""
        for value, amount, total in [
            (None, b"=7", b"7"),
            (None, b"", b"8"),
            (None, b"=", b"9"),
            (b"1", b"=2", b"3"),
            (b"", b"=2", b"2"),
            (b"99", b"=1", b"100"),
            (b"1", b"=%2d3", b"%2d2"),
            (b"1", b"=-1", b"0"),
            (b"0%2e1", b"=0%2e2", b"0%2e3"),
            (b"0%2e5", b"=0%2e5", b"1"),
            (b"%2d2", b"=%2b2%2e5", b"0%2e5"),
            (b"999999999999999999", b"=1", b"1000000000000000000"),
        ]:
            self.assertEqual(self.counted(value, amount), total, (value, amount))

    def test_several(self) -> None:
        """Several keys are counted, the same one twice."""
        self.ask(b"inc:msu:alice:env:a=1&b=2&a=10")
        self.assertEqual(self.ask(b"dump:msu:alice:env"), b"a=11&b=2")

    def test_no_number(self) -> None:
        """Anything but a number of limited length is an error."""
        for value, amount in [
            (b"word", b"1"),
            (b"1", b"word"),
            (b"1", b"nan"),
            (b"1", b"inf"),
            (b"1", b"1e5"),
            (b"1", b"0x1"),
            (b"1", b"9" * 5000),
            (b"1", "\N{ARABIC-INDIC DIGIT FIVE}".encode()),
        ]:
            self.ask(b"put:msu:alice:env:n=" + value)
            answer = self.ask(b"inc:msu:alice:env:n=" + amount)
            self.assertEqual(answer, b"error:not a number to count with", (value, amount))
            self.assertEqual(self.ask(b"get:msu:alice:env:n"), value)


class UnusableDataTests(SynchronousTestCase):
    """Data that fails while the lond runs."""

    def test_error(self) -> None:
        """The caller gets an error; the log has the path, but nothing of the request."""
        path = self.mktemp()
        store = Store(path)
        store.close()
        Path(path).unlink()
        with capturedLogs() as events:
            answer = Commands("l2", store).answer(b"put:msu:alice:env:secret=1", "l1")
        self.assertTrue(answer.startswith(b"error:"))
        self.assertNotIn(path.encode(), answer)
        (event,) = events
        self.assertEqual(event["log_level"], LogLevel.critical)
        self.assertIn(path, str(event["error"]))
        self.assertNotIn("secret", str(event))
