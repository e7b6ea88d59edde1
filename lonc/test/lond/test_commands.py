"""What a lond answers to requests."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from lonc.lond.commands import Commands
from lonc.lond.store import Store


class CommandTestCase(SynchronousTestCase):
    """A lond ``l2`` that ``l1`` calls."""

    def setUp(self) -> None:
        """Begin without data."""
        self.store = Store(":memory:")
        self.addCleanup(self.store.close)
        self.commands = Commands("l2", self.store, load=lambda: 0.256)

    def ask(self, request: bytes) -> bytes:
        """Return the answer to a request."""
        return self.commands.answer(request, "l1")


class PlainTests(CommandTestCase):
    """The commands without data."""

    def test_ping(self) -> None:
        """The lond tells its own id."""
        self.assertEqual(self.ask(b"ping"), b"l2")

    def test_pong(self) -> None:
        """The lond tells its own id and the caller's."""
        self.assertEqual(self.ask(b"pong"), b"l2:l1")

    def test_load(self) -> None:
        """The machine's load is a number."""
        self.assertEqual(self.ask(b"load"), b"0.26")

    def test_real_load(self) -> None:
        """Where nobody says otherwise the load is this machine's."""
        answer = Commands("l2", self.store).answer(b"load", "l1")
        self.assertGreaterEqual(float(answer), 0)

    def test_unknown(self) -> None:
        """Everything else is unknown, upper case and nothing at all too."""
        for request in (
            b"",
            b"quota:x",
            b"PING",
            b"putt:d:u:n:a=1",
            b"encrypt:ping",
            b":",
            b"\xff",
        ):
            self.assertEqual(self.ask(request), b"unknown_cmd", request)


class DataTests(CommandTestCase):
    """The commands on data."""

    def test_put_and_get(self) -> None:
        """Values come back as they were put, in the order of the question."""
        self.assertEqual(self.ask(b"put:msu:alice:env:a=1&b=x%26y&c="), b"ok")
        self.assertEqual(self.ask(b"get:msu:alice:env:b&c&a"), b"x%26y&&1")

    def test_get_missing(self) -> None:
        """A value that is not there is empty."""
        self.assertEqual(self.ask(b"get:msu:alice:env:a"), b"")
        self.ask(b"put:msu:alice:env:b=2")
        self.assertEqual(self.ask(b"get:msu:alice:env:a&b&c"), b"&2&")

    def test_eget(self) -> None:
        """The values of eget are those of get; who sends them encrypts them."""
        self.ask(b"put:msu:alice:env:a=1&b=2")
        self.assertEqual(self.ask(b"eget:msu:alice:env:b&a"), b"2&1")

    def test_everybody_has_data_of_their_own(self) -> None:
        """Domain, user and namespace keep data apart."""
        for place in (b"msu:alice:env", b"msu:alice:grades", b"msu:bob:env", b"sfu:alice:env"):
            self.assertEqual(self.ask(b"put:%s:whose=%s" % (place, place.hex().encode())), b"ok")
        self.assertEqual(self.ask(b"get:msu:bob:env:whose"), b"msu:bob:env".hex().encode())

    def test_value_with_marks(self) -> None:
        """A value may hold the marks that part other things."""
        self.assertEqual(self.ask(b"put:msu:alice:env:a=b=c:d"), b"ok")
        self.assertEqual(self.ask(b"get:msu:alice:env:a"), b"b=c:d")

    def test_mark_at_the_end(self) -> None:
        """A mark behind the last pair is no pair."""
        self.assertEqual(self.ask(b"put:msu:alice:env:a=1&"), b"ok")
        self.assertEqual(self.ask(b"dump:msu:alice:env"), b"a=1")

    def test_del(self) -> None:
        """Keys are removed, also such as are not there."""
        self.ask(b"put:msu:alice:env:a=1&b=2&c=3")
        self.assertEqual(self.ask(b"del:msu:alice:env:a&c&z"), b"ok")
        self.assertEqual(self.ask(b"dump:msu:alice:env"), b"b=2")

    def test_keys(self) -> None:
        """All keys are told, without their values."""
        self.assertEqual(self.ask(b"keys:msu:alice:env"), b"")
        self.ask(b"put:msu:alice:env:b=2&a=1")
        self.assertEqual(self.ask(b"keys:msu:alice:env"), b"a&b")

    def test_dump(self) -> None:
        """All pairs are told."""
        self.assertEqual(self.ask(b"dump:msu:alice:env"), b"")
        self.ask(b"put:msu:alice:env:b=2&a=1")
        for request in (b"dump:msu:alice:env", b"dump:msu:alice:env:", b"dump:msu:alice:env:."):
            self.assertEqual(self.ask(request), b"a=1&b=2")

    def test_dump_some(self) -> None:
        """A regular expression picks keys, not values."""
        self.ask(b"put:msu:alice:env:apple=b&banana=a&cherry=c")
        self.assertEqual(self.ask(b"dump:msu:alice:env:%5e%5bab%5d"), b"apple=b&banana=a")

    def test_dump_with_a_bad_expression(self) -> None:
        """What is no expression, or none for this lond, is an error with its reason."""
        self.ask(b"put:msu:alice:env:a=1")
        self.assertEqual(
            self.ask(b"dump:msu:alice:env:("),
            b"error:not a regular expression: missing ), unterminated subpattern at position 0",
        )
        self.assertEqual(
            self.ask(b"dump:msu:alice:env:(a+)+"),
            b"error:a regular expression that repeats a group is not served",
        )

    def test_errors(self) -> None:
        """Wrong arguments are errors that say what is wrong."""
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
        """A request with an error in its middle changes nothing."""
        self.ask(b"put:msu:alice:env:n=1&word=x")
        self.ask(b"put:msu:alice:env:n=2&bad")
        self.ask(b"inc:msu:alice:env:n=5&word=1")
        self.assertEqual(self.ask(b"dump:msu:alice:env"), b"n=1&word=x")


class IncTests(CommandTestCase):
    """What ``inc`` adds, and to what."""

    def counted(self, value: bytes | None, amount: bytes) -> bytes:
        """Put a value, add an amount, and return what is there now."""
        if value is not None:
            self.ask(b"put:msu:alice:env:n=" + value)
        self.assertEqual(self.ask(b"inc:msu:alice:env:n" + amount), b"ok")
        return self.ask(b"get:msu:alice:env:n")

    def test_amounts(self) -> None:
        """Numbers are added, whole ones and others, escaped as values are."""
        for value, amount, total in [
            (b"1", b"=2", b"3"),
            (None, b"=2", b"5"),
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

    def test_from_nothing(self) -> None:
        """A key that is not there counts from zero."""
        self.assertEqual(self.counted(None, b"=7"), b"7")

    def test_by_one(self) -> None:
        """Without an amount one is added."""
        self.assertEqual(self.counted(b"1", b""), b"2")
        self.assertEqual(self.counted(None, b"="), b"3")

    def test_several(self) -> None:
        """Several keys are counted, one of them twice."""
        self.ask(b"inc:msu:alice:env:a=1&b=2&a=10")
        self.assertEqual(self.ask(b"dump:msu:alice:env"), b"a=11&b=2")

    def test_no_number(self) -> None:
        """What is no number, or too long a one, is an error on either side."""
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
    """When the file fails while the lond runs."""

    def test_error(self) -> None:
        """The caller gets an error; the log names the file, and tells nothing of the request."""
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
