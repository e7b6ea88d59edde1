"""Log events: their names, their host, and the rate limit."""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict

from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from lonc.report.events import OTHER, PARENT, Logger, RateLimited, event_name, name_of
from lonc.report.logs import SeedForm, json_form
from lonc.test.fixtures.source import Source, has_words, is_log, read

#: Names that several messages with the same meaning share.
SHARED = {"a-fault-in", "clients-cannot-be-served", "delayed-request-sent", "there-are-clients"}


class NameTests(SynchronousTestCase):
    """The names of messages."""

    def test_fields_are_left_out(self) -> None:
        """Fields are not part of the name."""
        for message, name in {
            "starting with {count} hosts": "starting-with-hosts",
            "host marked dead: con_lost at once; {trouble}": "host-marked-dead",
            "{path}: cannot accept clients: {why}": "cannot-accept-clients",
            "delayed request sent: {file} ({command})": "delayed-request-sent",
            "the host's address has changed": "the-host-address-has-changed",
            "there are 300 clients: another gets con_lost": "there-are-clients",
            "{text}": OTHER,
        }.items():
            self.assertEqual(name_of(message), name)

    def test_every_message(self) -> None:
        """Each message has its own name, except for some with the same meaning."""
        messages = defaultdict(set)
        source = Source()
        for text, _ in [*source.messages(), *source.debug_messages()]:
            if has_words(text):
                messages[name_of(text)].add(text)
        self.assertNotIn(OTHER, messages)
        self.assertGreater(len(messages), 60)
        shared = {name for name, texts in messages.items() if len(texts) > 1}
        self.assertLessEqual(shared, SHARED)
        for name in messages:
            self.assertTrue(re.fullmatch("[a-z]+(-[a-z]+)*", name), name)

    def test_texts_from_elsewhere(self) -> None:
        """A message that consists of fields only is given a name, which is documented."""
        page = read("docs", "messages.rst")
        for module, _, call in Source().calls:
            first = call.args[0] if is_log(call) and call.args else None
            if not isinstance(first, ast.Constant) or has_words(str(first.value)):
                continue
            given = {word.arg: word.value for word in call.keywords}
            if "what" not in given:
                self.assertIn("event", given, f"{module}, line {call.lineno}")
                self.assertIn(f"``{ast.literal_eval(given['event'])}``", page)


class EventTests(SynchronousTestCase):
    """The names of events."""

    def test_name(self) -> None:
        """A given name counts, then the words of the format, then of ``what``; only lonc's."""
        for event, name in (
            ({"log_format": "{text}", "text": "x", "event": "log-file"}, "log-file"),
            ({"log_format": "{what}{more}", "what": "a client is closed: x"}, "a-client-is-closed"),
            ({"log_format": "{a} b", "log_namespace": "twisted.x"}, OTHER),
        ):
            made: LogEvent = {"log_namespace": "lonc.host", **event}
            self.assertEqual(event_name(made), name)


class LoggerTests(SynchronousTestCase):
    """The texts in a log that does not know about hosts."""

    def test_host(self) -> None:
        """A line about a host begins with its id, but in ``lonc.log`` the id is a field."""
        log = Logger()
        with capturedLogs() as events:
            log.warn("it hangs", host_id="msul1")
            log.warn("it stops", host_id=PARENT)
            log.failure("it failed", Failure(OSError()), host_id="msul1")
            log.info("all is well")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["msul1: it hangs", "it stops", "msul1: it failed", "all is well"],
        )
        self.assertEqual(events[0]["log_namespace"], __name__)
        for event in events:
            self.assertNotIn("msul1:", SeedForm(lambda host_id: "")(event))
            self.assertNotIn("{host_id}:", json.loads(json_form(event))["log_format"])
        self.assertEqual(event_name({**events[0], "log_namespace": "lonc.host"}), "it-hangs")


class RateLimitedTests(SynchronousTestCase):
    """The rate limit of warnings that others can cause."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.limited = RateLimited(self.clock, 10.0, max_keys=2)

    def test_first_at_once(self) -> None:
        """The first is logged at once; the next, after the interval, has the number left out."""
        self.assertEqual(self.limited.allow("a"), "")
        self.assertIsNone(self.limited.allow("a"))
        self.clock.advance(9.9)
        self.assertIsNone(self.limited.allow("a"))
        self.clock.advance(0.1)
        self.assertEqual(self.limited.allow("a"), " (2 like this left out)")
        self.assertIsNone(self.limited.allow("a"))
        self.clock.advance(10)
        self.assertEqual(self.limited.allow("a"), " (1 like this left out)")

    def test_many_keys(self) -> None:
        """Each key has its own limit, except for too many keys, which share one."""
        self.assertEqual([self.limited.allow("a"), self.limited.allow("b")], ["", ""])
        allowed = [self.limited.allow(str(n)) for n in range(1000)]
        self.assertEqual(allowed, [""] + [None] * 999)
        self.assertIsNone(self.limited.allow("a"))

    def test_keys_are_forgotten(self) -> None:
        """Keys whose interval is over make room for others."""
        self.limited.allow("a")
        self.limited.allow("b")
        self.clock.advance(10)
        self.assertEqual([self.limited.allow("c"), self.limited.allow("d")], ["", ""])
        self.assertIsNone(self.limited.allow("c"))
