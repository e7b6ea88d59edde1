"""
Reads ``loncapa.conf`` and the options of ``twistd lonc`` into Settings.

Nothing is opened but that file and the one beside it. Whether the folders can be used is asked of
the file system; nothing is changed there.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs

from lonc.config.kinds import Kind, SettingsErrors
from lonc.config.kinds import SettingsError as SettingsError
from lonc.config.parameters import MANAGEMENT_SOCKET as MANAGEMENT_SOCKET
from lonc.config.parameters import SOCKET_PATH_LIMIT as SOCKET_PATH_LIMIT
from lonc.config.parameters import Settings as Settings
from lonc.disk.files import check_own_folder, read_file
from lonc.wire.printable import printable

#: Where ``loncapa.conf`` is looked for, in this order, when ``--config`` does not name it.
CONFIG_FILES = ("/etc/httpd/conf/loncapa.conf", "/etc/apache2/loncapa.conf")

#: What stands beside ``loncapa.conf`` on a full LON-CAPA machine, with the settings that are the
#: same for all machines; the other daemons read it along with ``loncapa.conf``, so lonc does.
COMMON_FILE = "loncapa_apache.conf"

#: Bytes of ``loncapa.conf`` at most: anything longer is some other file.
CONFIG_LIMIT = 1024 * 1024

#: Sections of ``loncapa.conf`` inside one another at most: nobody writes more than a handful.
MOST_SECTIONS = 100

NO_LONGER_NEEDED = "no longer needed"


@attrs.frozen
class Parameter:
    """
    One setting.

    :ivar attribute: its name in Settings.
    :ivar option: the long option of ``twistd lonc`` without its dashes, or None.
    :ivar variable: the PerlSetVar name.
    :ivar default: as it would be written, or None where ``loncapa.conf`` has to set it.
    :ivar kind: what may be written.
    :ivar what: what it is, for ``--help``.
    :ivar why: the reason for the default, for the documentation.
    """

    attribute: str
    option: str | None
    variable: str
    default: str | None
    kind: Kind
    what: str
    why: str

    def read(self, text: str | None, where: str) -> Any:
        """Return the value that ``text`` stands for; SettingsError begins with ``where``."""
        if text is None:
            raise SettingsError(f"{where}: it takes one value, in quotes if it contains spaces")
        try:
            return self.kind.parse(text.strip())
        except ValueError:
            short = text if len(text) <= 80 else text[:77] + "..."
            raise SettingsError(f"{where}: {short!r} is not {self.kind.allowed}") from None


def _parameters() -> tuple[Parameter, ...]:
    return tuple(
        Parameter(
            attribute=field.name,
            option=None if field.metadata["default"] is None else field.name.replace("_", "-"),
            **field.metadata,
        )
        for field in attrs.fields(Settings)
        if field.metadata
    )


#: Every setting; protocol, section 7, has the names that were there before lonc.
PARAMETERS = _parameters()


#: What was a setting once, and its option: whoever still has one is told so, and no more.
REMOVED: Final[Mapping[str, str]] = {
    "loncNameThreads": "name-threads",
    "loncTableLines": "table-lines",
    "loncTableLineLength": "table-line-length",
    "loncTableHosts": "table-hosts",
}


def opt_parameters() -> list[list[str | None]]:
    """Return rows for ``usage.Options.optParameters``: None stands for "not given"."""
    return [
        [
            each.option,
            None,
            None,
            f"{each.what} [{each.kind.unit}; {each.kind.allowed}; default {each.default}]",
        ]
        for each in PARAMETERS
        if each.option is not None
    ] + [[option, None, None, "No longer needed"] for option in REMOVED.values()]


_BY_VARIABLE = {parameter.variable: parameter for parameter in PARAMETERS}


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
    """A PerlSetVar: ``value`` is None where it is malformed, ``section`` is "" outside of any."""

    name: str
    value: str | None
    section: str
    where: str


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line with the number it begins at, once those that end in \\ are joined."""
    begun: list[str] = []
    # The further newline ends a last line that is to be continued.
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

    One in a section for some requests only, such as <Location>, is that section's own. The
    <If...> sections that the web server settles at its start are as good as not there.
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
    """Yield a line for each assignment that looks like one of lonc's and does nothing."""
    known = {name.lower(): name for name in _BY_VARIABLE}
    removed = {name.lower() for name in REMOVED}
    for each in assignments:
        lower = each.name.lower()
        if each.name in _BY_VARIABLE:
            if each.section:
                yield f"{each.where}: skipped, because it is inside <{each.section}>"
        elif lower in known:
            if each.name != known[lower]:
                yield f"{each.where}: skipped, because names are case-sensitive: {known[lower]}"
        elif lower in removed:
            yield f"{each.where}: {NO_LONGER_NEEDED}"
        elif lower.startswith("lonc"):
            import difflib

            nearest = difflib.get_close_matches(lower[:40], known, n=1, cutoff=0)[0]
            yield f"{each.where}: lonc has no such setting; the nearest is {known[nearest]}"


