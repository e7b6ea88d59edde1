"""Tests of ``lonc.config.settings`` and of the table it works from, ``lonc.config.parameters``."""

from __future__ import annotations

import grp
import os
import re
from pathlib import Path

import attrs
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.python.usage import Options
from twisted.trial.unittest import SynchronousTestCase

from lonc.config.settings import (
    CONFIG_FILES,
    PARAMETERS,
    REMOVED,
    Parameter,
    Settings,
    SettingsError,
    folder_errors,
    opt_parameters,
    read_settings,
)
from lonc.test.fixtures.doubles import some_settings
from lonc.test.fixtures.properties import given, settings, st
from lonc.test.fixtures.source import read

REQUIRED = """\
PerlSetVar lonHostID msul1
PerlSetVar lonTabDir /home/httpd/lonTabs
PerlSetVar lonSockDir /home/httpd/sockets
PerlSetVar lonDaemons /home/httpd/perl
PerlSetVar lonDocRoot /home/httpd/html
"""
FIRST = REQUIRED.count("\n") + 1  #: number of the line that follows the required ones


class SettingsCase(SynchronousTestCase):
    """A test case that reads configurations from its own file."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.file = os.path.join(self.folder, "loncapa.conf")

    def read(self, text: str | bytes, **options: str | None) -> Settings:
        """Return the settings of a file with the required lines and ``text``."""
        return self.read_only(REQUIRED.encode() + os.fsencode(text), **options)

    def read_only(self, text: str | bytes, **options: str | None) -> Settings:
        """Return the settings of a file with just ``text``."""
        with open(self.file, "wb") as file:
            file.write(os.fsencode(text))
        return read_settings(
            self.file, {name.replace("_", "-"): value for name, value in options.items()}
        )

    def refusal(self, text: str | bytes, **options: str | None) -> str:
        """Return the line with which the required lines and ``text`` are refused."""
        error = self.assertRaises(SettingsError, self.read, text, **options)
        self.assertNotIn("\n", str(error))
        return str(error)


class FileTests(SettingsCase):
    """How ``loncapa.conf`` is read."""

    def test_common_file(self) -> None:
        """S1: settings missing in loncapa.conf are read from loncapa_apache.conf beside it."""
        common = os.path.join(self.folder, "loncapa_apache.conf")
        with open(common, "w") as file:
            file.write(REQUIRED + "PerlSetVar londPort 5700\nPerlSetVar loncRetries 7\n")
        found = self.read_only("PerlSetVar lonHostID msua2\nPerlSetVar loncRetries 3\n")
        self.assertEqual(
            (found.host_id, found.tab_dir, found.lond_port, found.retries),
            ("msua2", "/home/httpd/lonTabs", 5700, 3),
        )
        with open(common, "a") as file:
            file.write("PerlSetVar loncQueueLimit none\n")
        refusal = self.assertRaises(SettingsError, self.read_only, "PerlSetVar lonHostID msua2")
        self.assertIn(f"{common}, line {FIRST + 2}: PerlSetVar loncQueueLimit", str(refusal))

    def test_web_server(self) -> None:
        """S1: other directives, sections, comments and blank lines are ignored."""
        found = self.read(
            "# PerlSetVar loncRetries 9\n"
            "# continued \\\nPerlSetVar loncRetries 5\n"
            "\n"
            'LogFormat "PerlSetVar loncRetries 8"\n'
            "ServerName loncapa.example.edu\n"
            "<Location /adm>\n  SetHandler perl-script\n  PerlSetVar other thing\n</Location>\n"
            "PerlAddVar loncRetries 7\n"
            "PerlSetVar lonLoadLim 2.0\n"
            'PerlSetVar lonOther "a b\n'
            "PerlSetVar lonMore\n"
            "PerlSetVar\n"
            "  <IfModule mod_perl.c>\n    PerlSetVar loncQueueLimit 6\n  </IfModule>\n"
        )
        self.assertEqual(
            (found.host_id, found.tab_dir, found.sock_dir, found.daemons_dir, found.doc_root),
            tuple(line.split()[2] for line in REQUIRED.splitlines()),
        )
        self.assertEqual((found.retries, found.queue_limit), (2, 6))
        self.assertEqual((found.config_file, found.warnings), (self.file, ()))

    def test_spelling(self) -> None:
        """Case of the directive, blanks, tabs, CR, quotes and a final comment do not matter."""
        for line in (
            "perlsetvar loncRetries 5",
            "PERLSETVAR loncRetries 5",
            "\t  PerlSetVar \t loncRetries \t 5  \t",
            "PerlSetVar loncRetries 5\r",
            'PerlSetVar loncRetries "5"',
            "PerlSetVar 'loncRetries' ' 5 '",
            "PerlSetVar loncRetries 5 # as the seed",
            "PerlSetVar loncRetries \\\n  5",
            "PerlSetVar loncRetries 5\\",
            "PerlSetVar lonc\\\r\nRetries 5",
        ):
            self.assertEqual(self.read(line).retries, 5, line)
            self.assertEqual(self.read(line + "\n").retries, 5, line)

    def test_values(self) -> None:
        """Quoted values may contain blanks and escapes; # begins a comment only after a blank."""
        for text, root in (
            (r'"/srv/a b/\"c\"\\d"', r"/srv/a b/" + '"c"' + "\\d"),
            ("/srv/a#b", "/srv/a#b"),
            ("/srv/a//", "/srv/a"),
            ("/", "/"),
        ):
            self.assertEqual(self.read(f"PerlSetVar lonDocRoot {text}").doc_root, root)

    def test_last_wins(self) -> None:
        """Of several assignments the last one counts, even if an earlier one is invalid."""
        found = self.read("PerlSetVar loncRetries x\nPerlSetVar loncRetries 3\n")
        self.assertEqual(found.retries, 3)

    def test_not_utf8(self) -> None:
        """Bytes that are not UTF-8 and a byte order mark do not matter, except in a value."""
        text = b"\xef\xbb\xbf" + REQUIRED.encode() + b"# M\xfcnchen\nPerlSetVar \xfc\xff \xfe\n"
        self.assertEqual(self.read_only(text).host_id, "msul1")
        message = self.refusal(b"PerlSetVar lonDocRoot /srv/\xfc\n")
        self.assertTrue(message.isascii())
        self.assertIn(f"line {FIRST}: PerlSetVar lonDocRoot", message)

    def test_malformed(self) -> None:
        """A missing value, several values or an open quote are refused with file and line."""
        for rest in ("", " 16 MiB", ' "16 MiB', " 'a' b", " # 16", " 16384#a b"):
            message = self.refusal(f"PerlSetVar loncMaxLine{rest}")
            self.assertEqual(self.refusal(f"PerlSetVar 'loncMaxLine'{rest}"), message)
            self.assertIn(f"{self.file}, line {FIRST}: PerlSetVar loncMaxLine: ", message)
            self.assertIn("one value", message)

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.binary(max_size=200))
    def test_any_bytes(self, garbage: bytes) -> None:
        """Whatever else the file contains, it is read, or refused in one line."""
        try:
            found = self.read(b"\n" + garbage)
        except SettingsError as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertEqual(found.host_id, "msul1")


