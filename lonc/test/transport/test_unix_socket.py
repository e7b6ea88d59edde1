"""UNIX sockets in the file system, and who is at their other end."""

from __future__ import annotations

import os
import socket
from functools import partial

from lonc.test.fixtures.streams import SocketFileCase
from lonc.transport.unix_socket import UNKNOWN, SocketError, clear_stale_socket, peer_at, peer_of


class StaleSocketTests(SocketFileCase):
    """Only a socket left behind by a crash is removed (S4)."""

    def refusal(self) -> str:
        """Return why the path cannot be cleared."""
        with self.assertRaises(SocketError) as caught:
            clear_stale_socket(self.path)
        self.assertTrue(os.path.lexists(self.path))
        return str(caught.exception)

    def test_nothing_there(self) -> None:
        """A missing file is no error."""
        clear_stale_socket(self.path)

    def test_left_by_a_crash(self) -> None:
        """S4: a socket without a listener is removed."""
        self.bound(listening=True).close()
        clear_stale_socket(self.path)
        self.assertFalse(os.path.lexists(self.path))

    def test_in_use(self) -> None:
        """S4: a socket with a listener is left alone, and the error names the process."""
        self.bound(listening=True)
        self.assertEqual(
            self.refusal(), f"{self.path}: process {os.getpid()} is already listening there"
        )

    def test_in_use_and_full(self) -> None:
        """S4: also if its backlog is full."""
        self.bound(listening=True, backlog=0)
        waiting = []
        for _ in range(3):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.setblocking(False)
            waiting.append(client.connect_ex(self.path))
        self.assertNotEqual(waiting[-1], 0)
        self.assertEqual(self.refusal(), f"{self.path}: a process is already listening there")

    def test_no_socket(self) -> None:
        """A file, a folder or a link is left alone."""
        for make, remove in (
            (os.mknod, os.unlink),
            (os.mkdir, os.rmdir),
            (partial(os.symlink, "elsewhere"), os.unlink),
        ):
            make(self.path)
            self.assertIn("other than a socket is in the way", self.refusal())
            remove(self.path)

    def test_folder_missing(self) -> None:
        """The reason why the path cannot be examined is reported."""
        os.mknod(self.path)
        with self.assertRaises(SocketError) as caught:
            clear_stale_socket(f"{self.path}/l1")
        self.assertEqual(str(caught.exception), f"{self.path}/l1: Not a directory")


class PeerTests(SocketFileCase):
    """The process at the other end."""

    def test_who(self) -> None:
        """The process is known at both ends; for closed and TCP sockets it is unknown."""
        listening = self.bound(listening=True)
        with socket.socket(socket.AF_UNIX) as client, socket.socket() as tcp:
            client.connect(self.path)
            with listening.accept()[0] as accepted:
                for end in (client, accepted):
                    self.assertEqual(peer_of(end), (os.getpid(), os.getuid()))
                    self.assertEqual(peer_at(end.fileno()), peer_of(end))
            client.close()
            self.assertEqual([peer_of(tcp), peer_of(client)], [UNKNOWN] * 2)
