"""
Reads ``loncapa.conf`` and the options of ``twistd lonc`` into Settings.

It opens only that file and the one beside it. It checks the permissions of the folders, but changes
nothing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs

from lonc.config.kinds import Kind
from lonc.config.kinds import SettingsError as SettingsError
from lonc.config.parameters import MANAGEMENT_SOCKET as MANAGEMENT_SOCKET
from lonc.config.parameters import SOCKET_PATH_LIMIT as SOCKET_PATH_LIMIT
from lonc.config.parameters import Settings as Settings
from lonc.disk.files import check_own_folder, read_file
from lonc.wire.printable import printable

#: Paths of ``loncapa.conf``, in the order in which they are tried without ``--config``.
CONFIG_FILES = ("/etc/httpd/conf/loncapa.conf", "/etc/apache2/loncapa.conf")

#: A file beside ``loncapa.conf`` on a full LON-CAPA machine, with the settings that are the
#: same for all machines; the other daemons read both files, and so does lonc.
COMMON_FILE = "loncapa_apache.conf"

#: Maximum length of ``loncapa.conf`` in bytes: anything longer is some other file.
CONFIG_LIMIT = 1024 * 1024

#: Maximum nesting depth of sections in ``loncapa.conf``: nobody needs more than a handful.
MOST_SECTIONS = 100

NO_LONGER_NEEDED = "no longer needed"


@attrs.frozen
class Parameter:
    """
    One setting.

    :ivar attribute: its name in Settings.
    :ivar variable: the PerlSetVar name.
    :ivar default: as written in the file, or None if ``loncapa.conf`` must set it.
    :ivar kind: its type, which defines the allowed values.
    :ivar what: a description, for ``--help``.
    :ivar why: the reason for the default, for the documentation.
    """

    attribute: str
    variable: str
    default: str | None
    kind: Kind
    what: str
    why: str

    @property
    def option(self) -> str | None:
        """The long option of ``twistd lonc`` without its dashes, or None."""
        return None if self.default is None else self.attribute.replace("_", "-")

    def read(self, text: str | None, where: str) -> Any:
        """Parse ``text``; a SettingsError begins with ``where``."""
        if text is None:
            raise SettingsError(f"{where}: it takes one value, in quotes if it contains spaces")
        try:
            return self.kind.parse(text.strip())
        except ValueError:
            short = text if len(text) <= 80 else text[:77] + "..."
            raise SettingsError(f"{where}: {short!r} is not {self.kind.allowed}") from None


#: Every setting; protocol, section 7, lists the names that predate lonc.
PARAMETERS = tuple(
    Parameter(field.name, **field.metadata) for field in attrs.fields(Settings) if field.metadata
)

#: Removed settings, with their options: setting one only causes a warning.
REMOVED: Final[Mapping[str, str]] = {
    "loncNameThreads": "name-threads",
    "loncTableLines": "table-lines",
    "loncTableLineLength": "table-line-length",
    "loncTableHosts": "table-hosts",
}


def opt_parameters() -> list[list[str | None]]:
    """Return rows for ``usage.Options.optParameters``, with None as the default of each."""
    told = "{0.what} [{0.kind.unit}; {0.kind.allowed}; default {0.default}]"
    rows = [(each.option, told.format(each)) for each in PARAMETERS if each.option is not None]
    rows += [(option, "No longer needed") for option in REMOVED.values()]
    return [[option, None, None, what] for option, what in rows]


# Reading loncapa.conf

_BLANKS = " \t\r\f\v"
_WORD = r""" "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | [^\s"']\S* """
_DIRECTIVE = re.compile(r"perlsetvar\s+(\S+)", re.ASCII | re.IGNORECASE)
_ASSIGNMENT = re.compile(
    rf"perlsetvar \s+ ({_WORD}) \s+ ({_WORD}) (?:\s+\#.*)?", re.ASCII | re.IGNORECASE | re.VERBOSE
)
_SECTION = re.compile(r"<(/?)\s*(\w+)", re.ASCII)


