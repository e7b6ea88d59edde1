"""``twistd lonc``: its options, and how the daemon is put together."""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import tempfile
from typing import TextIO

from setproctitle import getproctitle
from twisted.application.service import Application, IServiceMaker
from twisted.application.twist._options import TwistOptions
from twisted.internet import reactor as global_reactor
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import ILogObserver, LogLevel
from twisted.plugin import getPlugins
from twisted.python import usage
from twisted.trial.unittest import TestCase

from lonc.client import TwistedClient
from lonc.config.hosts import TableError
from lonc.config.settings import PARAMETERS, SettingsError
from lonc.control.port import ManagementPortError
from lonc.daemon.outside import Choices
from lonc.daemon.pidfile import PidFileError
from lonc.lond import illness
from lonc.lond.cluster import prepare
from lonc.service import LoncService
from lonc.tap import Options, TwistdService, make_daemon, makeService
from lonc.test.fixtures.certificates import Authority
from lonc.test.fixtures.daemon import free_port
from lonc.test.fixtures.daemon_in_memory import DaemonReactor, ServiceTestCase
from lonc.test.fixtures.doubles import FakeNetwork, FakePort
from lonc.test.fixtures.options import TapTestCase


class OptionsTests(TapTestCase):
    """The command line."""

    def test_help(self) -> None:
        """The help shows every option with its unit and its default."""
        usage = " ".join(Options().getUsage(width=10**6).split())
        for each in PARAMETERS:
            if each.option is not None:
                row = f"--{each.option}= {each.what} [{each.kind.unit}; "
                self.assertIn(row, usage)
                self.assertIn(f"default {each.default}]", usage.partition(row)[2].split("--")[0])

    def test_plugin(self) -> None:
        """`twistd` finds the plugin."""
        (plugin,) = [each for each in getPlugins(IServiceMaker) if each.tapname == "lonc"]
        self.assertEqual((plugin.makeService, plugin.options), (makeService, Options))

    def test_given(self) -> None:
        """Only options on the command line count as given."""
        options = self.parsed("lonc", "--retries", "7", "--config", "/a.conf")
        self.assertEqual(options.given(), {"retries": "7"})

    def test_wrong(self) -> None:
        """Section 8: a wrong option or an argument is an error of one line."""
        wrong = "twistd lonc: option --tries not recognized"
        self.assertEqual(self.refusal("lonc", "--tries", "7"), wrong)
        self.assertEqual(self.refusal("lonc", "start"), "twistd lonc: 'start' is not an option")

    def test_twist(self) -> None:
        """`twist` cannot run lonc, and says so in one line."""
        ended = self.assertRaises(
            SystemExit, TwistOptions().parseOptions, ["lonc", "--retries", "7"]
        )
        self.assertEqual(str(ended), "twist lonc: use twistd -n lonc to run lonc in the foreground")

    def test_pid_file_of_twistd(self) -> None:
        """S3: there is no ``twistd.pid`` unless one is given: ``lonc.pid`` replaces it."""
        self.assertEqual(self.parsed("lonc").parent["pidfile"], "")
        self.assertEqual(self.parsed("-n", "lonc").parent["pidfile"], "")
        self.assertEqual(self.parsed("--pidfile=/a.pid", "lonc").parent["pidfile"], "/a.pid")

    def test_foreground(self) -> None:
        """
        In the foreground the log is shown, and the umask is the user's; in the background nothing
        is shown, and everybody may read what is written, unless a umask is given.
        """
        for arguments, is_shown, umask in (
            (("-n",), True, None),
            ((), False, 0o022),
            (("--umask=027",), False, 0o027),
        ):
            options = self.parsed(*arguments, "lonc")
            self.assertEqual(options.terminal() is not None, is_shown)
            self.assertEqual(options.parent["umask"], umask)

    def test_beside_loncnew(self) -> None:
        """S3, S4: if another process serves the sockets, lonc ends and leaves its pid file."""
        config = self.configured()
        os.makedirs(self.path("logs"), exist_ok=True)
        with open(self.path("logs", "lonc.pid"), "w") as file:
            file.write("4711\n")
        for host_id in ("l1", "l2"):
            listening = socket.socket(socket.AF_UNIX)
            self.addCleanup(listening.close)
            listening.bind(self.path(host_id))
            listening.listen()
        told = self.refusal("lonc", "--config", config)
        self.assertIn(f"process {os.getpid()} has {self.path('l1')}; stop it", told)
        with open(self.path("logs", "lonc.pid")) as file:
            self.assertEqual(file.read(), "4711\n")
        os.unlink(self.path("logs", "lonc.pid"))
        self.assertEqual(self.refusal("lonc", "--config", config), told)
        self.assertEqual(os.listdir(self.path("logs")), [])

    def test_log_file_of_twistd(self) -> None:
        """`twistd --logfile` replaces the terminal; an unusable file is an error of one line."""
        path = self.path("shown.log")
        show = self.parsed("-n", f"--logfile={path}", "lonc").terminal()
        self.assertIsNotNone(show)
        self.assertTrue(os.path.exists(path))
        fifo = self.path("fifo")
        os.mkfifo(fifo)
        told = self.refusal("-n", f"--logfile={fifo}", "lonc", "--config", "/a.conf")
        self.assertEqual(told, f"lonc: --logfile {fifo}: No such device or address")
        told = self.refusal("-n", "--logfile=/nowhere/a.log", "lonc", "--config", "/a.conf")
        self.assertEqual(told, "lonc: --logfile /nowhere/a.log: No such file or directory")


