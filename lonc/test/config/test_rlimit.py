"""The limit on open files."""

from __future__ import annotations

import os
import resource
import signal

from twisted.trial.unittest import SynchronousTestCase

from lonc.config.rlimit import (
    FEWEST_CLIENTS,
    FEWEST_HOSTS,
    SPARE,
    needed_files,
    raise_file_limit,
    room_for_clients,
    room_for_hosts,
    why_no_file,
)
from lonc.test.fixtures.doubles import some_settings


def in_child(limits: tuple[int, int], needed: int) -> tuple[int, int, int]:
    """Set and raise the limits in a child process; return the answer, and the limits then."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            told = raise_file_limit(needed)
            found = (told, *resource.getrlimit(resource.RLIMIT_NOFILE))
            os.write(writing, repr(found).encode())
        finally:
            os.kill(os.getpid(), signal.SIGKILL)  # nothing of the test's may run here
    os.close(writing)
    with open(reading) as answer:
        told, soft, hard = map(int, answer.read().strip("()").split(","))
    os.waitpid(pid, 0)
    return told, soft, hard


class WhyNoFileTests(SynchronousTestCase):
    """Whether any file can be opened."""

    def test_why(self) -> None:
        """The reason is returned if none can."""
        self.assertEqual(why_no_file(), "")
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))
        try:
            why = why_no_file()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        self.assertEqual(why, "Too many open files")


class NeededFilesTests(SynchronousTestCase):
    """What a table needs, and what a limit allows."""

    def test_needed(self) -> None:
        """Each host needs its sockets and its connections; clients and the rest come on top."""
        for names, sockets in (("id", 1), ("both", 2)):
            needed = needed_files(some_settings(socket_names=names), 100)
            self.assertEqual(needed, 100 * (sockets + 10) + 4096 + SPARE)

    def test_room(self) -> None:
        """Half of what is not spare is for hosts' sockets; a few hosts are always served."""
        for names, limit, room in (
            ("id", SPARE + 1000, 500),
            ("both", SPARE + 1000, 250),
            ("id", 10, FEWEST_HOSTS),
        ):
            self.assertEqual(room_for_hosts(some_settings(socket_names=names), limit), room)

    def test_room_for_clients(self) -> None:
        """Clients get what sockets and connections leave, but at least half."""
        few, many = some_settings(), some_settings(max_connections=1000)
        self.assertEqual(room_for_clients(few, needed_files(few, 10), 10), 4096)
        self.assertEqual(room_for_clients(many, SPARE + 1010, 10), 500)
        self.assertEqual(room_for_clients(few, 10, 10), FEWEST_CLIENTS)


class RaiseFileLimitTests(SynchronousTestCase):
    """The limit is raised to what is needed."""

    def test_enough(self) -> None:
        """A sufficient limit is not changed."""
        self.assertEqual(in_child((100, 200), needed=99), (100, 100, 200))

    def test_soft(self) -> None:
        """The soft limit is raised up to the hard one, and no further than needed."""
        self.assertEqual(in_child((100, 200), needed=150), (150, 150, 200))

    def test_beyond_all_limits(self) -> None:
        """If even root may not have as much, the limit is raised as far as possible."""
        self.assertEqual(in_child((100, 200), needed=2**40), (200, 200, 200))