@attrs.frozen
class _Assignment:
    """A PerlSetVar: ``value`` is None if it is malformed, ``section`` is "" outside of sections."""

    name: str
    value: str | None
    section: str
    where: str


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, joined with its continuation lines."""
    begun: list[str] = []
    # The additional newline ends a last line that ends in a backslash.
    for number, line in enumerate(f"{text}\n".split("\n"), 1):
        line = line.removesuffix("\r")
        begun.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            yield number - len(begun) + 1, "".join(begun).strip(_BLANKS)
            begun = []


def _unquoted(word: str) -> str:
    return re.sub(r"""\\([\\"'])""", r"\1", word[1:-1] if word[0] in "\"'" else word)


def _assignments(text: str, file: str) -> Iterator[_Assignment]:
    """
    Yield every PerlSetVar.

    One in a section that applies to some requests only, such as <Location>, is marked with it. The
    <If...> sections that the web server evaluates at its start are ignored.
    """
    sections: list[str] = []
    for number, line in _lines(text):
        if section := _SECTION.match(line):
            closes, name = section[1], section[2].lower()
            if not closes:
                sections.append(name)
                if len(sections) > MOST_SECTIONS:
                    raise SettingsError(
                        f"{file}, line {number}: more than {MOST_SECTIONS} sections inside one "
                        "another"
                    )
            elif name in sections:
                while sections.pop() != name:
                    pass
        elif directive := _DIRECTIVE.match(line):
            assignment = _ASSIGNMENT.fullmatch(line)
            name = _unquoted(assignment[1]) if assignment else directive[1].strip("\"'")
            yield _Assignment(
                name=name,
                value=_unquoted(assignment[2]) if assignment else None,
                section=next((s for s in sections if s == "if" or not s.startswith("if")), ""),
                where=f"{file}, line {number}: PerlSetVar {printable(name[:60])}",
            )


def _warnings(assignments: Sequence[_Assignment]) -> Iterator[str]:
    """Yield a line for each assignment that looks like one of lonc's and has no effect."""
    known = {parameter.variable.lower(): parameter.variable for parameter in PARAMETERS}
    removed = {name.lower() for name in REMOVED}
    for each in assignments:
        lower = each.name.lower()
        right = known.get(lower)
        if each.name == right:
            if each.section:
                yield f"{each.where}: skipped, because it is inside <{each.section}>"
        elif right is not None:
            yield f"{each.where}: skipped, because names are case-sensitive: {right}"
        elif lower in removed:
            yield f"{each.where}: {NO_LONGER_NEEDED}"
        elif lower.startswith("lonc"):
            import difflib

            nearest = difflib.get_close_matches(lower[:40], known, n=1, cutoff=0)[0]
            yield f"{each.where}: lonc has no such setting; the nearest is {known[nearest]}"


def find_config_file(search: Sequence[str] = CONFIG_FILES) -> str:
    """Return the first existing file of ``search``; a SettingsError names all if there is none."""
    for file in search:
        if os.path.exists(file):
            return file
    raise SettingsError(f"no configuration: neither {' nor '.join(search)} exists; see --config")


def _read(file: str) -> str:
    where = f"configuration {printable(file)}"
    try:
        content = read_file(file, CONFIG_LIMIT)
    except OSError as error:
        raise SettingsError(f"{where}: {error.strerror}") from None
    return content.decode("utf-8-sig", "surrogateescape")


def read_settings(
    config_file: str | None,
    options: Mapping[str, str | None],
    search: Sequence[str] = CONFIG_FILES,
    only: Collection[str] | None = None,
) -> Settings:
    """
    Return the settings of the configuration file, or of the first existing one of ``search``.

    An option that is not None overrides the file; unknown options are ignored. Within the file the
    last assignment counts (row S1), and the file overrides a ``loncapa_apache.conf`` in the same
    folder.

    :param only: names of the settings to read, for a caller that can do without the others: errors
        in those are ignored, and they have their defaults, or are empty.
    :raises SettingsError: the file or a value is unusable; with file and line, or the option.
    """
    file = find_config_file(search) if config_file is None else config_file
    common = os.path.join(os.path.dirname(file), COMMON_FILE)
    files = (common, file) if os.path.exists(common) else (file,)
    assignments = [each for name in files for each in _assignments(_read(name), printable(name))]
    last = {each.name: each for each in assignments if not each.section}
    values: dict[str, Any] = {}
    written = {}
    errors: list[SettingsError] = []
    warnings = [*_warnings(assignments)]
    for parameter in PARAMETERS:
        variable, attribute = parameter.variable, parameter.attribute
        option, assignment = options.get(parameter.option or ""), last.get(variable)
        written[variable] = (parameter.default or "", "default")
        text: str | None
        if only is not None and variable not in only:
            if parameter.default is None:
                values[attribute] = ""
            continue
        if option is not None:
            text, where = option, f"--{parameter.option}"
        elif assignment is not None:
            text, where = assignment.value, assignment.where
        else:
            if parameter.default is None:
                near = [each for each in warnings if variable.lower() in each.lower()]
                hint = f" ({near[0]})" if near else ""
                what = f"{printable(file)}: PerlSetVar {variable} is missing{hint}"
                errors.append(SettingsError(what))
            continue
        written[variable] = (text or "", where.partition(": PerlSetVar ")[0])
        try:
            values[attribute] = parameter.read(text, where)
        except SettingsError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 1 else SettingsError(*errors)
    removed = [option for option in REMOVED.values() if options.get(option) is not None]
    warnings += [f"--{each}: {NO_LONGER_NEEDED}" for each in removed]
    return Settings(config_file=file, warnings=tuple(warnings), written=written, **values)


def changed_settings(before: Settings, after: Settings) -> Iterator[str]:
    """Yield a line for each setting whose value differs."""
    for each in PARAMETERS:
        if getattr(before, each.attribute) != getattr(after, each.attribute):
            old, _ = before.written.get(each.variable, ("?", ""))
            new, source = after.written.get(each.variable, ("?", "?"))
            yield f"{each.variable}: {new}, was {old} ({source})"


# The folders


def folder_errors(
    settings: Settings, access: Callable[[str, int], bool] | None = None
) -> Iterator[SettingsError]:
    """
    Yield an error for each folder that does not exist, or that lonc must write to and cannot.

    Subfolders that lonc creates itself may be missing; then their parent must be writable.
    ``access`` checks permissions like ``os.access``, by default for the effective user.
    """
    # Only if the two differ: not every system supports checks for the effective user.
    access = access or partial(os.access, effective_ids=os.geteuid() != os.getuid())
    file = printable(settings.config_file)
    for variable, folder, *inner in (
        ("lonTabDir", settings.tab_dir),
        (
            "lonSockDir",
            settings.sock_dir,
            settings.delayed_dir,
            settings.sealed_dir,
            settings.kept_dir,
        ),
        ("lonDaemons", settings.daemons_dir, settings.logs_dir),
        ("lonDocRoot", settings.doc_root, settings.status_dir),
    ):
        there = [each for each in inner if os.path.lexists(each)]
        written = folder == settings.sock_dir or len(there) < len(inner)
        # A link to another place for logs is common.
        checks = [(each, os.W_OK | os.X_OK, each != settings.logs_dir) for each in there]
        for path, mode, own in [(folder, os.W_OK * written | os.X_OK, False), *checks]:
            if why := _why_unusable(path, mode, own, access):
                yield SettingsError(f"{file}: PerlSetVar {variable}: {path}{why}")
    if settings.max_host_id < len(MANAGEMENT_SOCKET):
        yield SettingsError(
            f"{file}: PerlSetVar lonSockDir: {settings.sock_dir} is too long: the path of a "
            f"UNIX socket has {SOCKET_PATH_LIMIT} bytes at most"
        )


def _why_unusable(folder: str, mode: int, own: bool, access: Callable[[str, int], bool]) -> str:
    try:
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            return " is not a folder"
        if own:
            check_own_folder(folder)
    except OSError as error:
        return f": {error.strerror}"
    if access(folder, mode):
        return ""
    return f" cannot be {'written' if mode & os.W_OK else 'entered'} by the user that lonc runs as"