class MakeServiceTests(TapTestCase):
    """The daemon is created, or one line says why not."""

    def test_configured(self) -> None:
        """S1, S2: files are read, options override them, and missing folders are created."""
        config = self.configured("PerlSetVar loncRetries 5", "PerlSetVar londPort 7")
        daemon = self.made("-n", "lonc", "--config", config, "--lond-port", "8")
        in_force = daemon.in_force
        self.assertEqual((in_force.settings.retries, in_force.settings.lond_port), (5, 8))
        self.assertEqual(list(in_force.table.hosts), ["l1", "l2"])
        self.assertTrue(os.path.isdir(self.path("logs")) and os.path.isdir(self.path("lon-status")))
        self.assertEqual(daemon.screen, "")
        self.assertEqual(
            daemon.choices,
            Choices(own_process=True, takes_signals=True, sets_title=True, takes_log=True),
        )

    def test_relative_path(self) -> None:
        """S3: a relative path is relative to the current folder."""
        self.configured()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        daemon = self.made("lonc", "--config", "loncapa.conf")
        settings = daemon.in_force.settings
        self.assertEqual(settings.config_file, os.path.realpath(self.path("loncapa.conf")))

    def test_not_made(self) -> None:
        """Section 8: an unusable host table is an error of one line, and the lock is released."""
        config = self.configured()
        table = self.path("hosts.tab")
        os.rename(table, self.path("hosts.old"))
        told = self.refusal("lonc", "-c", config)
        self.assertEqual(told, f"lonc: {table}: No such file or directory")
        with open(table, "w") as file:
            file.write("../../etc/passwd:msu:library:l1.example.org:127.0.0.1\n")
        told = self.refusal("lonc", "-c", config)
        self.assertIn("hosts.tab, line 1: '../../etc/passwd' is not", told)
        os.rename(self.path("hosts.old"), table)
        self.made("lonc", "-c", config)

    def test_bad_input(self) -> None:
        """Section 8: an unusable value is an error of one line that says where it is."""
        for written, cause in (
            ("lonTabDir /nowhere", "lonTabDir: /nowhere: No such file or directory"),
            ("loncRetries 0", "line 6: PerlSetVar loncRetries: '0' is not a whole number from 1"),
        ):
            config = self.configured(f"PerlSetVar {written}")
            self.assertRegex(self.refusal("lonc", "-c", config), f"^lonc: {config}.*{cause}")
        config, new = self.configured(), self.path("new")
        for *options, cause in (
            ("-c", config, "--retries", "0", "--retries: '0' is not a whole number from 1 to 1000"),
            ("-c", config, "--max-line", "1 mile", "--max-line: '1 mile' is not a size"),
            ("-c", config, "--table-port", "8080", "--table-port requires --standalone"),
            ("--standalone", new, "--table-port", "x", "--table-port: 'x' is not"),
            ("--standalone", new, "--lond-port", "99999", "--lond-port: '99999' is not"),
            ("--standalone", new, "--lond-port", "²", "--lond-port: '²' is not"),
            ("--standalone", new, "--config", "/a.conf", ".*omit --config"),
            ("--standalone", new, "--take-over", "--take-over does not work with --standalone"),
            ("--standalone", f"{config}/new", f"{config}/new.*: Not a directory"),
        ):
            self.assertRegex(self.refusal("lonc", *options), f"^lonc: {cause}")
        self.assertFalse(os.path.exists(new), "no loncapa.conf with a wrong value was made")

    def standalone(self) -> tuple[str, ...]:
        """Return options for an own cluster, with another port each time."""
        self.port = free_port("127.0.0.1", "127.0.0.2")
        return ("lonc", "--standalone", self.path("new"), "--lond-port", str(self.port))

    def test_standalone(self) -> None:
        """
        A cluster of its own is made in the folder, and the screen says what is where. Londs that
        were made ill stay so over a start, and the screen names them.
        """
        daemon = self.made(*self.standalone())
        self.assertEqual(list(daemon.in_force.table.hosts), ["l1", "l2"])
        self.assertIn(f"l1 at 127.0.0.1:{self.port}, l2 at 127.0.0.2:{self.port}", daemon.screen)
        self.assertNotIn("still", daemon.screen)
        self.assertTrue(os.path.exists(self.path("new", "loncapa.conf")))
        daemon.release()
        illness.write(self.path("new"), "l2", "silent")
        daemon = self.made(*self.standalone())
        self.assertIn("\n  still     l2 is silent: lonc-lond makes them well\n", daemon.screen)

    def test_places_on_the_screen(self) -> None:
        """The screen shows relative paths only in the source folder, where they can be typed."""
        self.addCleanup(os.chdir, os.getcwd())
        for examples, place in ("", self.path("new")), ("docs/examples", os.path.join("..", "new")):
            source = tempfile.mkdtemp(dir=self.folder)
            os.makedirs(os.path.join(source, examples), exist_ok=True)
            os.chdir(source)
            daemon = self.made(*self.standalone())
            self.assertIn(f"lonc --standalone {place} ask l2 ping", daemon.screen)
            self.assertIn(f"data      {place}/data/", daemon.screen)
            daemon.release()

    def test_standalone_with_port_in_use(self) -> None:
        """Section 8: a port in use is reported with its address; once it is free, lonc starts."""
        options = self.standalone()
        with socket.create_server(("127.0.0.2", self.port)):
            told = self.refusal(*options)
        where = f"the lond l2 cannot listen on port {self.port} at 127.0.0.2: Address already"
        self.assertIn(where, told)
        self.assertTrue(told.endswith("another port, as in make run PORT=6663"), told)
        self.made(*options)

    def test_standalone_with_a_name_only(self) -> None:
        """For a host without an address, another port is not advised."""
        options = self.standalone()
        prepare(self.path("new"))
        with open(self.path("new", "tabs", "hosts.tab"), "a") as table:
            table.write("l6:local:access:l6.invalid:http\n")
        told = self.refusal(*options)
        self.assertTrue(told.endswith("no address in the host table, only a name"), told)

    def test_from_a_file(self) -> None:
        """The daemon is also created without a `twistd` command line, as in ``tap/lonc.tac``."""
        options = Options()
        options.parseOptions(["--config", self.configured()])
        daemon = makeService(options)
        self.addCleanup(daemon.release)
        assert daemon.complaints is not None
        self.addCleanup(daemon.complaints.close)
        self.assertIsNotNone(daemon.terminal)
        self.assertEqual(
            daemon.choices, Choices(takes_signals=True, sets_title=True, takes_log=True)
        )


