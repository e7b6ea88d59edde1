"""The names of what is logged."""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict

from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from lonc.report.events import OTHER, PARENT, Logger, event_name, name_of
from lonc.report.logs import SeedForm, json_form
from lonc.test.fixtures.source import Source, has_words, is_log, read

#: Names that several messages share, for they tell of the same.
SHARED = {"a-fault-in", "clients-cannot-be-served", "delayed-request-sent", "there-are-clients"}


class NameTests(SynchronousTestCase):
    """A message and its name."""

    def test_fields_are_left_out(self) -> None:
        """What differs from line to line is no part of the name."""
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
        """Each has a name, and one of its own unless it tells of the same as another."""
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
        """What is logged without words of its own has a name that is given, and documented."""
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
    """An event and its name."""

    def name(self, **event: object) -> str:
        """Return the name of an event of lonc's."""
        made: LogEvent = {"log_namespace": "lonc.host", **event}
        return event_name(made)

    def test_text_that_was_put_together(self) -> None:
        """The text counts where the format is nothing but fields."""
        name = self.name(log_format="{what}{more}", what="a client is closed: x", more="")
        self.assertEqual(name, "a-client-is-closed")

    def test_given(self) -> None:
        """A name that the event brings along wins."""
        self.assertEqual(self.name(log_format="{text}", text="x", event="log-file"), "log-file")

    def test_not_of_lonc(self) -> None:
        """Others' words are not lonc's to name."""
        self.assertEqual(self.name(log_namespace="twisted.x", log_format="{a} b"), OTHER)


class LoggerTests(SynchronousTestCase):
    """What a log shows that knows nothing of lonc."""

    def test_host(self) -> None:
        """A line that concerns a host begins with its id; ``lonc.log`` has a place for that."""
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
