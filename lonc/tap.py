# Twisted's Options has no annotations:
# mypy: allow-untyped-calls
"""
``twistd lonc``: its options, and the one place where everything is put together.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from random import Random
from typing import Any, TextIO

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
from lonc.daemon.own_process import acting_as, fill_standard_descriptors, take_over_process
from lonc.daemon.pidfile import PidFile, PidFileError, who_serves
from lonc.daemon.systemd import Manager
from lonc.daemon.takeover import TakeOverError, take_over
from lonc.host.service import HostService
from lonc.report.events import Logger
from lonc.report.logs import Echo, LineFile, LoncLog, PermLog, SeedForm, json_form, text_form
from lonc.report.problems import Problems
from lonc.report.text_output import TextOutput
from lonc.service import LoncService
from lonc.standalone import LOND_PORT, check_cluster, cluster, prepare_cluster, screen, table_server
from lonc.transport.endpoint_port import PortError
from lonc.transport.network import network

#: How ``lonc.log`` may look; the seed's form is what is left.
FORMS = {"seed": None, "json": json_form, "text": text_form}

#: Seconds that what goes on in threads gets when all else has ended.
THREADS_END = 1.0

#: Seconds in which who has the pid file may go, by whether this process takes over. A script that
#: sees whether it is locked has it for some milliseconds; an old process that did not hand over is
#: just ending.
PATIENCE = {False: 0.1, True: 2.0}

#: What is imported only where it is needed: not every Python can be read by the user that lonc runs
#: as, when root starts it.
IMPORTED_LATER = (
    "Crypto.Cipher.AES",
    "Crypto.Random",
    "cryptography.x509",
    "difflib",
    "encodings.idna",
    "encodings.utf_8_sig",
    "lonc.config.download",
    "lonc.lond.cluster",
    "lonc.lond.table_server",
    "lonc.control.server",
    "lonc.control.tls",
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
        ["take-over", None, "Take everything over from the lonc that runs on the same folders"],
    ]
    optParameters = [
        ["config", "c", None, "Read this loncapa.conf [default: where the web server has it]"],
        ["standalone", None, None, "Run a cluster of two hosts, londs included, in this folder"],
        ["table-port", None, None, "With --standalone: serve its host table on this HTTP port"],
        *opt_parameters(),
    ]

    @property
    def twistd(self) -> usage.Options | None:
        """The options of the `twistd` that stands before them, if one does."""
        return getattr(self, "parent", None)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse; behind ``twistd lonc`` a wrong option ends the program with one line and status 1.

        :raises twisted.python.usage.UsageError: where there is no `twistd` before it.
        """
        if "pidfile" not in (self.parent or {"pidfile": None}):
            raise SystemExit("twist lonc: what runs lonc in the foreground is twistd -n lonc")
        if self.twistd:
            fill_standard_descriptors()  # nothing is opened to stay before twistd has these options
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            if not self.twistd:
                raise
            raise SystemExit(f"twistd lonc: {error}") from None

    def parseArgs(self, *arguments: str) -> None:
        """There are no arguments."""
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r} is no option")

    def postOptions(self) -> None:
        """
        Leave ``twistd.pid`` out: it would land in whatever folder the command was given in, and
        one of another application there would keep lonc from starting.

        In the background files are as readable as loncnew left them.
        """
        twistd = self.twistd
        if twistd is not None and os.path.basename(twistd["pidfile"]) == "twistd.pid":
            twistd["pidfile"] = ""
        if twistd is not None and twistd["umask"] is None and not twistd["nodaemon"]:
            twistd["umask"] = 0o022

    def given(self) -> dict[str, str]:
        """Return the settings that were given as options."""
        options = [*(each.option for each in PARAMETERS if each.option), *REMOVED.values()]
        return {name: self[name] for name in options if self[name] is not None}

    @property
    def in_background(self) -> bool:
        """Whether `twistd` goes there, and gives the terminal back to the user."""
        return self.twistd is not None and not self.twistd["nodaemon"]

    def terminal(self) -> Callable[[str], None] | None:
        """
        Return what shows the log besides, if anything.

        :raises SettingsError: the file that `twistd` would write cannot be opened.
        """
        twistd = self.twistd
        if self.in_background:
            return None
        if twistd is not None and twistd["logfile"] not in (None, "-"):
            try:
                path = twistd["logfile"]
                return TextOutput(open(path, "a", encoding="utf-8", opener=_open_at_once)).show
            except OSError as error:
                raise SettingsError(f"--logfile {twistd['logfile']}: {error.strerror}") from None
        try:
            return TextOutput(sys.stdout).show
        except (OSError, ValueError):  # it is closed, or no file
            return None


