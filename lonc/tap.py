# Twisted's Options has no annotations:
# mypy: allow-untyped-calls
"""
``twistd lonc``: its options, and the composition of the daemon.
"""

from __future__ import annotations

import contextlib
import gc
import linecache
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from importlib import import_module
from random import Random
from typing import TYPE_CHECKING, Any, TextIO

from twisted.logger import LogPublisher
from twisted.python import usage

from lonc.config.auth_modes import read_access
from lonc.config.current import Sources
from lonc.config.hosts import TableError
from lonc.config.settings import (
    PARAMETERS,
    REMOVED,
    SettingsError,
    find_config_file,
    opt_parameters,
)
from lonc.control.reporter import status_text
from lonc.daemon.load import Loader
from lonc.daemon.outside import Choices, Outside
from lonc.daemon.own_process import (
    acting_as,
    fill_standard_descriptors,
    import_reactor_without_tls,
    take_over_process,
)
from lonc.daemon.pidfile import PidFile, PidFileError, who_serves
from lonc.daemon.systemd import Manager
from lonc.daemon.takeover import TakeOverError, take_over
from lonc.host.service import HostService
from lonc.report.events import Logger
from lonc.report.logs import Echo, LineFile, LoncLog, PermLog, SeedForm, json_form, text_form
from lonc.report.problems import Problems
from lonc.report.text_output import TextOutput
from lonc.service import LoncService
from lonc.transport.endpoint_port import PortError
from lonc.transport.network import network

if TYPE_CHECKING:
    from lonc.standalone import Standalone

#: The formats of ``lonc.log``; None: that of loncnew, the default of `LoncLog`.
FORMS = {"seed": None, "json": json_form, "text": text_form}

#: Seconds for threads to end after everything else.
THREADS_END = 1.0

#: Seconds to wait for the lock of the pid file, by whether this process takes over. A script that
#: tests the lock holds it for milliseconds; an old process that did not hand over is just ending.
PATIENCE = {False: 0.1, True: 2.0}

#: Modules otherwise imported on demand: when root starts lonc, the user that lonc runs as may not
#: be able to read the Python installation.
IMPORTED_LATER = (
    "Crypto.Cipher.AES",
    "Crypto.Random",
    "cryptography.x509",
    "difflib",
    "encodings.idna",
    "encodings.utf_8_sig",
    "lonc.config.download",
    "lonc.control.server",
    "lonc.control.tls",
    "lonc.standalone",
    "lonc.web.site",
)

log = Logger()