class SectionTests(SettingsCase):
    """Assignments in sections of the web server."""

    def test_sections(self) -> None:
        """One for some requests only is skipped with a warning; <If...> of the start counts."""
        for section, retries in (
            ("location", 2),
            ("if", 2),
            ("IfModule", 5),
            ("IfDefine", 5),
            ("ifversion", 5),
        ):
            found = self.read(f"<{section} x>\nPerlSetVar loncRetries 5\n</{section.upper()}>\n")
            self.assertEqual(found.retries, retries, section)
            skipped = f"skipped, because it is inside <{section}>"
            where = f"{self.file}, line {FIRST + 1}: PerlSetVar loncRetries"
            self.assertEqual(found.warnings, (f"{where}: {skipped}",) if retries == 2 else ())

    def test_many_sections(self) -> None:
        """Time grows in proportion to the file's length: sections that never end are refused."""
        lines = "<a>\n" * 50000 + "</b>\n" * 50000
        self.assertIn(f"line {FIRST + 100}: more than 100 sections", self.refusal(lines))

    def test_after_section(self) -> None:
        """After the end of a section assignments count again, whatever was in it."""
        found = self.read(
            "<Perl>\n<STDIN>\n</Nothing>\n</Perl>\n<VirtualHost *>\n<Files x>\n</Files>\n"
            "</VirtualHost>\nPerlSetVar loncRetries 5\n"
        )
        self.assertEqual((found.retries, found.warnings), (5, ()))