class ImportTests(TestCase):
    """Modules imported at the start."""

    async def test_seldom_needed(self) -> None:
        """What few daemons need, or only after a while, is not imported with the daemon."""
        seldom = {
            *("twisted.protocols.amp", "twisted.web", "treq", "jinja2", "Crypto", "click", "rich"),
            *("lonc.cli", "lonc.client", "lonc.lond", "lonc.standalone"),
            *("lonc.config.download", "lonc.control.server", "lonc.control.tls", "lonc.web.site"),
            "textual",
        }
        program = f"import lonc.tap, sys; print(*({seldom} & sys.modules.keys()))"
        out, err, status = await getProcessOutputAndValue(
            sys.executable, ["-c", program], dict(os.environ)
        )
        self.assertEqual((out, err, status), (b"\n", b"", 0))

    async def test_tls(self) -> None:
        """
        TLS is not imported with the reactor; a port serves it nevertheless, and the log says so.
        """
        folder = self.mktemp()
        os.mkdir(folder)
        files = Authority(folder).issue("l1", file="l1")
        ours = f"privateKey={files.key}:certKey={files.certificate}:interface=127.0.0.1"
        out, err, status = await getProcessOutputAndValue(
            sys.executable, ["-c", _SERVE_TLS, ours], dict(os.environ)
        )
        self.assertEqual((out, err, status), (b"False\nhello\n(TLS Port Closed)\n", b"", 0))