class Options(usage.Options):
    """The command line of ``twistd lonc``."""

    synopsis = "[options]"
    longdesc = (
        "Keeps connections to the lond of every host in hosts.tab, and serves local clients on "
        "one UNIX socket for each. Every setting is a PerlSetVar of loncapa.conf as well; the "
        "option wins."
    )
    optFlags = [
        ["take-over", None, "Take over from the lonc that is running on the same folders"],
    ]
    optParameters = [
        ["config", "c", None, "Read this loncapa.conf [default: where the web server has it]"],
        ["standalone", None, None, "Run a cluster of two hosts, londs included, in this folder"],
        ["table-port", None, None, "With --standalone: serve its host table on this HTTP port"],
        *opt_parameters(),
    ]

    @property
    def twistd(self) -> usage.Options | None:
        """The options of `twistd`, if these options belong to one."""
        return getattr(self, "parent", None)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse options; within `twistd` a wrong option ends the program with one line and status 1.

        :raises twisted.python.usage.UsageError: a wrong option, without `twistd`.
        """
        if "pidfile" not in (self.parent or {"pidfile": None}):
            raise SystemExit("twist lonc: use twistd -n lonc to run lonc in the foreground")
        if self.twistd:
            fill_standard_descriptors()  # before any file is opened for good
            import_reactor_without_tls()
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            if not self.twistd:
                raise
            raise SystemExit(f"twistd lonc: {error}") from None

    def parseArgs(self, *arguments: str) -> None:
        """Refuse arguments."""
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r} is not an option")

    def postOptions(self) -> None:
        """
        Change defaults of `twistd`.

        There is no ``twistd.pid``: it would be written to the current folder, and that of another
        application there would keep lonc from starting. In the background, the umask is the same as
        loncnew's.
        """
        twistd = self.twistd
        if twistd is not None and os.path.basename(twistd["pidfile"]) == "twistd.pid":
            twistd["pidfile"] = ""
        if twistd is not None and twistd["umask"] is None and not twistd["nodaemon"]:
            twistd["umask"] = 0o022

    def given(self) -> dict[str, str]:
        """Return the settings given as options."""
        options = [*(each.option for each in PARAMETERS if each.option), *REMOVED.values()]
        return {name: self[name] for name in options if self[name] is not None}

    @cached_property
    def cluster(self) -> Standalone | None:
        """
        The cluster of ``--standalone``, if any.

        :raises SettingsError: an option is wrong, or cannot be combined with another.
        """
        folder, table_port = self["standalone"], self["table-port"]
        if folder is None:
            if table_port is not None:
                raise SettingsError("--table-port requires --standalone")
            return None
        if self["take-over"]:
            raise SettingsError(
                "--take-over does not work with --standalone: its londs cannot be taken over"
            )
        if self["config"] is not None:
            raise SettingsError("--standalone has a loncapa.conf of its own: omit --config")
        from lonc.standalone import Standalone

        return Standalone(folder, table_port)

    @property
    def in_background(self) -> bool:
        """Whether `twistd` runs lonc in the background."""
        return self.twistd is not None and not self.twistd["nodaemon"]

    def terminal(self) -> Callable[[str], None] | None:
        """
        Return a function that shows log lines on the terminal or in twistd's log file, if any.

        :raises SettingsError: the log file given to `twistd` cannot be opened.
        """
        twistd = self.twistd
        if self.in_background:
            return None
        if twistd is not None and twistd["logfile"] not in (None, "-"):
            path = twistd["logfile"]
            with _usable(f"--logfile {path}"):
                return TextOutput(open(path, "a", encoding="utf-8", opener=_open_at_once)).show
        try:
            return TextOutput(sys.stdout).show
        except (OSError, ValueError):  # it is closed, or not a file
            return None


class TwistdService(LoncService):
    """
    The service run by `twistd`.

    :param terminal: shows a log line; None in the background.
    :param screen: text to show there when everything is running.
    :param complaints: a copy of stderr from before twistd redirects or closes it.
    :param announcements: the same of stdout, in the background.
    """

    def __init__(
        self,
        outside: Outside,
        terminal: Callable[[str], None] | None,
        screen: str,
        complaints: TextIO | None = None,
        announcements: TextIO | None = None,
    ) -> None:
        super().__init__(outside)
        self.terminal = terminal
        self.screen = screen
        self.complaints = complaints or _copy_of(2)
        self.announcements = announcements

    def startService(self) -> None:
        """Start; errors that a user can cause end `twistd` with one line."""
        linecache.clearcache()  # of the methods that attrs has made: 0.3 MB for the hosts
        if self.choices.own_process:
            self._outside.reactor.addSystemEventTrigger("during", "shutdown", self._leave_threads)
        with self.complaints:
            try:
                super().startService()
            except (PortError, PidFileError, TakeOverError) as error:
                log.critical("cannot start: {error}", error=error)
                self.release()
                print(f"lonc: {error}", file=self.complaints)
                # It must reach twistd, or the user's command would wait forever; the hook
                # suppresses the traceback that twistd would log.
                sys.excepthook = lambda *_: None
                raise
        if self.announcements is not None:
            with self.announcements, contextlib.suppress(OSError):  # nobody reads it
                print(self._announcement(), file=self.announcements)
        # Imported objects are permanent: exclude them from later garbage collections.
        gc.collect()
        gc.freeze()
        # When the user reads it, Ctrl-C must work: signal handlers are installed by then.
        self._outside.reactor.callWhenRunning(self._show_screen)

    def _announcement(self) -> str:
        count, wrong = len(self.hosts), len(list(self.problems))
        return (
            f"lonc: {count} {'host is' if count == 1 else 'hosts are'} served by process "
            f"{os.getpid()}; the log is {self.in_force.settings.log_file}"
            + (f"; {wrong} {'problem' if wrong == 1 else 'problems'}: lonc status" if wrong else "")
        )

    def _show_screen(self) -> None:
        if self.terminal is not None and self.screen:
            self.terminal(self.screen)

    def _leave_threads(self) -> None:
        """End the process even if threads hang in look-ups or disk operations."""
        last_resort = threading.Timer(THREADS_END, os._exit, (0,))
        last_resort.daemon = True
        last_resort.start()


def makeService(options: Options) -> TwistdService:
    """
    Create the daemon for `twistd`, with control of signals, process title and log.

    :raises SystemExit: it cannot start; contains a line with the reason.
    """
    twistd = options.twistd or {"uid": None, "gid": None, "umask": None}
    from twisted.internet import reactor

    if options.twistd:
        take_over_process()
    if twistd["uid"] is not None:
        for module in IMPORTED_LATER:
            import_module(module)
    try:
        with acting_as(twistd["uid"], twistd["gid"], twistd["umask"]) as for_another:
            if for_another:
                _check_pid_file(twistd["pidfile"] or "")
            terminal = options.terminal()
            choices = Choices(
                own_process=options.twistd is not None,
                takes_signals=True,
                sets_title=True,
                takes_log=True,
            )
            with _prepared(options, reactor, choices, for_another, terminal) as outside:
                cluster = options.cluster
                return TwistdService(
                    outside,
                    terminal=terminal,
                    screen=cluster.screen(*outside.configuration) if cluster else "",
                    announcements=_copy_of(1) if options.in_background else None,
                )
    except SettingsError as error:
        raise SystemExit("\n".join(f"lonc: {each}" for each in error.errors)) from None
    except (TableError, PidFileError, TakeOverError) as error:
        raise SystemExit(f"lonc: {error}") from None


def make_daemon(
    options: Options,
    reactor: Any,
    *,
    takes_signals: bool = False,
    sets_title: bool = False,
    takes_log: bool = False,
) -> LoncService:
    """
    Create the daemon for another program.

    Signals, process title and log are left to that program unless chosen here. The daemon holds the
    lock of the folders from now on, until it has been stopped, or ``release`` is called.

    :param options: parsed, without `twistd`.
    :param takes_signals: whether lonc handles HUP, USR1, USR2, TERM and INT while running.
    :param sets_title: whether the process title shows a summary of the hosts.
    :param takes_log: whether the application that the daemon becomes part of logs to lonc's log
        only.
    :raises lonc.config.settings.SettingsError: a setting, file or folder cannot be used.
    :raises lonc.config.hosts.TableError: the host table cannot be used.
    :raises lonc.daemon.pidfile.PidFileError: another lonc is using the folders.
    :raises lonc.daemon.takeover.TakeOverError: with ``take-over``: the running lonc continues.
    """
    choices = Choices(takes_signals=takes_signals, sets_title=sets_title, takes_log=takes_log)
    with _prepared(options, reactor, choices) as outside:
        return LoncService(outside)


def _check_pid_file(path: str) -> None:
    """Refuse twistd's pid file, written by root, in a folder where the user can place a link."""
    if path and os.access(os.path.dirname(path), os.W_OK, effective_ids=True):
        raise SettingsError(
            f"--pidfile {path}: root would write it in a folder of the other user; omit it,"
            " lonc has its own"
        )