def find_config_file(search: Sequence[str] = CONFIG_FILES) -> str:
    """Return the first of ``search`` that exists; SettingsError names them all if none does."""
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
    Return the settings of the configuration file, or of the first of ``search`` for None.

    An option that is there and not None wins over the file; options that lonc's table does not
    have are somebody else's. Within the file the last assignment wins (row S1), and the file wins
    over a ``loncapa_apache.conf`` in the same folder.

    :param only: the names in the file that matter, for who has to find a lonc that runs: what is
        wrong with others is none of his business. They are at their defaults, or empty.
    :raises SettingsError: the file or a value cannot be used; naming file and line, or option.
    """
    file = find_config_file(search) if config_file is None else config_file
    common = os.path.join(os.path.dirname(file), COMMON_FILE)
    files = (common, file) if os.path.exists(common) else (file,)
    assignments = [each for name in files for each in _assignments(_read(name), printable(name))]
    last = {each.name: each for each in assignments if not each.section}
    values: dict[str, Any] = {}
    written = {}
    errors: list[SettingsError] = []
    for parameter in PARAMETERS:
        written[parameter.variable] = (parameter.default or "", "default")
        if only is not None and parameter.variable not in only:
            if parameter.default is None:
                values[parameter.attribute] = ""
            continue
        option = options.get(parameter.option) if parameter.option else None
        try:
            if option is not None:
                written[parameter.variable] = (option, f"--{parameter.option}")
                values[parameter.attribute] = parameter.read(option, f"--{parameter.option}")
                continue
            if assignment := last.get(parameter.variable):
                place = assignment.where.partition(": PerlSetVar ")[0]
                written[parameter.variable] = (assignment.value or "", place)
                values[parameter.attribute] = parameter.read(assignment.value, assignment.where)
                continue
        except SettingsError as error:
            errors.append(error)
            continue
        if parameter.default is None:
            near = (
                warning
                for warning in _warnings(assignments)
                if parameter.variable.lower() in warning.lower()
            )
            hint = next((f" ({warning})" for warning in near), "")
            what = f"{printable(file)}: PerlSetVar {parameter.variable} is missing{hint}"
            errors.append(SettingsError(what))
    if errors:
        raise errors[0] if len(errors) == 1 else SettingsErrors(errors)
    removed = [option for option in REMOVED.values() if options.get(option) is not None]
    warnings = (*_warnings(assignments), *(f"--{each}: {NO_LONGER_NEEDED}" for each in removed))
    return Settings(config_file=file, warnings=warnings, written=written, **values)


def changed_settings(before: Settings, after: Settings) -> Iterator[str]:
    """Yield a line for each setting that has another value."""
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
    Yield an error for each folder that is not there, or where lonc may not write and has to.

    Subfolders that lonc makes for itself may be missing; then their folder has to be writable.
    ``access`` answers for the process's user, as ``os.access`` does for the effective one.
    """
    # Asked for only where the two differ: not every system can tell of the effective user.
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
        where = f"{file}: PerlSetVar {variable}"
        there = [each for each in inner if os.path.lexists(each)]
        written = folder == settings.sock_dir or len(there) < len(inner)
        try:
            _check_folder(where, folder, os.W_OK | os.X_OK if written else os.X_OK, access)
            for each in there:
                _check_folder(where, each, os.W_OK | os.X_OK, access)
                if each != settings.logs_dir:  # a link that leads to other logs is usual
                    _check_own_folder(where, each)
        except SettingsError as error:
            yield error
    if settings.max_host_id < len(MANAGEMENT_SOCKET):
        yield SettingsError(
            f"{file}: PerlSetVar lonSockDir: {settings.sock_dir} is too long: the path of a "
            f"UNIX socket has {SOCKET_PATH_LIMIT} bytes at most"
        )


def _check_own_folder(where: str, folder: str) -> None:
    try:
        check_own_folder(folder)
    except OSError as error:
        raise SettingsError(f"{where}: {folder}: {error.strerror}") from None


def _check_folder(where: str, folder: str, mode: int, access: Callable[[str, int], bool]) -> None:
    try:
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            raise SettingsError(f"{where}: {folder} is not a folder")
    except OSError as error:
        raise SettingsError(f"{where}: {folder}: {error.strerror}") from None
    if not access(folder, mode):
        verb = "written" if mode & os.W_OK else "entered"
        raise SettingsError(f"{where}: {folder} cannot be {verb} by the user that lonc runs as")
