"""Tests of ``lonc.config.settings`` and of the table it works from, ``lonc.config.parameters``."""

from __future__ import annotations

import grp
import os
import re
from collections.abc import Callable
from pathlib import Path
from unittest import SkipTest

import attrs
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.python.usage import Options
from twisted.trial.unittest import SynchronousTestCase

import lonc
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
from lonc.test.fixtures.properties import given, settings, st

REQUIRED = """\
PerlSetVar lonHostID msul1
PerlSetVar lonTabDir /home/httpd/lonTabs
PerlSetVar lonSockDir /home/httpd/sockets
PerlSetVar lonDaemons /home/httpd/perl
PerlSetVar lonDocRoot /home/httpd/html
"""
FIRST = REQUIRED.count("\n") + 1  #: number of the line that follows the required ones


def check_folders(settings: Settings, access: Callable[[str, int], bool] | None = None) -> None:
    """Raise the first error, if there is any."""
    for error in folder_errors(settings, access):
        raise error


class SettingsCase(SynchronousTestCase):
    """A test case that reads configurations from a file of its own."""

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
        """Return the one line that reading the required lines and ``text`` is refused with."""
        error = self.assertRaises(SettingsError, self.read, text, **options)
        self.assertNotIn("\n", str(error))
        return str(error)


class FileTests(SettingsCase):
    """How ``loncapa.conf`` is read."""

    def test_common_file(self) -> None:
        """S1: what loncapa.conf leaves out is found in loncapa_apache.conf beside it, by line."""
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

    def test_required(self) -> None:
        """S1: the names that every LON-CAPA machine sets arrive in the settings."""
        found = self.read("")
        self.assertEqual(
            (found.host_id, found.tab_dir, found.sock_dir, found.daemons_dir, found.doc_root),
            (
                "msul1",
                "/home/httpd/lonTabs",
                "/home/httpd/sockets",
                "/home/httpd/perl",
                "/home/httpd/html",
            ),
        )
        self.assertEqual((found.config_file, found.warnings), (self.file, ()))

    def test_webServerFile(self) -> None:
        """S1: other directives, sections, comments and blank lines are skipped."""
        found = self.read(
            "# PerlSetVar loncRetries 9\n"
            "\n"
            'LogFormat "PerlSetVar loncRetries 8"\n'
            "ServerName loncapa.example.edu\n"
            "<Location /adm>\n  SetHandler perl-script\n  PerlSetVar other thing\n</Location>\n"
            "PerlAddVar loncRetries 7\n"
            "PerlSetVar lonLoadLim 2.0\n"
            "PerlSetVar\n"
            "  <IfModule mod_perl.c>\n    PerlSetVar loncQueueLimit 6\n  </IfModule>\n"
        )
        self.assertEqual((found.retries, found.queue_limit, found.warnings), (2, 6, ()))

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

    def test_quoted(self) -> None:
        """A value in quotes may hold blanks, and quotes and backslashes behind a backslash."""
        found = self.read(r'PerlSetVar lonDocRoot "/srv/a b/\"c\"\\d"')
        self.assertEqual(found.doc_root, r"/srv/a b/" + '"c"' + "\\d")

    def test_hashInValue(self) -> None:
        """A # begins a comment only behind a blank."""
        self.assertEqual(self.read("PerlSetVar lonDocRoot /srv/a#b").doc_root, "/srv/a#b")

    def test_continuedComment(self) -> None:
        """A comment goes on in the next line when it ends in a backslash, as for the web server."""
        self.assertEqual(self.read("# more \\\nPerlSetVar loncRetries 5\n").retries, 2)

    def test_lastWins(self) -> None:
        """Of several assignments the last one counts, even if an earlier one is no good."""
        found = self.read("PerlSetVar loncRetries x\nPerlSetVar loncRetries 3\n")
        self.assertEqual(found.retries, 3)

    def test_notUTF8(self) -> None:
        """Bytes that are no UTF-8, and a byte order mark, do no harm."""
        text = b"\xef\xbb\xbf" + REQUIRED.encode() + b"# M\xfcnchen\nPerlSetVar \xfc\xff \xfe\n"
        self.assertEqual(self.read_only(text).host_id, "msul1")

    def test_notUTF8Value(self) -> None:
        """A value with such bytes is refused in a line that can be printed anywhere."""
        message = self.refusal(b"PerlSetVar lonDocRoot /srv/\xfc\n")
        self.assertTrue(message.isascii())
        self.assertIn(f"line {FIRST}: PerlSetVar lonDocRoot", message)

    def test_lineNumber(self) -> None:
        """The number named is the one at which a continued line begins."""
        message = self.refusal("#\\\n\\\n\nPerlSetVar \\\n loncRetries \\\n x\n\n")
        self.assertIn(f"{self.file}, line {FIRST + 3}: PerlSetVar loncRetries: 'x'", message)

    def test_malformed(self) -> None:
        """No value, more than one and an open quote are refused with file and line."""
        for rest in ("", " 16 MiB", ' "16 MiB', " 'a' b", " # 16", " 16384#a b"):
            message = self.refusal(f"PerlSetVar loncMaxLine{rest}")
            self.assertEqual(self.refusal(f"PerlSetVar 'loncMaxLine'{rest}"), message)
            self.assertIn(f"{self.file}, line {FIRST}: PerlSetVar loncMaxLine: ", message)
            self.assertIn("one value", message)

    def test_malformedForeign(self) -> None:
        """What other programs' lines look like is none of lonc's business."""
        self.assertEqual(self.read('PerlSetVar lonOther "a b\nPerlSetVar lonMore\n').warnings, ())

    @settings(derandomize=True, deadline=None, max_examples=200)
    @given(st.binary(max_size=200))
    def test_anyBytes(self, garbage: bytes) -> None:
        """Whatever else the file holds, it is read or refused in one line."""
        try:
            found = self.read(b"\n" + garbage)
        except SettingsError as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertEqual(found.host_id, "msul1")