class UnusableFileTests(SettingsCase):
    """Configurations that cannot be used are refused in one clear line."""

    def test_file(self) -> None:
        """A file that cannot be read is named with the reason; a FIFO is not waited for."""
        pipe, link = os.path.join(self.folder, "pipe"), os.path.join(self.folder, "link")
        os.mkfifo(pipe)
        os.symlink(link, link)
        for path, why in (
            (self.file, "No such file or directory"),
            (self.folder, "not a file"),
            (pipe, "not a file"),
            (link, "Too many levels of symbolic links"),
        ):
            error = self.assertRaises(SettingsError, read_settings, path, {})
            self.assertEqual(str(error), f"configuration {path}: {why}")
        error = self.assertRaises(SettingsError, read_settings, "/no\nthing", {})
        self.assertNotIn("\n", str(error))
        error = self.assertRaises(SettingsError, self.read, "#" * 1024 * 1024)
        self.assertIn("longer than 1048576 bytes", str(error))

    def test_search(self) -> None:
        """Without a name, the first existing file is read; if there is none, all are named."""
        self.read("PerlSetVar loncRetries 4")
        found = read_settings(None, {}, search=("/nowhere/loncapa.conf", self.file))
        self.assertEqual((found.retries, found.config_file), (4, self.file))
        search = ("/nowhere/loncapa.conf", "/nor/here/loncapa.conf")
        error = self.assertRaises(SettingsError, read_settings, None, {}, search)
        for file in search:
            self.assertIn(file, str(error))
        self.assertEqual(
            CONFIG_FILES, ("/etc/httpd/conf/loncapa.conf", "/etc/apache2/loncapa.conf")
        )

    def test_required(self) -> None:
        """A missing setting is named with the file, and with a line that looks like it."""
        lines = REQUIRED.splitlines(keepends=True)
        for left_out in lines:
            text = "".join(line for line in lines if line is not left_out)
            error = self.assertRaises(SettingsError, self.read_only, text)
            name = left_out.split()[1]
            self.assertEqual(str(error), f"{self.file}: PerlSetVar {name} is missing")
        text = REQUIRED.replace("lonHostID", "lonhostid")
        error = self.assertRaises(SettingsError, self.read_only, text)
        self.assertIn("PerlSetVar lonHostID is missing", str(error))
        self.assertIn("line 1: PerlSetVar lonhostid", str(error))

    def test_required_bad(self) -> None:
        """A host id that could leave a folder and a path that is not absolute are refused."""
        for name, value in (
            ("lonHostID", ".."),
            ("lonHostID", "."),
            ("lonHostID", "a/b"),
            ("lonHostID", "ms\u00fcl1"),
            ("lonHostID", "m\u017ful1"),
            ("lonHostID", '""'),
            ("lonSockDir", "sockets"),
            ("lonSockDir", '"/a\tb"'),
            ("lonSockDir", "/a\0b"),
        ):
            message = self.refusal(f"PerlSetVar {name} {value}")
            self.assertIn(f"{self.file}, line {FIRST}: PerlSetVar {name}: ", message)