@contextlib.contextmanager
def _usable(what: str) -> Iterator[None]:
    """Report an error of the operating system as a line about something in the settings."""
    try:
        yield
    except OSError as error:
        raise SettingsError(f"{what}: {error.strerror}") from None


@contextlib.contextmanager
def _prepared(
    options: Options,
    reactor: Any,
    choices: Choices,
    for_another: bool = False,
    terminal: Callable[[str], None] | None = None,
) -> Iterator[Outside]:
    """
    Read the files, acquire the lock and open the log; undo this if the daemon is not created.

    :param for_another: whether lonc will run as another user than now.
    :param terminal: also shows the log.
    """
    given, cluster = options.given(), options.cluster
    if cluster is not None:
        config = cluster.prepare(given)
    else:
        config = os.path.abspath(options["config"] or find_config_file())
    loader = Loader(config, given)
    settings, table = loader.everything(lenient=True)
    access = read_access(settings, table)
    for path in (settings.logs_dir, settings.status_dir):
        with _usable(path):
            os.makedirs(path, exist_ok=True)
    pid_file = PidFile(settings.pid_file)
    taking_over = options["take-over"]
    manager = Manager(os.environ if options.twistd else {})
    predecessor = take_over(settings.management, pid_file.path) if taking_over else None
    with contextlib.ExitStack() as undo:
        if predecessor is None:
            pid_file.acquire(PATIENCE[taking_over])
            others = "" if manager.inherited else who_serves(settings, table)
            if others:
                pid_file.abandon()
                raise PidFileError(f"{others}; stop it before you start lonc")
            undo.callback(pid_file.release)
        else:
            pid_file.adopt(predecessor.holdings.lock)
            manager.inherited.update(predecessor.holdings.sockets)
            undo.callback(predecessor.decline)
        if cluster is not None:
            cluster.check(settings, table)
        problems = Problems()
        log_file = LineFile(settings.log_file, problems=problems)
        if for_another:
            with _usable(settings.log_file):
                log_file.open()  # the next writer would still be root
        hosts: dict[str, HostService] = {}
        lonc_log = LoncLog(
            log_file, SeedForm(partial(status_text, hosts)), FORMS[settings.log_format]
        )
        observer = LogPublisher(lonc_log)
        if terminal is not None:
            observer.addObserver(Echo(terminal))
        yield Outside(
            reactor=reactor,
            network=network(reactor),
            configuration=(settings, table),
            sources=Sources(loader.everything, loader.table, loader.settings),
            hosts=hosts,
            pid_file=pid_file,
            lonc_log=lonc_log,
            observer=observer,
            perm_log=PermLog(settings.perm_log_file, problems=problems).write,
            problems=problems,
            random=Random(),
            manager=manager,
            choices=choices,
            predecessor=predecessor,
            beside=cluster.services(reactor, settings, table, access) if cluster else [],
        )
        undo.pop_all()


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for the reader of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def _copy_of(descriptor: int) -> TextIO:
    try:
        return open(os.dup(descriptor), "w", encoding="utf-8", errors="backslashreplace")
    except OSError:  # it was already closed
        return open(os.devnull, "w", encoding="utf-8")