class SectionTests(SettingsCase):
    """Assignments inside of the web server's sections."""

    def test_otherSections(self) -> None:
        """One that holds for some requests only is skipped, with a warning that says so."""
        found = self.read("<Location /x>\nPerlSetVar loncRetries 5\n</location>\n")
        self.assertEqual(found.retries, 2)
        self.assertEqual(
            found.warnings,
            (
                f"{self.file}, line {FIRST + 1}: PerlSetVar loncRetries: skipped, because it is "
                "inside <location>",
            ),
        )

    def test_many_sections(self) -> None:
        """Time grows in proportion to the file's length: sections that never end are refused."""
        lines = "<a>\n" * 50000 + "</b>\n" * 50000
        self.assertIn(f"line {FIRST + 100}: more than 100 sections", self.refusal(lines))

    def test_afterSection(self) -> None:
        """Behind the section's end assignments count again, whatever stood inside of it."""
        found = self.read(
            "<Perl>\n<STDIN>\n</Nothing>\n</Perl>\n<VirtualHost *>\n<Files x>\n</Files>\n"
            "</VirtualHost>\nPerlSetVar loncRetries 5\n"
        )
        self.assertEqual((found.retries, found.warnings), (5, ()))

    def test_conditions(self) -> None:
        """Conditions that are settled at the web server's start do not count as sections."""
        for name in ("IfModule", "IfDefine", "ifversion"):
            found = self.read(f"<{name} x>\nPerlSetVar loncRetries 5\n</{name}>\n")
            self.assertEqual(found.retries, 5, name)

    def test_perRequestCondition(self) -> None:
        """<If> is asked for each request, so it is a section like the others."""
        self.assertEqual(self.read("<If x>\nPerlSetVar loncRetries 5\n</If>\n").retries, 2)