class WarningTests(SettingsCase):
    """Names that look like lonc's, and have no effect."""

    def test_unknown(self) -> None:
        """
        A name that begins like lonc's, in any case, is reported with file, line and the nearest
        name; one in the wrong case with the right one; other programs' names are not.
        """
        for wrong, why in (
            ("loncRetrys", "lonc has no such setting; the nearest is loncRetries"),
            ("LONCIDLETIME", "lonc has no such setting; the nearest is loncIdleTimeout"),
            ("loncretries", "skipped, because names are case-sensitive: loncRetries"),
            ("londport", "skipped, because names are case-sensitive: londPort"),
            ("LonHostID", "skipped, because names are case-sensitive: lonHostID"),
            ("lonCAllowInsecure", "skipped, because names are case-sensitive: loncAllowInsecure"),
            ("lonAdmEMail", ""),
            ("londAllowInsecure", ""),
            ("lonnetHostnameCertificate", ""),
        ):
            found = self.read(f"PerlSetVar {wrong} 5\n")
            told = f"{self.file}, line {FIRST}: PerlSetVar {wrong}: {why}"
            self.assertEqual(found.warnings, (told,) if why else ())
            self.assertEqual((found.retries, found.lond_port), (2, 5663))

    def test_removed(self) -> None:
        """A removed setting only causes a warning, whatever its value, and is no setting."""
        for name, option in REMOVED.items():
            for value in (" 5", " nonsense", ""):
                where = f"{self.file}, line {FIRST}: PerlSetVar {name}"
                found = self.read(f"PerlSetVar {name}{value}\n")
                self.assertEqual(found.warnings, (f"{where}: no longer needed",))
            found = self.read("", **{option: "nonsense"})
            self.assertEqual(found.warnings, (f"--{option}: no longer needed",))
            self.assertNotIn(name, [each.variable for each in PARAMETERS])
            self.assertNotIn(option, [each.option for each in PARAMETERS])


