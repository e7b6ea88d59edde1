"""Tests for lonc.daemon.own_process; the whole daemon's are in lonc.test.test_privileges."""

from __future__ import annotations

import os
import pwd

from twisted.trial.unittest import SynchronousTestCase

from lonc.daemon.own_process import acting_as


def rights() -> tuple[object, ...]:
    """Return what the process may do, and how it makes files."""
    umask = os.umask(0o022)
    os.umask(umask)
    return os.geteuid(), os.getegid(), sorted(os.getgroups()), umask


class ActingTests(SynchronousTestCase):
    """For a block, as somebody else."""

    def test_nobody_else(self) -> None:
        """Where nobody is named nothing changes; so it is for who is not root."""
        before = rights()
        for uid in (None, 1):
            self.patch(os, "geteuid", lambda: 4711)
            with acting_as(uid, None) as for_another:
                self.assertFalse(for_another)
            self.patch(os, "geteuid", lambda: before[0])
            self.assertEqual(rights(), before)
        with acting_as(None, None) as for_another:
            self.assertFalse(for_another)

    def test_back_again(self) -> None:
        """Root has its rights back at the end of the block, also when that raises."""
        if os.geteuid() != 0:
            self.skipTest("only root can act as another user")
        before, nobody = rights(), pwd.getpwnam("nobody")
        with self.assertRaises(ZeroDivisionError), acting_as(nobody.pw_uid, None, 0o027) as another:
            self.assertTrue(another)
            self.assertEqual(
                (os.geteuid(), os.getegid(), 0 in os.getgroups()),
                (nobody.pw_uid, nobody.pw_gid, False),
            )
            self.assertEqual(rights()[3], 0o027)
            raise ZeroDivisionError
        self.assertEqual(rights(), before)

    def test_still_root(self) -> None:
        """With a group alone, or as root itself, it is root."""
        if os.geteuid() != 0:
            self.skipTest("only root can act as another user")
        before, nobody = rights(), pwd.getpwnam("nobody")
        with acting_as(None, nobody.pw_gid) as another:
            self.assertEqual((another, os.getegid()), (False, nobody.pw_gid))
        with acting_as(0, None) as another:
            self.assertFalse(another)
        self.assertEqual(rights(), before)