class TwistdService(LoncService):
    """
    What `twistd` runs.

    :param terminal: shows a line of the log, None in the background.
    :param screen: what to tell there once all is running.
    :param complaints: stderr, before twistd takes it for the log, or lets it go.
    :param announcements: in the background stdout, likewise.
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
        self.complaints = complaints or _kept(2)
        self.announcements = announcements

    def startService(self) -> None:
        """Start; what a user can cause ends `twistd` with one line."""
        if self.choices.own_process:
            self._outside.reactor.addSystemEventTrigger("during", "shutdown", self._leave_threads)
        with self.complaints:
            try:
                super().startService()
            except (PortError, PidFileError, TakeOverError) as error:
                log.critical("cannot start: {error}", error=error)
                self.release()
                print(f"lonc: {error}", file=self.complaints)
                # It has to reach twistd, or the command that the user gave would wait for ever;
                # from there it would end as a traceback in the log.
                sys.excepthook = lambda *_: None
                raise
        if self.announcements is not None:
            with self.announcements, contextlib.suppress(OSError):  # nobody looks at it
                print(self._announcement(), file=self.announcements)
        # What the imports made stays for good: let the collector look at it this once.
        gc.collect()
        gc.freeze()
        # Who reads it may press Ctrl-C: signals are taken by then.
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
        """All has ended but for look-ups, or a disk, that hang: end without them."""
        last_resort = threading.Timer(THREADS_END, os._exit, (0,))
        last_resort.daemon = True
        last_resort.start()


def makeService(options: Options) -> TwistdService:
    """
    Put the daemon together for `twistd`: signals, process title and log are lonc's.

    :raises SystemExit: with one line that names the cause, when it cannot start.
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
                folder = options["standalone"]
                return TwistdService(
                    outside,
                    terminal=terminal,
                    screen="" if folder is None else screen(folder, *outside.configuration),
                    announcements=_kept(1) if options.in_background else None,
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
    Put the daemon together for a program of one's own.

    It leaves signals, process title and log to that program, but for what is chosen here. It has
    the folders from now on, until it has been stopped, or ``release`` is called.

    :param options: parsed, with no `twistd` before them.
    :param takes_signals: whether HUP, USR1, USR2, TERM and INT are lonc's while it runs.
    :param sets_title: whether the process title sums the hosts up.
    :param takes_log: whether the application that the daemon becomes part of logs where lonc does,
        and nowhere else.
    :raises lonc.config.settings.SettingsError: a setting, file or folder cannot be used.
    :raises lonc.config.hosts.TableError: the host table cannot be used.
    :raises lonc.daemon.pidfile.PidFileError: another lonc has the folders.
    :raises lonc.daemon.takeover.TakeOverError: with ``take-over``: the lonc that runs goes on.
    """
    choices = Choices(takes_signals=takes_signals, sets_title=sets_title, takes_log=takes_log)
    with _prepared(options, reactor, choices) as outside:
        return LoncService(outside)


def _check_pid_file(path: str) -> None:
    """Refuse twistd's own pid file, which root writes, where the present user can put a link."""
    if path and os.access(os.path.dirname(path), os.W_OK, effective_ids=True):
        raise SettingsError(
            f"--pidfile {path}: root would write it in a folder of the other user; lonc has its own"
        )


@contextlib.contextmanager
def _prepared(
    options: Options,
    reactor: Any,
    choices: Choices,
    for_another: bool = False,
    terminal: Callable[[str], None] | None = None,
) -> Iterator[Outside]:
    """
    Read the files, take the lock and open the log; give them back if the daemon is not made.

    :param for_another: whether lonc will run as another user than now.
    :param terminal: where the log is shown too.
    """
    given = options.given()
    folder, table_port = options["standalone"], options["table-port"]
    if table_port is not None:
        table_port = LOND_PORT.read(table_port, "--table-port")
        if folder is None:
            raise SettingsError("--table-port goes with --standalone only")
    if options["take-over"] and folder is not None:
        raise SettingsError("--take-over is not for --standalone: its londs cannot be taken over")
    if folder is None:
        config = os.path.abspath(options["config"] or find_config_file())
    elif options["config"] is None:
        config = prepare_cluster(folder, given)
    else:
        raise SettingsError("--standalone has a loncapa.conf of its own: leave --config out")

    loader = Loader(config, given)
    settings, table = loader.everything(lenient=True)
    access = read_access(settings, table)
    for path in (settings.logs_dir, settings.status_dir):
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}") from None
    pid_file = PidFile(settings.pid_file)
    taking_over = options["take-over"]
    manager = Manager(os.environ if options.twistd else {})
    predecessor = take_over(settings.management, pid_file.path) if taking_over else None
    with contextlib.ExitStack() as undo:
        if predecessor is None:
            pid_file.acquire(PATIENCE[taking_over])
            others = "" if manager.has_inherited else who_serves(settings, table)
            if others:
                pid_file.close()  # it may be loncnew's
                raise PidFileError(f"{others}; stop it before you start lonc")
            undo.callback(pid_file.release)
        else:
            pid_file.adopt(predecessor.holdings.lock)
            manager.add_inherited(predecessor.holdings.sockets)
            undo.callback(predecessor.decline)
        if folder is not None:
            check_cluster(settings, table)
        problems = Problems()
        log_file = LineFile(settings.log_file, problems=problems)
        if for_another:
            try:
                log_file.open()  # the next to write to it is root yet
            except OSError as error:
                raise SettingsError(f"{settings.log_file}: {error.strerror}") from None
        hosts: dict[str, HostService] = {}
        lonc_log = LoncLog(
            log_file, SeedForm(partial(status_text, hosts)), FORMS[settings.log_format]
        )
        observer = LogPublisher(lonc_log)
        if terminal is not None:
            observer.addObserver(Echo(terminal))
        beside = [] if folder is None else [cluster(reactor, folder, settings, table, access)]
        if table_port is not None:
            beside.append(table_server(reactor, table_port, table))
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
            beside=beside,
        )
        undo.pop_all()


def _open_at_once(path: str, flags: int) -> int:
    """Open a file, or fail, without waiting for the reader of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def _kept(descriptor: int) -> TextIO:
    try:
        return open(os.dup(descriptor), "w", encoding="utf-8", errors="backslashreplace")
    except OSError:  # somebody closed it before us
        return open(os.devnull, "w", encoding="utf-8")