class ValueTests(SettingsCase):
    """Values, from the file and from options."""

    GOOD = (
        ("retries", "1", 1),
        ("retries", " 1000 ", 1000),
        ("lond_port", "65535", 65535),
        ("max_connections", "007", 7),
        ("idle_timeout", "0.5", 0.5),
        ("idle_timeout", ".5", 0.5),
        ("connect_timeout", "30", 30.0),
        ("drain_timeout", "0", 0.0),
        ("max_line", "4096", 4096),
        ("max_line", "4K", 4096),
        ("max_line", "4kib", 4096),
        ("max_line", "2 MiB", 2 * 1024**2),
        ("max_line", "1G", 1024**3),
        ("max_unread", "3GiB", 3 * 1024**3),
        ("socket_mode", "0666", 0o666),
        ("socket_mode", "600", 0o600),
        ("socket_mode", "0o640", 0o640),
        ("socket_group", "none", None),
        ("socket_group", "0", 0),
        ("management", "tcp:7000:interface=127.0.0.1", "tcp:7000:interface=127.0.0.1"),
        ("log_format", "json", "json"),
        ("log_format", "text", "text"),
        ("allow_insecure", "0", False),
        ("allow_insecure", "1", True),
        ("certificate_directory", "none", None),
        ("certificate_directory", "/home/httpd/lonCerts", "/home/httpd/lonCerts"),
        ("certificate_authority", "loncapaCA.pem", "loncapaCA.pem"),
        ("certificate", "/etc/pki/lonhost.pem", "/etc/pki/lonhost.pem"),
        ("private_key", "none", None),
        ("certificate_name_check", "0", False),
        ("delayed_key_file", "none", None),
        ("delayed_key_file", "/etc/lonc/delayed.key", "/etc/lonc/delayed.key"),
    )
    BAD = (
        ("retries", "", "0", "-1", "+1", "1.5", "1001", "two", "1e2", "1_0", "\u0663", "9" * 5000),
        ("lond_port", "0", "65536"),
        ("idle_timeout", "0", "-1", "nan", "inf", "Infinity", "1e9", "99999999", "1h", ".", "5 s"),
        ("drain_timeout", "-0.1", "nan", "inf", "3601"),
        ("max_line", "0", "1023", "1.5MiB", "-1K", "2GiB", "16MB", "1T", "MiB", "9" * 18 + "G"),
        ("socket_mode", "0", "0060", "888", "1777", "rw-rw----", "66", "0o", "-600"),
        ("socket_group", "", "no such group", "-1", "4294967295", "a\0b"),
        ("management", "", "7000", "unix:", "unix:/a\tb", ":7000"),
        ("log_format", "", "JSON", "xml"),
        ("allow_insecure", "", "2", "on", "true", "-1", "01", "\u0661"),
        ("certificate_directory", "", "lonCerts", "/a\tb"),
        ("certificate", "", "a\tb"),
        ("delayed_key_file", "", "delayed.key", "/a\tb", "None"),
    )

    def test_good(self) -> None:
        """An allowed value has the right type, from an option and from the file."""
        variables = {each.attribute: each.variable for each in PARAMETERS}
        group = grp.getgrall()[0]
        for attribute, text, value in (
            *self.GOOD,
            ("socket_group", group.gr_name, group.gr_gid),
        ):
            for found in (
                getattr(self.read("", **{attribute: text}), attribute),
                getattr(self.read(f'PerlSetVar {variables[attribute]} "{text}"'), attribute),
            ):
                self.assertEqual((found, type(found)), (value, type(value)), (attribute, text))

    def test_bad(self) -> None:
        """Another value is refused: the option, the value and what is allowed are named."""
        allowed = {each.attribute: each.kind.allowed for each in PARAMETERS}
        for attribute, *texts in self.BAD:
            for text in texts:
                message = self.refusal("", **{attribute: text})
                self.assertTrue(message.startswith(f"--{attribute.replace('_', '-')}: "), message)
                self.assertTrue(message.endswith(f" is not {allowed[attribute]}"), message)
                self.assertIn(repr(text)[1:70].rstrip("'"), message)
                self.assertLess(len(message), 200)

    def test_bad_line(self) -> None:
        """A bad value is named with file, first line and PerlSetVar, and with what is allowed."""
        self.assertEqual(
            self.refusal("#\\\n\\\n\nPerlSetVar \\\n loncRetries \\\n 0\n\n"),
            f"{self.file}, line {FIRST + 3}: PerlSetVar loncRetries: '0' is not "
            "a whole number from 1 to 1000",
        )

    def test_option_wins(self) -> None:
        """An option overrides the file, even an invalid value; None is no option."""
        for value, option, retries in (("4", "5", 5), ("x", "5", 5), ("4", None, 4)):
            found = self.read(f"PerlSetVar loncRetries {value}", retries=option, standalone=None)
            self.assertEqual(found.retries, retries)

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(st.sampled_from([each for each in PARAMETERS if each.option]), st.text(max_size=30))
    def test_any_text(self, parameter: Parameter, text: str) -> None:
        """Any text for any option is accepted, or refused in one line."""
        try:
            self.read("", **{parameter.attribute: text})
        except SettingsError as error:
            self.assertTrue(str(error).isprintable(), str(error))

    def test_written(self) -> None:
        """The text of each setting and its source, a default, a line or an option, are kept."""
        found = self.read("PerlSetVar loncRetries 3\nPerlSetVar loncQueueLimit 9", queue_limit="7")
        self.assertEqual(found.written["loncMaxClients"], ("4096", "default"))
        self.assertEqual(found.written["loncQueueLimit"], ("7", "--queue-limit"))
        value, place = found.written["loncRetries"]
        self.assertEqual(value, "3")
        self.assertRegex(place, r"loncapa\.conf, line [0-9]+$")


