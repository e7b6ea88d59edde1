"""The ``lonc`` command line, and the commands that need no daemon."""

from __future__ import annotations

import configparser
import errno
import getpass
import inspect
import io
import os
import pwd
import socket
import stat
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout

import click
from twisted.internet.error import ConnectError
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase

import lonc
from lonc.cli import configuration, target
from lonc.cli.arguments import chosen, in_seconds
from lonc.cli.main import COMMANDS, commands, main
from lonc.config.settings import find_config_file, read_settings
from lonc.control.errors import NoAnswer
from lonc.daemon.check import Checked
from lonc.daemon.pidfile import PidFile
from lonc.delayed.names import SEALED
from lonc.delayed.sealing import KEY_SIZE, read_key_file, seal
from lonc.test.fixtures.beginnings import configured, short_folder
from lonc.test.fixtures.doubles import some_settings
from lonc.test.fixtures.programs import SOURCE, run_program
from lonc.test.fixtures.source import read

NAME = "1062000000.4711.passwd.l1"
LINE = b"passwd:msu:alice:\xffsecret\n"


class CommandCase(SynchronousTestCase):
    """A test with a folder."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(tempfile.mkdtemp(dir="."))

    def path(self, name: str) -> str:
        """Return a path in the folder."""
        return os.path.join(self.folder, name)

    def configured(self, *lines: str) -> str:
        """Write a ``loncapa.conf`` with further lines, for this folder; return its path."""
        return configured(self.folder, *lines)

    def put(self, name: str, content: bytes) -> str:
        """Write a file; return its path."""
        with open(self.path(name), "wb") as file:
            file.write(content)
        return self.path(name)

    def run_command(self, *arguments: str, status: int = 0) -> bytes:
        """Run the command; return what it prints."""
        output, ended = io.BytesIO(), None
        stream = io.TextIOWrapper(output, encoding="utf-8", write_through=True)
        with redirect_stdout(stream):
            try:
                main(arguments)
            except SystemExit as error:
                ended = error.code
        self.assertEqual(ended or 0, status)
        return output.getvalue()

    def refusal(self, *arguments: str, status: int = 1) -> str:
        """Run the command, which has to fail; return its error message of one line."""
        errors = io.StringIO()
        with redirect_stderr(errors):
            self.run_command(*arguments, status=status)
        line = errors.getvalue().removesuffix("\n")
        self.assertTrue(line.startswith("lonc: "), line)
        self.assertNotIn("\n", line)
        return line.removeprefix("lonc: ")


class MakeKeyTests(CommandCase):
    """``lonc make-delayed-key``."""

    def test_made(self) -> None:
        """The key file is readable by its owner only, and the printed line configures it."""
        key = self.path('a "b"')
        printed = self.run_command("make-delayed-key", key).decode()
        self.assertEqual(len(read_key_file(key)), KEY_SIZE)
        self.assertEqual(stat.S_IMODE(os.stat(key).st_mode), 0o600)
        conf = self.configured(printed.splitlines()[1])
        self.assertEqual(read_settings(conf, {}).delayed_key_file, key)

    def test_there(self) -> None:
        """An existing file is left unchanged."""
        key = self.put("key", b"x")
        line = self.refusal("make-delayed-key", key)
        self.assertEqual(line, f"{key}: it exists, and is left unchanged")
        with open(key, "rb") as file:
            self.assertEqual(file.read(), b"x")


class ShowTests(CommandCase):
    """``lonc show-delayed``."""

    def setUp(self) -> None:
        super().setUp()
        self.key = self.path("key")
        self.run_command("make-delayed-key", self.key)
        self.secret = read_key_file(self.key)

    def show(self, *arguments: str) -> bytes:
        """Return what is shown with the key."""
        return self.run_command("show-delayed", "--key", self.key, *arguments)

    def test_shown(self) -> None:
        """A sealed request, or the note beside one that was set aside, is printed unchanged."""
        file = self.put(NAME + SEALED, seal(self.secret, NAME, LINE))
        self.assertEqual(self.show(file), LINE)
        note = seal(self.secret, f"{NAME}.answer", b"refused\n")
        self.assertEqual(self.show(self.put(f"{NAME}~1.answer{SEALED}", note)), b"refused\n")

    def test_config(self) -> None:
        """The key is the one configured in loncapa.conf, unless another is given."""
        file = self.put(NAME + SEALED, seal(self.secret, NAME, LINE))
        conf = self.configured(f"PerlSetVar loncDelayedKeyFile {self.key}\n")
        self.assertEqual(self.run_command("show-delayed", "--config", conf, file), LINE)
        self.configured()
        self.assertEqual(
            self.refusal("show-delayed", "--config", conf, file),
            "no key: loncapa.conf has no loncDelayedKeyFile; see --key",
        )
        self.assertEqual(self.show("--config", conf, file), LINE)

    def test_not_shown(self) -> None:
        """If a file cannot be shown, one line names it and the reason; a pipe does not block."""
        nothing, pipe = self.path("nothing"), self.path("pipe")
        os.mkfifo(pipe)
        renamed = self.put("1062000000.4711.passwd.l2~sealed", seal(self.secret, NAME, LINE))
        clear = self.put(NAME, LINE * 5)
        for key, file, told in (
            (self.key, nothing, f"{nothing}: No such file or directory"),
            (nothing, self.key, f"{nothing}: No such file or directory"),
            (self.key, pipe, f"{pipe}: not a file"),
            (self.key, renamed, f"{renamed}: it was sealed with another key, or has been changed"),
            (self.key, clear, f"{clear}: it is not a sealed file"),
        ):
            self.assertIn(told, self.refusal("show-delayed", "--key", key, file))


class UnfoldTests(CommandCase):
    """``lonc delayed unfold``."""

    def test_unfold(self) -> None:
        """Sealed requests are moved to where an earlier lonc looks, but not while lonc runs."""
        for folder in ("delayed/sealed", "logs"):
            os.makedirs(self.path(folder))
        self.put(f"delayed/sealed/{NAME}{SEALED}", LINE)
        unfold = ("--config", self.configured(), "delayed", "unfold")
        running = PidFile(self.path("logs/lonc.pid"))
        running.acquire()
        told = self.refusal(*unfold)
        self.assertIn("another lonc is already running in these folders", told)
        self.assertEqual(os.listdir(self.path("delayed")), ["sealed"])
        running.release()
        told = self.run_command(*unfold).decode()
        self.assertEqual(told, f"1 sealed request moved to {self.path('delayed')}.\n")
        self.assertEqual(os.listdir(self.path("delayed")), [NAME + SEALED])
        self.assertEqual(os.listdir(self.path("logs")), [])


class CommandLineTests(CommandCase):
    """The command line itself."""

    def test_wrong(self) -> None:
        """An invalid command line is reported in one line, with status 64."""
        for arguments in [["nothing"], ["--nothing"], ["show-delayed"], ["show-delayed", "a", "b"]]:
            self.assertIn("--help", self.refusal(*arguments, status=64))

    def test_no_configuration(self) -> None:
        """If there is no configuration, which would keep lonc from starting, `check` says so."""
        self.patch(target, "find_config_file", lambda: find_config_file([self.path("none")]))
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        told = self.run_command("check", status=2).decode()
        self.assertTrue(told.startswith("error    no configuration"))

    def test_check_has_a_column_of_words(self) -> None:
        """Findings, the worst first, and advice are aligned, whatever the level."""
        found = [Checked("ok", "it is well"), Checked("error", "it is bad", "mend it")]
        self.patch(configuration, "look_at", lambda file: found)
        lines = ["error    it is bad", "         mend it", "ok       it is well"]
        told = self.run_command("check", "--config", "a.conf", status=2).decode()
        self.assertEqual(told.splitlines(), lines)

    def test_nameless(self) -> None:
        """A user without a name, as in a container, is shown as a number."""

        def nameless() -> str:
            raise KeyError("getpwuid(): uid not found")

        self.patch(getpass, "getuser", nameless)
        self.patch(os, "environ", {})
        self.assertEqual(target.who(), str(os.getuid()))

    def test_empty_host(self) -> None:
        """An empty host id, as from an unset variable, is an error and does not mean all hosts."""
        for arguments in [["pause", "", "--reason", "disk"], ["resume", ""], ["debug", "", "3"]]:
            told = self.refusal(*arguments, status=64).replace("'", "")
            self.assertIn("HOST: it is empty", told)
        told = self.refusal("pause", "msul1", "--reason", " ", status=64)
        self.assertIn("--reason", told)

    def test_duration(self) -> None:
        """A duration is a number with s, m, h or d; anything else is an error of one line."""
        context = click.Context(commands)
        for text, value in (("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("2d", 172_800)):
            self.assertEqual(in_seconds(context, commands.params[0], text), value)
        for text in ("0", "-1", "inf", "nan", "1e300", "9999d", "", "m", "5 m", "\u0663", "9" * 99):
            told = self.refusal("pause", "l2", "--reason", "x", f"--for={text}", status=64)
            self.assertIn("is not a duration such as 90, 90s, 5m, 2h or 1d", told)
            self.assertIn(
                "is not a duration", self.refusal("ask", "l2", "x", "--timeout", text, status=64)
            )

    def test_no_utf8(self) -> None:
        """A host id or file name that is not UTF-8 is unknown."""
        told = self.refusal("retry", os.fsdecode(b"l\xff"))
        self.assertEqual(told, "l\\xff is not in hosts.tab")
        told = self.refusal("delayed", "show", os.fsdecode(b"1.1.put\xff.l1"))
        self.assertEqual(told, "no delayed request 1.1.put\\xff.l1")

    def test_ask(self) -> None:
        """
        If sockets are named after host names, `ask` uses the one with the host's name. If there is
        none, the advice is to start lonc, unless it runs.
        """
        self.put("hosts.tab", b"l2:msu:library:two.test:127.0.0.2\n")
        ask = ("--config", self.configured("PerlSetVar loncSocketNames hostname\n"), "ask")
        self.assertEqual(self.refusal(*ask, "l3", "ping"), "l3 is not in hosts.tab")
        path = self.path("two.test")
        told = self.refusal(*ask, "l2", "ping")
        self.assertTrue(told.startswith(f"{path} does not exist; is lonc running?"), told)
        os.mkdir(self.path("logs"))
        running = PidFile(self.path("logs/lonc.pid"))
        running.acquire()
        self.addCleanup(running.release)
        running.write()
        told = self.refusal(*ask, "l2", "ping")
        self.assertEqual(told, f"{path} does not exist; lonc status tells why")
        self.put("two.test", b"")
        self.assertIn(f"{path}: ", self.refusal(*ask, "l2", "ping"))

    def test_nobody_there(self) -> None:
        """The options that select a lonc can be before, between and after a command's words."""
        for arguments in (
            ["--standalone", self.folder, "delayed", "list"],
            ["delayed", "--standalone", self.folder, "list"],
            ["delayed", "list", "--standalone", self.folder],
        ):
            told = self.refusal(*arguments, status=3)
            where = self.path("loncapa.conf")
            self.assertEqual(told, f"configuration {where}: No such file or directory")

    def test_not_allowed(self) -> None:
        """If access is denied, the message names the owner of the socket, and says what to type."""
        path = self.put("lonc.amp", b"")
        error = NoAnswer("unix:x: Permission denied")
        error.__cause__ = ConnectError(errno.EACCES)
        for owner in (
            ["root", "nobody"] if os.getuid() == 0 else [pwd.getpwuid(os.getuid()).pw_name]
        ):
            if os.getuid() == 0:
                os.chown(path, pwd.getpwnam(owner).pw_uid, -1)
            with click.Context(commands).scope():
                chosen()["management"] = f"unix:{path}"
                told = target.no_daemon(error).message
            how = "root: sudo" if owner == "root" else f"{owner} and root: sudo -u {owner}"
            self.assertEqual(told, f"unix:x: Permission denied; it answers {how} lonc ...")

    def test_words(self) -> None:
        """The text of each command in the list is the first paragraph of its own help."""
        for name, command in commands.all.items():
            first, _, _ = inspect.cleandoc(command.help or "").partition("\n\n")
            self.assertEqual(COMMANDS[name][1], " ".join(first.split()), name)