#: Imports the reactor as the daemon does, says whether pyOpenSSL is there, and serves a client.
_SERVE_TLS = """
import socket, ssl, sys
import lonc.tap
from lonc.daemon.own_process import import_reactor_without_tls
import_reactor_without_tls()
from twisted.internet import reactor
print("OpenSSL" in sys.modules)
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.protocols.wire import Echo
from twisted.python import log
from lonc.transport.endpoint_port import ListeningReactor, server_endpoint
from lonc.transport.network import Keeper, Network

def closed(event):
    words = " ".join(map(str, event["message"])).split()
    if words[-1:] == ["Closed)"]:
        print(*words[:2], words[-1])

log.startLoggingWithObserver(closed, setStdout=False)

def ask(port):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port.getHost().port)) as plain:
        with context.wrap_socket(plain) as secure:
            secure.sendall(b"hello")
            print(secure.recv(5).decode())

description = "ssl:0:" + sys.argv[1]
ports = ListeningReactor(reactor, Network(reactor), description, Keeper())
listening = server_endpoint(ports, description).listen(Factory.forProtocol(Echo))
listening.addCallback(lambda port: deferToThread(ask, port))
listening.addErrback(lambda reason: print(reason))
listening.addBoth(lambda _: reactor.stop())
reactor.run()
"""


class MakeDaemonTests(TapTestCase):
    """The daemon is created for another program."""

    def embedded(self, *arguments: str, **choices: bool) -> LoncService:
        """Return the daemon for some options."""
        options = Options()
        options.parseOptions(arguments)
        daemon = make_daemon(options, DaemonReactor(), **choices)
        self.addCleanup(daemon.release)
        return daemon

    def test_leaves_the_process_alone(self) -> None:
        """Signals, process title, log and exception hook of the program are left alone."""
        before = sys.excepthook
        daemon = self.embedded("--config", self.configured())
        self.assertEqual(daemon.choices, Choices())
        self.assertNotIsInstance(daemon, TwistdService)
        self.assertIs(sys.excepthook, before)

    def test_chosen(self) -> None:
        """An argument makes lonc handle the log."""
        daemon = self.embedded("--config", self.configured(), takes_log=True)
        self.assertEqual(daemon.choices, Choices(takes_log=True))
        application = Application("a program")
        daemon.setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), daemon.observer)

    def test_exceptions(self) -> None:
        """Errors are exceptions and never end the program."""
        config = self.configured()
        self.embedded("--config", config)
        with self.assertRaisesRegex(
            PidFileError, "another lonc is already running in these folders: process "
        ):
            self.embedded("--config", config)
        with self.assertRaisesRegex(SettingsError, "--retries: 'x' is not a whole number"):
            self.embedded("--config", config, "--retries", "x")
        with self.assertRaises(usage.UsageError):
            self.embedded("argument")
        with open(self.path("hosts.tab"), "w"):
            pass
        with self.assertRaisesRegex(TableError, "hosts.tab: there is no host that can be used"):
            self.embedded("--config", config)