class DefaultTests(SettingsCase):
    """The settings of a file with nothing but the required ones."""

    def test_defaults(self) -> None:
        """The defaults are loncnew's, as far as it has any."""
        found = attrs.asdict(self.read(""))
        for name in ("config_file", "host_id", "tab_dir", "sock_dir", "daemons_dir", "doc_root"):
            del found[name]
        self.assertEqual(set(found.pop("written")), {each.variable for each in PARAMETERS})
        self.assertEqual(
            found,
            {
                "lond_port": 5663,
                "max_connections": 10,
                "retries": 2,
                "idle_timeout": 3600.0,
                "connect_timeout": 5.0,
                "keepalive_time": 60,
                "keepalive_interval": 15,
                "keepalive_probes": 4,
                "allow_insecure": True,
                "certificate_directory": None,
                "certificate_authority": None,
                "certificate": None,
                "private_key": None,
                "certificate_name_check": True,
                "name_lifetime": 300.0,
                "name_grace": 3600.0,
                "request_timeout": 60.0,
                "slow_answer": 5.0,
                "queue_timeout": 60.0,
                "queue_limit": 10000,
                "max_line": 16 * 1024**2,
                "max_clients": 4096,
                "socket_names": "id",
                "socket_mode": 0o660,
                "socket_group": None,
                "management": "unix:/home/httpd/sockets/lonc.amp:mode=600",
                "management_group": None,
                "management_tls": None,
                "management_names": (),
                "http": None,
                "http_names": (),
                "watch": (),
                "log_format": "seed",
                "write_timeout": 60.0,
                "max_unread": 48 * 1024**2,
                "max_request_memory": 256 * 1024 * 1024,
                "drain_timeout": 5.0,
                "disk_timeout": 10.0,
                "delayed_key_file": None,
                "table_interval": 43200.0,
                "table_timeout": 30.0,
                "table_limit": 4 * 1024**2,
                "table_growth": 4,
                "warnings": (),
            },
        )

    def test_written_defaults(self) -> None:
        """Each default is allowed as it is displayed, as an option and in the file."""
        expected = self.read("")
        for each in PARAMETERS:
            if each.default is not None and each.option is not None:
                text = each.default.replace("<lonSockDir>", expected.sock_dir)
                self.assertEqual(self.read("", **{each.attribute: text}), expected)
                self.assertEqual(self.read(f'PerlSetVar {each.variable} "{text}"'), expected)

    def test_management(self) -> None:
        """Twisted understands the default management endpoint, whatever the folder's name."""
        for folder in ("/home/httpd/sockets", r"/a:b=c\d e", "/a=b:mode=666"):
            found = some_settings(folder)
            reactor = MemoryReactor()
            serverFromString(reactor, found.management).listen(Factory())
            ((path, _factory, _backlog, mode, _lock),) = reactor.unixServers
            self.assertEqual((path, mode), (f"{folder}/lonc.amp", 0o600))

    def test_paths(self) -> None:
        """Files are where the other programs look for them (protocol, section 7)."""
        found = self.read("")
        for path, expected in (
            (found.hosts_file, "/home/httpd/lonTabs/hosts.tab"),
            (found.fetched_hosts_file, "/home/httpd/lonTabs/dns_hosts.tab"),
            (found.pid_file, "/home/httpd/perl/logs/lonc.pid"),
            (found.log_file, "/home/httpd/perl/logs/lonc.log"),
            (found.perm_log_file, "/home/httpd/perl/logs/lonnet.perm.log"),
            (found.status_file, "/home/httpd/html/lon-status/loncstatus.txt"),
            (found.delayed_dir, "/home/httpd/sockets/delayed"),
            (found.kept_dir, "/home/httpd/sockets/delayed/kept"),
            (found.socket_path("msul1"), "/home/httpd/sockets/msul1"),
        ):
            self.assertEqual(path, expected)

    def test_longest_id(self) -> None:
        """The path of the longest id's socket has 107 bytes, the maximum on Linux."""
        found = self.read("PerlSetVar lonSockDir /home/\u00fc")
        path = found.socket_path("x" * found.max_host_id)
        self.assertEqual(len(os.fsencode(path)), 107)


class OptionsTests(SynchronousTestCase):
    """The settings as options of ``twistd lonc``."""

    class SomeOptions(Options):
        """Options declared as in a plugin."""

        optParameters = opt_parameters()

    def test_not_given(self) -> None:
        """An option that is not given is None, so that the file counts."""
        options = self.SomeOptions()
        options.parseOptions(["--retries", "5"])
        self.assertEqual({value for value in options.values() if value is not None}, {"5"})
        self.assertEqual(len(options), len(opt_parameters()))

    def test_help(self) -> None:
        """The help shows unit, default and range of every option."""
        told = "".join(str(self.SomeOptions()).split())
        for each in PARAMETERS:
            if each.option is not None:
                self.assertIn(f"--{each.option}=", told)
                for text in (each.kind.unit, f"default {each.default}", each.kind.allowed):
                    self.assertIn("".join(text.split()), told, each.option)