class EndpointTests(SynchronousTestCase):
    """The client endpoint that belongs to the management port."""

    def endpoint(self, management: str) -> str:
        """Return the client endpoint for a value of the setting."""
        return target.client_endpoint(some_settings("/sockets", management=management))

    def test_found(self) -> None:
        """UNIX sockets and TCP ports are found; without an address, on this machine."""
        for management, endpoint in (
            ("unix:/run/lonc.amp:mode=660", "unix:/run/lonc.amp"),
            ("tcp:4242", "tcp:127.0.0.1:4242"),
            ("tcp:port=4242:interface=192.0.2.7", "tcp:192.0.2.7:4242"),
            ("tcp6:4242", r"tcp:\:\:1:4242"),
            (r"tcp6:4242:interface=2001\:db8\:\:1", r"tcp:2001\:db8\:\:1:4242"),
        ):
            self.assertEqual(self.endpoint(management), endpoint)

    def test_not_found(self) -> None:
        """For other endpoints, the error message names the option to give."""
        error = self.assertRaises(
            click.ClickException, self.endpoint, "systemd:domain=UNIX:index=0"
        )
        self.assertIn("loncManagement is systemd: say where to connect to with", error.message)
        self.assertIn("--management, such as unix:/sockets/lonc.amp", error.message)


