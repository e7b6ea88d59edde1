"""How many files may be open."""

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


def in_child(limits: tuple[int, int], needed: int) -> tuple[int, int, int]:
    """Set the limits in a child process and raise them; return the answer and what is in force."""
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
        """It is told why where none can, and nothing else."""
        self.assertEqual(why_no_file(), "")
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))
        try:
            why = why_no_file()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        self.assertEqual(why, "Too many open files")


class NeededFilesTests(SynchronousTestCase):
    """What a table needs."""

    def test_needed(self) -> None:
        """A socket and all its connections for each host, all clients, and some for the rest."""
        self.assertEqual(needed_files(100, 10, 4096), 100 * 11 + 4096 + SPARE)

    def test_room(self) -> None:
        """Half of what is not spare is for hosts' sockets; a few hosts are served in any case."""
        self.assertEqual(room_for_hosts(SPARE + 1000, 1), 500)
        self.assertEqual(room_for_hosts(SPARE + 1000, 2), 250)
        self.assertEqual(room_for_hosts(10, 1), FEWEST_HOSTS)

    def test_room_for_clients(self) -> None:
        """What is spare stays so: connections get their part, half of it where that is too much."""
        enough = needed_files(10, 10, 4096)
        self.assertEqual(room_for_clients(enough, 10, 100), 4096)
        self.assertEqual(room_for_clients(SPARE + 1010, 10, 10000), 500)
        self.assertEqual(room_for_clients(10, 10, 100), FEWEST_CLIENTS)


class RaiseFileLimitTests(SynchronousTestCase):
    """The limit of open files is raised to what is needed."""

    def test_enough(self) -> None:
        """A limit that is high enough stays."""
        self.assertEqual(in_child((100, 200), needed=99), (100, 100, 200))

    def test_soft(self) -> None:
        """The soft limit is raised up to the hard one, and no further than needed."""
        self.assertEqual(in_child((100, 200), needed=150), (150, 150, 200))

    def test_beyond_all_limits(self) -> None:
        """Where even root may not have as much, all that can be had is, and is told."""
        self.assertEqual(in_child((100, 200), needed=2**40), (200, 200, 200))