class EmbeddedTests(TapTestCase, TestCase):
    """The daemon inside another program, here trial, with real sockets."""

    async def test_served(self) -> None:
        """It serves, leaves nothing behind after it has stopped, and does not start again."""
        options = Options()
        options.parseOptions(
            ["--standalone", self.folder, "--lond-port", str(free_port("127.0.0.1", "127.0.0.2"))]
        )
        before = signal.getsignal(signal.SIGHUP), getproctitle()
        daemon = make_daemon(options, global_reactor)
        daemon.startService()
        try:
            client = TwistedClient(global_reactor, daemon.in_force.settings)
            self.assertEqual(await client.ask("l2", "ping"), b"l2")
            self.assertEqual((signal.getsignal(signal.SIGHUP), getproctitle()), before)
        finally:
            await daemon.stopService()
        self.assertFalse(os.path.exists(daemon.in_force.settings.pid_file))
        with self.assertRaisesRegex(PidFileError, "a service that has stopped cannot"):
            daemon.startService()


class TakenNetwork(FakeNetwork):
    """A network in which the management port is taken."""

    def listenUNIX(self, path: str, factory: Factory, backlog: int, mode: int) -> FakePort:
        """Refuse the management port."""
        if path.endswith("lonc.amp"):
            raise CannotListenError(None, path, OSError("it is taken"))
        return super().listenUNIX(path, factory, backlog, mode)


class DaemonTests(ServiceTestCase):
    """The service that `twistd` runs."""

    def made_with(self, reactor: DaemonReactor, own_process: bool = False) -> TwistdService:
        """Return a daemon in memory, with files for stderr and stdout."""
        self.choices = Choices(own_process=own_process)
        self.complaints = open(self.mktemp(), "w")  # noqa: SIM115  # the service closes both
        self.announcements = open(self.mktemp(), "w")  # noqa: SIM115
        self.shown: list[str] = []
        return TwistdService(
            self.outside(reactor), self.shown.append, "well", self.complaints, self.announcements
        )

    def said(self, stream: TextIO) -> str:
        """Return what was written to a file, which has to be closed."""
        self.assertTrue(stream.closed)
        with open(stream.name) as file:
            return file.read()

    def test_cannot_start(self) -> None:
        """
        Section 8: one line on stderr and one in the log; the lock is free; the error goes on, for
        twistd to pass it to the command that the user gave, but not as a traceback.
        """
        self.patch(sys, "excepthook", sys.excepthook)
        stderr = io.StringIO()
        self.patch(sys, "stderr", stderr)
        self.network = TakenNetwork(self.clock)
        daemon = self.made_with(DaemonReactor())
        error = self.assertRaises(ManagementPortError, daemon.startService)
        line = f"management port {self.first.management}: it is taken"
        self.assertEqual(self.said(self.complaints), f"lonc: {line}\n")
        self.announcements.close()
        self.assertEqual(self.notes.at(LogLevel.critical), [f"cannot start: {line}"])
        self.assertFalse(os.path.exists(self.first.pid_file))
        sys.excepthook(ManagementPortError, error, None)
        self.assertEqual((stderr.getvalue(), self.shown), ("", []))

    def test_cannot_start_elsewhere(self) -> None:
        """In another program, the error is raised there; what was started can be stopped."""
        before = sys.excepthook
        self.network = TakenNetwork(self.clock)
        daemon = self.made()
        with self.assertRaisesRegex(ManagementPortError, ": it is taken"):
            daemon.startService()
        self.assertIs(sys.excepthook, before)
        stopped = daemon.stopService()
        self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertFalse(os.path.exists(self.first.pid_file))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_starts(self) -> None:
        """
        Once everything runs, the screen is shown, or in the background one line with process and
        log; the copies of stderr and stdout are closed.
        """
        daemon = self.made_with(self.clock)
        self.clock.hasRun = False
        daemon.startService()
        self.assertEqual(self.shown, [])
        for call, arguments, _ in self.clock.whenRunningHooks:
            call(*arguments)
        self.assertEqual(self.shown, ["well"])
        self.assertEqual(self.clock.triggers, {})
        self.assertEqual(self.said(self.complaints), "")
        where = f"process {os.getpid()}; the log is {self.first.log_file}"
        told = f"lonc: 2 hosts are served by {where}\n"
        self.assertEqual(self.said(self.announcements), told)
        self.assertTrue(self.there("l1", "l2"))

    def test_own_process(self) -> None:
        """F12, S17: in a process of its own, hanging threads do not prevent the end."""
        daemon = self.made_with(self.clock, own_process=True)
        daemon.startService()
        self.assertEqual(list(self.clock.triggers), ["during"])