class UnusableFileTests(SettingsCase):
    """Configurations that cannot be used: one clear line each."""

    def test_missing(self) -> None:
        """A file that is not there is named."""
        error = self.assertRaises(SettingsError, read_settings, self.file, {})
        self.assertEqual(str(error), f"configuration {self.file}: No such file or directory")

    def test_folder(self) -> None:
        """A folder is no configuration."""
        error = self.assertRaises(SettingsError, read_settings, self.folder, {})
        self.assertEqual(str(error), f"configuration {self.folder}: not a file")

    def test_pipe(self) -> None:
        """A pipe that nobody writes to is refused and not waited for."""
        os.mkfifo(self.file)
        error = self.assertRaises(SettingsError, read_settings, self.file, {})
        self.assertEqual(str(error), f"configuration {self.file}: not a file")

    def test_unreadable(self) -> None:
        """A file that cannot be opened is named with the system's reason."""
        os.symlink(self.file, self.file)
        error = self.assertRaises(SettingsError, read_settings, self.file, {})
        self.assertIn(f"configuration {self.file}: Too many levels", str(error))

    def test_strangeName(self) -> None:
        """A name that would break the line is shown in a form that does not."""
        error = self.assertRaises(SettingsError, read_settings, "/no\nthing", {})
        self.assertNotIn("\n", str(error))

    def test_tooLong(self) -> None:
        """A file of more than 1 MiB is some other file."""
        error = self.assertRaises(SettingsError, self.read, "#" * 1024 * 1024)
        self.assertIn("longer than 1048576 bytes", str(error))

    def test_search(self) -> None:
        """Without a name the first file of the search that exists is read."""
        self.read("PerlSetVar loncRetries 4")
        found = read_settings(None, {}, search=("/nowhere/loncapa.conf", self.file))
        self.assertEqual((found.retries, found.config_file), (4, self.file))

    def test_searchInVain(self) -> None:
        """When there is none, every place that was searched is named."""
        search = ("/nowhere/loncapa.conf", "/nor/here/loncapa.conf")
        error = self.assertRaises(SettingsError, read_settings, None, {}, search)
        for file in search:
            self.assertIn(file, str(error))

    def test_places(self) -> None:
        """The places are those of the two families of Linux distributions."""
        self.assertEqual(
            CONFIG_FILES, ("/etc/httpd/conf/loncapa.conf", "/etc/apache2/loncapa.conf")
        )

    def test_requiredMissing(self) -> None:
        """Each required name is missed by name, with the file's."""
        lines = REQUIRED.splitlines(keepends=True)
        for left_out in lines:
            text = "".join(line for line in lines if line is not left_out)
            error = self.assertRaises(SettingsError, self.read_only, text)
            name = left_out.split()[1]
            self.assertEqual(str(error), f"{self.file}: PerlSetVar {name} is missing")

    def test_requiredMisspelt(self) -> None:
        """If a line looks like the missing one, the message points at it."""
        text = REQUIRED.replace("lonHostID", "lonhostid")
        error = self.assertRaises(SettingsError, self.read_only, text)
        self.assertIn("PerlSetVar lonHostID is missing", str(error))
        self.assertIn("line 1: PerlSetVar lonhostid", str(error))

    def test_requiredBad(self) -> None:
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
    """Names that look like lonc's and are none."""

    def test_unknown(self) -> None:
        """A name that begins like lonc's is warned about, with file, line and the nearest name."""
        found = self.read("PerlSetVar loncRetrys 5\n")
        self.assertEqual(
            found.warnings,
            (
                f"{self.file}, line {FIRST}: PerlSetVar loncRetrys: lonc has no such setting; "
                "the nearest is loncRetries",
            ),
        )

    def test_removed(self) -> None:
        """What is no setting any more is a warning, whatever its value."""
        for name, option in REMOVED.items():
            for line in (
                f"PerlSetVar {name} 5",
                f"PerlSetVar {name} nonsense",
                f"PerlSetVar {name}",
            ):
                where = f"{self.file}, line {FIRST}: PerlSetVar {name}"
                self.assertEqual(self.read(f"{line}\n").warnings, (f"{where}: no longer needed",))
            found = self.read("", **{option: "nonsense"})
            self.assertEqual(found.warnings, (f"--{option}: no longer needed",))

    def test_unknownInOtherCase(self) -> None:
        """The beginning is recognised in any case."""
        (warning,) = self.read("\nPerlSetVar LONCIDLETIME 5\n").warnings
        self.assertIn(f"line {FIRST + 1}", warning)
        self.assertIn("loncIdleTimeout", warning)

    def test_case(self) -> None:
        """A known name in another case does nothing, and a warning gives the right one."""
        for wrong, right in (
            ("loncretries", "loncRetries"),
            ("londport", "londPort"),
            ("LonHostID", "lonHostID"),
            ("lonCAllowInsecure", "loncAllowInsecure"),
        ):
            found = self.read(f"PerlSetVar {wrong} 5\n")
            (warning,) = found.warnings
            self.assertIn(f"line {FIRST}: PerlSetVar {wrong}: ", warning)
            self.assertIn(right, warning)
            self.assertEqual((found.retries, found.lond_port), (2, 5663))

    def test_others(self) -> None:
        """Other programs' names are left alone."""
        found = self.read(
            "PerlSetVar lonAdmEMail root\n"
            "PerlSetVar londAllowInsecure 1\n"
            "PerlSetVar lonnetHostnameCertificate x\n"
        )
        self.assertEqual(found.warnings, ())


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

    def test_options(self) -> None:
        """What is allowed arrives with its type."""
        for attribute, text, value in self.GOOD:
            found = getattr(self.read("", **{attribute: text}), attribute)
            self.assertEqual((found, type(found)), (value, type(value)), (attribute, text))

    def test_variables(self) -> None:
        """A PerlSetVar takes the same values as its option."""
        variables = {each.attribute: each.variable for each in PARAMETERS}
        for attribute, text, value in self.GOOD:
            found = self.read(f'PerlSetVar {variables[attribute]} "{text}"')
            self.assertEqual(getattr(found, attribute), value, (attribute, text))

    def test_badOptions(self) -> None:
        """What is not allowed is refused: the option, the value and what is allowed are named."""
        allowed = {each.attribute: each.kind.allowed for each in PARAMETERS}
        for attribute, *texts in self.BAD:
            for text in texts:
                message = self.refusal("", **{attribute: text})
                self.assertTrue(message.startswith(f"--{attribute.replace('_', '-')}: "), message)
                self.assertTrue(message.endswith(f" is not {allowed[attribute]}"), message)
                self.assertIn(repr(text)[1:70].rstrip("'"), message)

    def test_badVariable(self) -> None:
        """A bad value in the file is named with file, line, PerlSetVar and what is allowed."""
        self.assertEqual(
            self.refusal("\nPerlSetVar loncRetries 0\n"),
            f"{self.file}, line {FIRST + 1}: PerlSetVar loncRetries: '0' is not "
            "a whole number from 1 to 1000",
        )

    def test_longValue(self) -> None:
        """A very long value does not make a very long message."""
        self.assertLess(len(self.refusal("", retries="9" * 100_000)), 200)

    def test_optionWins(self) -> None:
        """An option wins over the file, also over a value there that is no good."""
        self.assertEqual(self.read("PerlSetVar loncRetries 4", retries="5").retries, 5)
        self.assertEqual(self.read("PerlSetVar loncRetries x", retries="5").retries, 5)

    def test_optionNotGiven(self) -> None:
        """None stands for an option that was not given, and an unknown one is not looked at."""
        found = self.read("PerlSetVar loncRetries 4", retries=None, config="x", standalone=None)
        self.assertEqual(found.retries, 4)

    def test_group(self) -> None:
        """A group is found by its name."""
        group = grp.getgrall()[0]
        self.assertEqual(self.read("", socket_group=group.gr_name).socket_group, group.gr_gid)

    def test_finalSlash(self) -> None:
        """A slash at a folder's end is dropped, so that paths look alike."""
        self.assertEqual(self.read("PerlSetVar lonTabDir /tabs//").tab_dir, "/tabs")
        self.assertEqual(self.read("PerlSetVar lonTabDir /").tab_dir, "/")

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(st.sampled_from([each for each in PARAMETERS if each.option]), st.text(max_size=30))
    def test_anyText(self, parameter: Parameter, text: str) -> None:
        """Any text for any option is taken or refused in one line."""
        try:
            self.read("", **{parameter.attribute: text})
        except SettingsError as error:
            self.assertTrue(str(error).isprintable(), str(error))