class ProgramTests(TestCase):
    """The command as a process."""

    async def test_help_is_quick(self) -> None:
        """The list of commands is shown without importing what the commands themselves need."""
        script = (
            "import sys; from lonc.cli.main import main; main(['--help']); "
            "print(*sorted({'twisted', 'attr', 'rich', 'OpenSSL'} & sys.modules.keys()))"
        )
        output, complaints, status = await getProcessOutputAndValue(
            sys.executable, ["-c", script], env={**os.environ, "PYTHONPATH": SOURCE}
        )
        self.assertEqual((output.splitlines()[-1], complaints, status), (b"", b"", 0))

    async def test_advice(self) -> None:
        """The advice to start lonc is given only if nothing listens at the configured socket."""
        folder = short_folder(self)
        configured(folder)
        where = os.path.join(folder, "lonc.amp")
        started = "; is lonc running? Start it (systemctl start lonc, twistd lonc)"
        with socket.socket(socket.AF_UNIX) as bound:
            for option, value, told in (
                ("--standalone", folder, f"No such file or directory{started}"),
                ("--management", f"unix:{where}", "No such file or directory"),
                ("--standalone", folder, f"Connection refused{started}"),
            ):
                if told.startswith("Connection"):
                    bound.bind(where)
                found = await run_program("-m", "lonc", "status", option, value)
                self.assertEqual(found, (b"", f"lonc: unix:{where}: {told}\n".encode(), 3))

    async def test_monitoring(self) -> None:
        """With --monitoring, an error is one line on stdout; the status is 2 if no lonc answers."""
        for arguments, ended, told in (
            (["--standalone", "/nothing"], 2, b"LONC CRITICAL - configuration /nothing"),
            (["--nothing"], 3, b"LONC UNKNOWN - No such option"),
            (["--management", "lonc.amp"], 3, b"LONC UNKNOWN - lonc.amp: not a client endpoint"),
        ):
            output, complaints, status = await run_program(
                "-m", "lonc", "status", "--monitoring", *arguments
            )
            self.assertEqual((status, complaints, output.count(b"\n")), (ended, b"", 1))
            self.assertTrue(output.startswith(told), output)

    async def test_module(self) -> None:
        """``python -m lonc`` is the command; an error is one line and an exit status."""
        found = await run_program("-m", "lonc", "--version")
        self.assertEqual(found, (f"lonc {lonc.__version__}\n".encode(), b"", 0))
        told = b"lonc: Missing argument 'FILE'; see lonc show-delayed --help\n"
        self.assertEqual(await run_program("-m", "lonc", "show-delayed"), (b"", told, 64))

    def test_script(self) -> None:
        """The package installs a script of that name."""
        setup = configparser.ConfigParser()
        setup.read_string(read("setup.cfg"))
        scripts = setup["options.entry_points"]["console_scripts"].split("\n")
        self.assertIn("lonc = lonc.cli.main:main", scripts)
        self.assertIn("click", setup["options"]["install_requires"])
