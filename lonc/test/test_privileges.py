"""`twistd --uid --gid lonc`, started by root: what root does for a user who may be hostile."""

from __future__ import annotations

import os
import pwd
import signal

from lonc.test.fixtures.daemon import DaemonTestCase, free_port

NOBODY = pwd.getpwnam("nobody")


class OtherUserTests(DaemonTestCase):
    """The folders that lonc writes to belong to the other user, as in LON-CAPA."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root can start lonc for another user")
        super().setUp()
        self.port = free_port("127.0.0.1", "127.0.0.2")
        self.config = self.configure(self.port)
        os.chmod(self.folder, 0o755)
        self.logs, self.status = self.path("daemons", "logs"), self.path("html", "lon-status")
        for folder in (self.path("sock"), self.path("html"), self.path("daemons"), self.logs):
            os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
        self.roots = self.path("roots")
        os.mkdir(self.roots, 0o700)

    def start(self, *options: str) -> list[str]:
        """Return the arguments of a start as another user."""
        return [*options, "--uid", str(NOBODY.pw_uid), "lonc", "--config", self.config]

    def assert_nobodys(self, *names: str) -> None:
        """Check that a file or folder belongs to the other user."""
        info = os.lstat(self.path(*names))
        self.assertEqual((info.st_uid, info.st_gid), (NOBODY.pw_uid, NOBODY.pw_gid), names)

    async def serves(self, *options: str) -> None:
        """Logs, pid file, status file, HUP, USR1 and TERM work as that user."""
        self.lond("l1", "127.0.0.1", self.port)
        lonc = self.twistd(*self.start(*options))
        self.assertEqual(await self.ask("l1", "ping"), "l1")
        pid = int(self.read("daemons", "logs", "lonc.pid"))
        with open(f"/proc/{pid}/status") as file:
            (uids,) = (line.split()[1:] for line in file if line.startswith("Uid:"))
        self.assertEqual(set(uids), {str(NOBODY.pw_uid)})
        log = os.path.join(self.logs, "lonc.log")
        for name in ("lonc.pid", "lonc.log"):
            self.assert_nobodys("daemons", "logs", name)
        self.assertEqual(os.stat(log).st_mode & 0o777, 0o644)
        for name in ("l1", "delayed"):
            self.assert_nobodys("sock", name)
        os.rename(log, f"{log}.1")
        os.kill(pid, signal.SIGUSR1)
        await self.until(lambda: os.path.exists(os.path.join(self.status, "loncstatus.txt")))
        self.assert_nobodys("html", "lon-status", "loncstatus.txt")
        os.kill(pid, signal.SIGHUP)
        await self.until(lambda: os.path.exists(log) and "2 as before" in self.read(log))
        self.assert_nobodys("daemons", "logs", "lonc.log")
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(await lonc.ended(), 0)
        await self.until(lambda: not os.path.exists(os.path.join(self.logs, "lonc.pid")))
        self.assertEqual(self.left_in("sock"), [])
        self.assert_no_traceback(lonc)

    async def test_foreground(self) -> None:
        """S3, S15, S17: in the foreground."""
        await self.serves("-n")

    async def test_background(self) -> None:
        """S3, S15, S17: in the background, whatever root's umask is."""
        self.addCleanup(os.umask, os.umask(0o077))
        await self.serves()

    async def refused(self, cause: str, *options: str) -> None:
        """Check that it does not start, with one line, and that root has created nothing."""
        for mode in (["-n"], []):
            lonc = self.twistd(*self.start(*mode, *options))
            self.assertEqual(await lonc.ended(), 1)
            (line,) = (line for line in lonc.err.splitlines() if line.startswith("lonc: "))
            self.assertIn(cause, line)
            self.assert_no_traceback(lonc)
        self.assertEqual(os.listdir(self.roots), [])

    async def test_links(self) -> None:
        """Links to where only root can write are not followed, nor is a file of root written to."""
        theirs = self.write("root's", "secret")
        os.chmod(theirs, 0o600)
        for name in ("lonc.pid", "lonc.log"):
            path = os.path.join(self.logs, name)
            os.symlink(os.path.join(self.roots, name), path)
            await self.refused(f"{path}: it is a symbolic link, which is not followed")
            os.unlink(path)
            os.link(theirs, path)
            await self.refused(f"lonc: {path}: ")
            self.assertEqual(self.read("secret"), "root's")
            os.unlink(path)
        os.rmdir(self.status)  # the other user has made it
        os.symlink(self.roots, self.status)
        await self.refused(self.status)
        os.unlink(self.status)
        os.rmdir(self.logs)
        os.symlink(os.path.join(self.roots, "logs"), self.logs)
        await self.refused(f"{self.logs}: Permission denied")

    async def test_pid_file_of_twistd(self) -> None:
        """A pid file of `twistd` in a folder of the other user is refused."""
        path = os.path.join(self.logs, "twistd-lonc.pid")
        os.symlink(os.path.join(self.roots, "made"), path)
        await self.refused(f"--pidfile {path}: root would write it", "--pidfile", path)

    async def test_folder_of_roots(self) -> None:
        """If the other user cannot write, that is an error of one line, and root does not write."""
        os.rmdir(self.logs)
        os.chown(self.path("daemons"), 0, 0)
        await self.refused("cannot be written by the user that lonc runs as")
        self.assertEqual(os.listdir(self.path("daemons")), [])