class FolderTests(SynchronousTestCase):
    """Folders that cannot be used."""

    def setUp(self) -> None:
        # Relative and therefore short: a socket's path must fit wherever the tests run.
        root = os.path.relpath(self.mktemp())
        names = ("tab_dir", "sock_dir", "daemons_dir", "doc_root")
        self.folders = {name: os.path.join(root, name[:3]) for name in names}
        for folder in self.folders.values():
            os.makedirs(folder)
        self.settings = some_settings(**self.folders)
        self.inner = (
            self.settings.delayed_dir,
            self.settings.sealed_dir,
            self.settings.kept_dir,
            self.settings.logs_dir,
            self.settings.status_dir,
        )

    def errors(self, *closed: str, right: int = os.W_OK) -> str:
        """Return all errors if the user lacks a right in the folders ``closed``."""
        found = folder_errors(
            self.settings, lambda folder, mode: folder not in closed or not mode & right
        )
        return "\n".join(map(str, found))

    def test_good(self) -> None:
        """Existing folders are accepted, with and without subfolders; one may be a link."""
        self.assertEqual(self.errors(), "")
        folder = self.settings.sock_dir
        os.rename(folder, f"{folder}.elsewhere")
        os.symlink(os.path.abspath(f"{folder}.elsewhere"), folder)
        for inner in self.inner:
            os.makedirs(inner, exist_ok=True)
        self.assertEqual(self.errors(), "")

    def test_missing(self) -> None:
        """A missing folder and a file in its place are named with file and PerlSetVar."""
        variables = {each.attribute: each.variable for each in PARAMETERS}
        for name, folder in self.folders.items():
            os.rmdir(folder)
            self.assertEqual(
                self.errors(),
                f"loncapa.conf: PerlSetVar {variables[name]}: {folder}: No such file or directory",
            )
            Path(folder).touch()
            self.assertIn(f"{folder} is not a folder", self.errors())
            os.unlink(folder)
            os.mkdir(folder)

    def test_subfolders(self) -> None:
        """
        A file or a link in place of lonc's own subfolders is refused; that of the logs may be a
        link to a folder.
        """
        elsewhere = os.path.abspath(self.mktemp())
        os.mkdir(elsewhere)
        for inner in self.inner:
            os.makedirs(os.path.dirname(inner), exist_ok=True)
            Path(inner).touch()
            self.assertIn(f"{inner} is not a folder", self.errors())
            os.unlink(inner)
            os.symlink("/nowhere", inner)
            self.assertIn(f"{inner}: No such file", self.errors())
            os.unlink(inner)
            os.symlink(elsewhere, inner)
            refused = f"{inner}: it is a symbolic link; it must be a folder itself" in self.errors()
            self.assertEqual(refused, inner != self.settings.logs_dir)
            os.unlink(inner)

    def test_not_writable(self) -> None:
        """Folders that lonc must be able to write to or enter are named, all at once."""
        for name in ("sock_dir", "daemons_dir", "doc_root"):
            folder = self.folders[name]
            self.assertIn(f"{folder} cannot be written by", self.errors(folder))
        folder = self.folders["tab_dir"]
        self.assertEqual(self.errors(folder), "")
        self.assertIn(f"{folder} cannot be entered by", self.errors(folder, right=os.X_OK))
        for inner in self.inner:
            os.mkdir(inner)
        told = self.errors(*self.folders.values(), *self.inner)
        self.assertEqual(
            [line.split()[3] for line in told.split("\n")], [self.folders["sock_dir"], *self.inner]
        )

    def test_too_long(self) -> None:
        """A folder whose path leaves no room for a socket's name is refused."""
        folder = os.path.join(self.folders["sock_dir"], "x" * 100)
        os.mkdir(folder)
        self.settings = attrs.evolve(self.settings, sock_dir=folder)
        self.assertIn(f"PerlSetVar lonSockDir: {folder} is too long", self.errors())


class PageTests(SynchronousTestCase):
    """The page about the settings in the documentation."""

    def test_every_setting(self) -> None:
        """Each setting, and nothing else, has a section that begins with its part of the table."""
        page = read("docs", "settings.rst")
        sections = re.findall(r"^(\w+)\n~+\n\n\.\. setting:: (\w+)$", page, re.MULTILINE)
        named = [each.variable for each in PARAMETERS]
        self.assertCountEqual(sections, [(name, name) for name in named])
