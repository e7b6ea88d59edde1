"""What a request costs, counted and not timed: the calls and objects of its usual ways."""

from __future__ import annotations

import os
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Final

import lonc
from lonc.test.fixtures.doubles import FakeClient, ScriptedLond, a_host
from lonc.test.fixtures.source import read
from lonc.test.fixtures.stage import HostTestCase, Stage
from lonc.wire.cipher import has_idea

_HOME: Final = os.path.dirname(lonc.__file__) + os.sep
_TESTS: Final = os.path.join(_HOME, "test", "")

#: Requests that are counted together: fewer than bring about a question whether the connection is
#: in step, so that each is as the next.
REQUESTS: Final = 20

#: Bytes of a host without an open socket: a tenth more than it takes with Python 3.11.
HOST_LIMIT: Final = 4500

LINE: Final = b"get:msu:alice:grades:essay\n"


def _is_ours(code: CodeType) -> bool:
    """Return whether a function is one of lonc's; from Python 3.12 on comprehensions are none."""
    path = code.co_filename
    return path.startswith(_HOME) and not path.startswith(_TESTS) and code.co_name[0] != "<"


class Count:
    """
    What lonc did.

    :ivar calls: of its functions, as ``module.function``.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []

    def note(self, frame: FrameType, event: str, argument: object) -> None:
        """Take note of a call."""
        code = frame.f_code
        if event == "call" and _is_ours(code):
            module = code.co_filename.removeprefix(_HOME).removesuffix(".py").replace(os.sep, ".")
            self.calls.append(f"{module}.{code.co_qualname}")

    @property
    def objects(self) -> int:
        """How many objects of lonc's classes were made."""
        return sum(call.endswith(".__init__") for call in self.calls)


@contextmanager
def counting() -> Iterator[Count]:
    """Count what lonc does meanwhile."""
    count, before = Count(), sys.getprofile()
    sys.setprofile(count.note)
    try:
        yield count
    finally:
        sys.setprofile(before)


def documented() -> dict[str, tuple[str, str]]:
    """Return the rows of the table in the documentation: calls and objects a request, by way."""
    rows = re.findall(
        r"^   \* - \*(.+?)\*\n     - (\S+)\n     - (\S+)$",
        read("docs", "performance.rst"),
        re.MULTILINE,
    )
    return {way: (calls, objects) for way, calls, objects in rows}


class CostTests(HostTestCase):
    """A request makes as many calls and objects as the table in ``docs/performance.rst`` says."""

    def assert_costs(self, way: str, turn: Callable[[], None]) -> None:
        """Compare what ``turn`` does for one request, time and again, with the table."""
        for _ in range(2):  # what is made once, for each of two clients, is not counted
            turn()
        with counting() as count:
            for _ in range(REQUESTS):
                turn()
        found = (f"{len(count.calls) / REQUESTS:g}", f"{count.objects / REQUESTS:g}")
        one = count.calls[: len(count.calls) // REQUESTS]
        message = f"{way}: calls, objects\n" + "\n".join(one)
        self.assertEqual(found, documented().get(way), message)

    def ready(self) -> tuple[Stage, ScriptedLond, FakeClient]:
        """Return a host with one connection that is idle, its lond, and a client."""
        stage = Stage(self, max_connections=1)
        # Past the first hundred requests, of which each is among the slowest so far.
        stage.dependencies.request_log.threshold = 1.0
        (lond,) = stage.connect()
        client = stage.send(LINE)
        lond.say(b"A\n")
        stage.turn()
        self.assertEqual(client.answers, [b"A\n"])
        return stage, lond, client

    def test_idle(self) -> None:
        """A client that stays asks a host that has an idle connection."""
        stage, lond, client = self.ready()

        def turn() -> None:
            client.write(LINE)
            stage.turn()
            lond.say(b"A\n")
            stage.turn()

        self.assert_costs("idle connection", turn)

    def test_waiting(self) -> None:
        """Two clients that stay share a connection: each request waits for the answer before."""
        stage, lond, one = self.ready()
        other = stage.client()
        one.write(LINE)
        stage.turn()
        next_one = [other, one]

        def turn() -> None:
            client = next_one.pop(0)
            next_one.append(client)
            client.write(LINE)
            stage.turn()
            lond.say(b"A\n")
            stage.turn()

        self.assert_costs("waiting", turn)

    def test_connection_each(self) -> None:
        """A client connects, asks once and closes."""
        stage, lond, _ = self.ready()

        def turn() -> None:
            client = stage.send(LINE)
            lond.say(b"A\n")
            stage.turn()
            client.hang_up()
            stage.turn()

        self.assert_costs("a connection each", turn)

    def test_encrypted(self) -> None:
        """A request is encrypted, and so is its answer."""
        if not has_idea():
            self.skipTest("OpenSSL has no IDEA here")
        stage, lond, client = self.ready()
        answer = lond.cipher.encrypt(b"A") + b"\n"
        lond.wire.heard = lambda data: None  # so that it does not decipher what it is asked

        def turn() -> None:
            client.write(b"encrypt:" + LINE)
            stage.turn()
            lond.say(answer)
            stage.turn()

        self.assert_costs("encrypted", turn)


class MemoryTests(HostTestCase):
    """What there are hundreds of is small."""

    def test_host(self) -> None:
        """A host that has not been asked yet takes no more memory than it is meant to."""
        stage = Stage(self)
        rows = [a_host(f"h{number}", f"127.0.1.{number}") for number in range(1, 101)]
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        hosts = [stage.serve(row) for row in rows]
        used, _ = tracemalloc.get_traced_memory()
        self.assertLess(used / len(hosts), HOST_LIMIT)