class WrittenTests(SettingsCase):
    """What was written, and where."""

    def test_sources(self) -> None:
        """A default, a line, an option: the last word has the option."""
        found = self.read("PerlSetVar loncRetries 3\nPerlSetVar loncQueueLimit 9", queue_limit="7")
        self.assertEqual(found.written["loncMaxClients"], ("4096", "default"))
        self.assertEqual(found.written["loncQueueLimit"], ("7", "--queue-limit"))
        value, place = found.written["loncRetries"]
        self.assertEqual(value, "3")
        self.assertRegex(place, r"loncapa\.conf, line [0-9]+$")


class DefaultTests(SettingsCase):
    """What counts when nothing is set."""

    def test_defaults(self) -> None:
        """The defaults are those that were agreed on: the seed's where it has one."""
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

    def test_everyRow(self) -> None:
        """Every row of the table has its attribute, and every attribute but three its row."""
        self.assertEqual(
            {each.attribute for each in PARAMETERS} | {"config_file", "warnings", "written"},
            {each.name for each in attrs.fields(Settings)},
        )

    def test_writtenDefaults(self) -> None:
        """Each default can be written as it is shown, as an option and in the file."""
        expected = self.read("")
        for each in PARAMETERS:
            if each.default is not None and each.option is not None:
                text = each.default.replace("<lonSockDir>", expected.sock_dir)
                self.assertEqual(self.read("", **{each.attribute: text}), expected)
                self.assertEqual(self.read(f'PerlSetVar {each.variable} "{text}"'), expected)

    def test_management(self) -> None:
        """The default management endpoint is understood, whatever the folder is called."""
        for folder in ("/home/httpd/sockets", r"/a:b=c\d e", "/a=b:mode=666"):
            found = Settings(
                config_file="x",
                host_id="x",
                tab_dir="/",
                sock_dir=folder,
                daemons_dir="/",
                doc_root="/",
            )
            reactor = MemoryReactor()
            serverFromString(reactor, found.management).listen(Factory())
            ((path, _factory, _backlog, mode, _lock),) = reactor.unixServers
            self.assertEqual((path, mode), (f"{folder}/lonc.amp", 0o600))

    def test_paths(self) -> None:
        """Files stand where the other programs look for them (protocol, section 7)."""
        found = self.read("")
        self.assertEqual(found.hosts_file, "/home/httpd/lonTabs/hosts.tab")
        self.assertEqual(found.fetched_hosts_file, "/home/httpd/lonTabs/dns_hosts.tab")
        self.assertEqual(found.pid_file, "/home/httpd/perl/logs/lonc.pid")
        self.assertEqual(found.log_file, "/home/httpd/perl/logs/lonc.log")
        self.assertEqual(found.perm_log_file, "/home/httpd/perl/logs/lonnet.perm.log")
        self.assertEqual(found.status_file, "/home/httpd/html/lon-status/loncstatus.txt")
        self.assertEqual(found.delayed_dir, "/home/httpd/sockets/delayed")
        self.assertEqual(found.kept_dir, "/home/httpd/sockets/delayed/kept")
        self.assertEqual(found.socket_path("msul1"), "/home/httpd/sockets/msul1")

    def test_longestId(self) -> None:
        """An id of the greatest length makes a path of 107 bytes, what Linux has room for."""
        found = self.read("PerlSetVar lonSockDir /home/\u00fc")
        path = found.socket_path("x" * found.max_host_id)
        self.assertEqual(len(os.fsencode(path)), 107)


