"""What is said about a configuration without a start."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lonc.config import current
from lonc.daemon.check import Checked, check
from lonc.daemon.pidfile import PidFile
from lonc.lond.cluster import prepare
from lonc.test.fixtures.beginnings import short_folder
from lonc.test.fixtures.certificates import Authority


def held_by(uid: int, path: str) -> Callable[[], object]:
    """Have a process of another user hold a pid file; return what ends it."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setuid(uid)
            claim = PidFile(path)
            claim.acquire()
            claim.write()
            os.write(write, b".")
            signal.pause()
        finally:
            os._exit(0)
    os.close(write)
    os.read(read, 1)
    os.close(read)

    def end() -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    return end


class CheckTests(SynchronousTestCase):
    """What ``lonc check`` says about a cluster of two hosts, and what may be wrong with it."""

    def setUp(self) -> None:
        self.folder = short_folder(self)
        self.conf = prepare(self.folder)

    def add(self, path: str, text: str) -> None:
        """Append a line to a file."""
        with open(os.path.join(self.folder, path), "a") as file:
            file.write(text + "\n")

    def bad(self) -> list[Checked]:
        """Return all results that are not "ok"; each must have advice."""
        found = [each for each in check(self.conf) if each.level != "ok"]
        self.assertTrue(all(each.advice for each in found), found)
        return found

    def test_well(self) -> None:
        """If all is well there is no problem, and nothing was created or changed."""
        before = sorted(os.walk(self.folder))
        self.assertEqual(self.bad(), [])
        self.assertEqual(sorted(os.walk(self.folder)), before)

    def running(self) -> None:
        """Hold the pid file, as a lonc does that runs."""
        claim = PidFile(os.path.join(self.folder, "daemons", "logs", "lonc.pid"))
        claim.acquire()
        self.addCleanup(claim.release)
        claim.write()

    def listening(self, host_id: str) -> None:
        """Listen on the socket of a host, as loncnew does."""
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        path = os.path.join(self.folder, "sock", host_id)
        if os.path.exists(path):
            os.unlink(path)
        listening.bind(path)
        listening.listen()

    def test_loncnew_runs(self) -> None:
        """Programs on most sockets are an error, one on a single socket is not."""
        self.listening("l1")
        self.assertEqual(self.bad(), [])
        self.listening("l2")
        [found] = self.bad()
        self.assertEqual(found.level, "error")
        self.assertIn(f"process {os.getpid()} has {self.folder}/sock/l1", found.what)

    def test_root(self) -> None:
        """Sockets that only root could use are critical, before a start and after it."""
        if os.getuid():
            raise SkipTest("only root can play this")
        os.chown(f"{self.folder}/sock", 1, 1)
        [before] = self.bad()
        self.running()
        self.assertEqual(self.bad(), [before])
        self.assertEqual(before.level, "critical")

    def test_user(self) -> None:
        """Root checks with the rights of the user that lonc runs as; others are told of it."""
        if os.getuid():
            raise SkipTest("only root can play this")
        os.chmod(self.folder, 0o755)
        logs = os.path.join(self.folder, "daemons", "logs")
        os.makedirs(logs, exist_ok=True)
        for path, _, _ in os.walk(self.folder):
            os.chown(path, 1, 1)
        self.addCleanup(held_by(1, os.path.join(logs, "lonc.pid")))
        self.assertEqual(self.bad(), [])
        os.chown(logs, 0, 0)
        [found] = self.bad()
        self.assertIn("cannot be written by the user that lonc runs as", found.what)
        self.addCleanup(os.seteuid, os.geteuid())
        os.seteuid(2)
        self.assertIn("and this is what", self.bad()[-1].what)

    def test_lonc_runs(self) -> None:
        """A running lonc is no problem, and is not affected."""
        self.running()
        self.listening("l1")
        self.listening("l2")
        what = f"lonc runs on these folders: process {os.getpid()}"
        self.assertIn(Checked("ok", what), list(check(self.conf)))
        self.assertEqual(self.bad(), [])

    def test_line(self) -> None:
        """A line that a start refuses is an error, with file and line; others are warnings."""
        with open(self.conf) as file:
            before = file.read()
        for line, level, told in (
            ("loncRetries many", "error", "loncapa.conf, line [0-9]+: PerlSetVar loncRetries"),
            ("loncManagement tcp:7000", "error", "an interface of this machine only"),
            ("loncManagement no:such", "error", "loncManagement: no:such"),
            ("loncManagementTLS lonctls:8664", "error", "certificates are required"),
            ("loncManagementTLS lonctls:x", "error", "it is lonctls:PORT"),
            ("loncHTTP tcp:x:y:z:a", "error", "loncHTTP: tcp:x:y:z:a"),
            (f"loncDelayedKeyFile {self.folder}/key", "error", "No such file or directory"),
            ("loncretries 3", "warning", "names are case-sensitive"),
            ("lonHostID nobody", "warning", r"nobody \(lonHostID\)"),
        ):
            self.add("loncapa.conf", f"PerlSetVar {line}")
            [found] = [each for each in self.bad() if each.level == level]
            self.assertRegex(found.what, told)
            with open(self.conf, "w") as file:
                file.write(before)

    def test_setting_of_a_folder(self) -> None:
        """Without the setting of a folder, only that setting is reported."""
        self.add("loncapa.conf", "PerlSetVar loncRetries many")
        self.add("loncapa.conf", "PerlSetVar lonDocRoot")
        self.assertEqual(len(self.bad()), 2)

    def test_no_file(self) -> None:
        """A missing configuration file is an error."""
        os.unlink(self.conf)
        [found] = self.bad()
        self.assertEqual(found.level, "error")
        self.assertIn(self.conf, found.what)

    def test_folder(self) -> None:
        """A missing folder is an error that names its setting; an open one is a warning."""
        os.rename(f"{self.folder}/html", f"{self.folder}/elsewhere")
        [found] = self.bad()
        self.assertEqual(found.level, "error")
        self.assertIn("lonDocRoot", found.what)
        os.rename(f"{self.folder}/elsewhere", f"{self.folder}/html")
        os.chmod(f"{self.folder}/sock", 0o777)
        [found] = self.bad()
        advice = f"chmod o-w {self.folder}/sock (exposed)"
        self.assertEqual((found.level, found.advice), ("warning", advice))

    def test_table(self) -> None:
        """A wrong line of the table is a warning; a table without hosts is an error."""
        self.add("tabs/hosts.tab", "what")
        [found] = self.bad()
        self.assertEqual(found.level, "warning")
        self.assertRegex(found.what, "hosts.tab, line [0-9]+: ")
        os.unlink(f"{self.folder}/tabs/hosts.tab")
        [found] = self.bad()
        self.assertEqual(found.level, "error")

    def test_certificate(self) -> None:
        """An unreadable certificate is a warning, or an error if TLS is required."""
        for variable in ("CertificateAuthority", "Certificate", "PrivateKey"):
            self.add("loncapa.conf", f"PerlSetVar lonnet{variable} {self.folder}/missing.pem")
        self.assertEqual([each.level for each in self.bad()], ["warning"])
        self.add("loncapa.conf", "PerlSetVar loncAllowInsecure 0")
        self.assertEqual([each.level for each in self.bad()], ["error"])

    def test_certificate_ends(self) -> None:
        """A certificate is reported once: as valid, ending or ended."""
        for ends, levels in ((10.0, ["warning"]), (-1.0, ["critical"]), (90.0, ["ok"])):
            files = Authority(self.folder).issue("l1.localhost", begins=-9.0, ends=ends)
            names = {"CertificateAuthority": files.authority, "Certificate": files.certificate}
            for name, path in {**names, "PrivateKey": files.key}.items():
                self.add("loncapa.conf", f"PerlSetVar lonnet{name} {path}")
            told = [each.level for each in check(self.conf) if files.certificate in each.what]
            self.assertEqual(told, levels)

    def test_files(self) -> None:
        """The number of files is only "ok" if the limit allows it."""
        for limit, level in ((100_000, "ok"), (1000, "warning")):
            self.patch(current, "raise_file_limit", lambda needed, limit=limit: limit)
            told = [each.level for each in check(self.conf) if "files may be needed" in each.what]
            self.assertEqual(told, [level])

    def test_all_at_once(self) -> None:
        """All errors are reported at once; if settings are wrong, folders and tables too."""
        with open(self.conf) as file:
            before = file.read()
        for line in ("loncRetries many", "loncMaxClients few", 'lonDocRoot "/nowhere"'):
            self.add("loncapa.conf", f"PerlSetVar {line}")
        os.unlink(f"{self.folder}/tabs/hosts.tab")
        self.assert_told("loncRetries", "loncMaxClients", "lonDocRoot", "hosts.tab")
        with open(self.conf, "w") as file:
            file.write(before)
        self.add("loncapa.conf", f"PerlSetVar loncDelayedKeyFile {self.folder}/key")
        self.add("loncapa.conf", "PerlSetVar loncHTTP tcp:x:y:z:a")
        os.rename(f"{self.folder}/html", f"{self.folder}/elsewhere")
        self.assert_told("lonDocRoot", "loncDelayedKeyFile", "hosts.tab", "loncHTTP")

    def assert_told(self, *words: str) -> None:
        """There are these errors, and no others."""
        found = self.bad()
        self.assertEqual([each.level for each in found], ["error"] * len(words))
        for each, word in zip(found, words, strict=True):
            self.assertIn(word, each.what)

    def test_no_socket(self) -> None:
        """Another file in the place of a socket is reported."""
        self.add("sock/l1", "x")
        [found] = self.bad()
        self.assertIn(f"l1 has no socket: something else is at {self.folder}/sock/l1", found.what)
        self.add("loncapa.conf", "PerlSetVar loncSocketNames hostname")  # no socket has an id
        self.assertEqual(self.bad(), [])