class OptionsTests(SynchronousTestCase):
    """The options as twistd gets them."""

    class SomeOptions(Options):
        """Options as a plugin would declare them."""

        optParameters = opt_parameters()

    def test_notGiven(self) -> None:
        """An option that is not given is None, so that the file counts."""
        options = self.SomeOptions()
        options.parseOptions(["--retries", "5"])
        self.assertEqual({value for value in options.values() if value is not None}, {"5"})
        self.assertEqual(len(options), len(opt_parameters()))

    def test_help(self) -> None:
        """The help says of every option what its unit, its default and its range are."""
        told = "".join(str(self.SomeOptions()).split())
        for each in PARAMETERS:
            if each.option is not None:
                self.assertIn(f"--{each.option}=", told)
                for text in (each.kind.unit, f"default {each.default}", each.kind.allowed):
                    self.assertIn("".join(text.split()), told, each.option)


class FolderTests(SettingsCase):
    """What check_folders says of folders that cannot be used."""

    def setUp(self) -> None:
        super().setUp()
        # Relative and therefore short: a socket's path must fit in wherever the tests run.
        root = os.path.relpath(self.mktemp())
        self.folders = {
            name: os.path.join(root, str(number))
            for number, name in enumerate(("tab_dir", "sock_dir", "daemons_dir", "doc_root"))
        }
        for folder in self.folders.values():
            os.makedirs(folder)
        self.settings = Settings(
            config_file="loncapa.conf",
            host_id="x",
            tab_dir=self.folders["tab_dir"],
            sock_dir=self.folders["sock_dir"],
            daemons_dir=self.folders["daemons_dir"],
            doc_root=self.folders["doc_root"],
        )

    def refused(self, closed: str = "") -> str:
        """Return the message of the refusal, with no writing in the folder ``closed``."""
        error = self.assertRaises(
            SettingsError,
            check_folders,
            self.settings,
            lambda folder, mode: folder != closed or not mode & os.W_OK,
        )
        return str(error)

    def test_good(self) -> None:
        """Folders that are there are taken, with and without what lonc makes in them."""
        check_folders(self.settings)
        for inner in (self.settings.kept_dir, self.settings.logs_dir, self.settings.status_dir):
            os.makedirs(inner)
        check_folders(self.settings)

    def test_missing(self) -> None:
        """A folder that is not there is named with its PerlSetVar and the file."""
        variables = {each.attribute: each.variable for each in PARAMETERS}
        for name, folder in self.folders.items():
            os.rmdir(folder)
            self.assertEqual(
                self.refused(),
                f"loncapa.conf: PerlSetVar {variables[name]}: {folder}: No such file or directory",
            )
            os.mkdir(folder)

    def test_file(self) -> None:
        """A file in a folder's place is refused."""
        for folder in self.folders.values():
            os.rmdir(folder)
            Path(folder).touch()
            self.assertIn(f"{folder} is not a folder", self.refused())
            os.unlink(folder)
            os.mkdir(folder)

    def test_innerFile(self) -> None:
        """A file, or a link to nowhere, in the place of a folder within them is refused."""
        for inner in (
            self.settings.delayed_dir,
            self.settings.logs_dir,
            self.settings.status_dir,
        ):
            Path(inner).touch()
            self.assertIn(f"{inner} is not a folder", self.refused())
            os.unlink(inner)
            os.symlink("/nowhere", inner)
            self.assertIn(f"{inner}: No such file", self.refused())
            os.unlink(inner)

    def test_innerLink(self) -> None:
        """A link to a folder is not followed where lonc's own should be; to that of logs it is."""
        elsewhere = os.path.abspath(self.mktemp())
        os.mkdir(elsewhere)
        os.symlink(elsewhere, self.settings.logs_dir)
        check_folders(self.settings)
        os.mkdir(self.settings.delayed_dir)
        why = "it is a symbolic link; it must be a folder itself"
        for inner in (self.settings.kept_dir, self.settings.sealed_dir):
            os.symlink(elsewhere, inner)
            self.assertIn(f"lonSockDir: {inner}: {why}", self.refused())
            os.unlink(inner)
        os.rmdir(self.settings.delayed_dir)
        for inner in (self.settings.delayed_dir, self.settings.status_dir):
            os.symlink(elsewhere, inner)
            self.assertIn(f"{inner}: {why}", self.refused())
            os.unlink(inner)

    def test_linkAbove(self) -> None:
        """A folder that `loncapa.conf` names may be a link."""
        folder = self.folders["sock_dir"]
        os.rename(folder, f"{folder}.elsewhere")
        os.symlink(os.path.abspath(f"{folder}.elsewhere"), folder)
        os.makedirs(self.settings.kept_dir)
        check_folders(self.settings)

    def test_notWritable(self) -> None:
        """A folder that lonc has to write in, and may not, is named."""
        for name in ("sock_dir", "daemons_dir", "doc_root"):
            folder = self.folders[name]
            self.assertIn(f"{folder} cannot be written by", self.refused(folder))
        for inner in (
            self.settings.delayed_dir,
            self.settings.sealed_dir,
            self.settings.kept_dir,
            self.settings.logs_dir,
            self.settings.status_dir,
        ):
            os.mkdir(inner)
            self.assertIn(f"{inner} cannot be written by", self.refused(inner))
        folder = self.folders["sock_dir"]
        self.assertIn(f"{folder} cannot be written by", self.refused(folder))

    def test_allAtOnce(self) -> None:
        """All folders of one setting that cannot be used are named."""
        names = [self.settings.sock_dir, self.settings.delayed_dir, self.settings.kept_dir]
        for inner in names[1:]:
            os.mkdir(inner)
        found = folder_errors(self.settings, lambda folder, mode: folder not in names)
        told = [str(each).split()[3] for each in found]
        self.assertEqual(told, names)

    def test_needNotBeWritable(self) -> None:
        """The table is only read, and what holds an existing subfolder need not be writable."""
        os.mkdir(self.settings.logs_dir)
        os.mkdir(self.settings.status_dir)
        closed = {self.folders[name] for name in ("tab_dir", "daemons_dir", "doc_root")}
        check_folders(
            self.settings, lambda folder, mode: folder not in closed or not mode & os.W_OK
        )

    def test_notEntered(self) -> None:
        """A folder that cannot be entered is named."""
        error = self.assertRaises(
            SettingsError, check_folders, self.settings, lambda folder, mode: False
        )
        self.assertIn(f"{self.folders['tab_dir']} cannot be entered by", str(error))

    def test_tooLong(self) -> None:
        """A folder in which no socket's path would fit is refused."""
        folder = os.path.join(self.folders["sock_dir"], "x" * 100)
        os.mkdir(folder)
        self.settings = attrs.evolve(self.settings, sock_dir=folder)
        self.assertIn(f"PerlSetVar lonSockDir: {folder} is too long", self.refused())


class PageTests(SynchronousTestCase):
    """The page about the settings in the documentation."""

    def test_everySetting(self) -> None:
        """Each setting, and nothing else, has a section that begins with its part of the table."""
        tree = Path(lonc.__file__).parent.parent
        if not (tree / "setup.cfg").is_file():
            raise SkipTest("installed without its documentation")
        page = (tree / "docs" / "settings.rst").read_text(encoding="utf-8")
        sections = re.findall(r"^(\w+)\n~+\n\n\.\. setting:: (\w+)$", page, re.MULTILINE)
        named = [each.variable for each in PARAMETERS]
        self.assertCountEqual(sections, [(name, name) for name in named])

    def test_removed(self) -> None:
        """What is a setting no more is none."""
        self.assertEqual({*REMOVED} & {each.variable for each in PARAMETERS}, set())
        self.assertEqual({*REMOVED.values()} & {each.option for each in PARAMETERS}, set())
