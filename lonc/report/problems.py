"""
What is wrong now: one list, which everything that shows the daemon's condition reads.

Whoever notices a problem that lasts tells it here, and says when it is over. A problem that begins
and one that ends are lines of the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

import attrs

from lonc.report.events import Logger

log = Logger()

Level = Literal["note", "warning", "critical"]

#: From the best to the worst. A note is something to know: it makes nothing unwell.
LEVELS: Final[tuple[Level, ...]] = ("note", "warning", "critical")


#: Problems of one kind that begin together and have a line of the log each; the rest is counted.
LINES: Final = 5


@attrs.frozen
class Kind:
    """
    What the problems of one kind share.

    :ivar level: how bad they are, unless whoever tells one says otherwise.
    :ivar section: of the page "when something is wrong": what to do about them.
    :ivar advice: what to do first; ``{subject}`` is put in.
    :ivar of: what the subject is.
    :ivar cause: what several of them are called together, behind their number.
    :ivar logged: whether the log has a line at its beginning and at its end, unless it is a note.
        Not where whoever notices it writes lines of its own.
    """

    level: Level
    section: str
    advice: str
    of: Literal["", "host", "program", "file"] = ""
    cause: str = ""
    logged: bool = True


def _host(
    cause: str, section: str, advice: str, level: Level = "warning", logged: bool = False
) -> Kind:
    return Kind(level, section, advice, "host", cause, logged)


_IS_IT_RUNNING: Final = "is its lond running? lonc hosts {subject}; lonc retry {subject}"

#: The name of each kind, which stays: programs read it.
KINDS: Final[Mapping[str, Kind]] = {
    "host-refused": _host("DEAD: refused", "host-dead", _IS_IT_RUNNING),
    "host-unreachable": _host(
        "DEAD: unreachable", "host-dead", "is it up, and the network? lonc hosts {subject}"
    ),
    "host-timed-out": _host(
        "DEAD: timed out", "host-dead", "is it up, and the network? lonc hosts {subject}"
    ),
    "host-look-up-failed": _host(
        "DEAD: no address", "host-dead", "ask the name server, or mend hosts.tab; lonc reload"
    ),
    "host-unknown-there": _host(
        "do not know this machine",
        "host-dead",
        "its hosts.tab needs a line for this machine; lonc hosts {subject}",
    ),
    "host-bad-handshake": _host(
        "DEAD: bad handshake",
        "host-dead",
        "is it a lond that listens there? lonc hosts {subject}",
    ),
    "host-leads-elsewhere": _host(
        "another lond answers", "host-dead", "mend its address in hosts.tab; lonc reload"
    ),
    "host-broke": _host("DEAD: broke", "host-dead", _IS_IT_RUNNING),
    "host-dead": _host("DEAD", "host-dead", _IS_IT_RUNNING),
    "host-unproven": _host("unproven", "host-unproven", "it is being tried; lonc hosts {subject}"),
    "host-name": _host(
        "cannot be looked up",
        "name",
        "ask the name server: getent hosts <name>; lonc hosts {subject}",
        logged=True,
    ),
    "host-paused": _host("paused", "paused", "lonc resume {subject}", "note"),
    "host-waits": _host(
        "let requests wait",
        "slow-host",
        "lonc hosts {subject} shows where the time goes",
        logged=True,
    ),
    "host-silent": _host(
        "answer nothing",
        "host-silent",
        "its lond hangs: restart it there; lonc clients {subject}",
        logged=True,
    ),
    "host-ping": _host(
        "give no use of ping",
        "host-ping",
        "is it a lond of an odd release? lonc hosts {subject}",
        "note",
    ),
    "host-loses": _host(
        "lose requests", "con-lost", "lonc hosts {subject} has the causes", logged=True
    ),
    "host-slow": _host(
        "are slow", "slow-host", "lonc slow {subject} names the commands", logged=True
    ),
    "delayed-old": _host(
        "have old delayed requests",
        "delayed-old",
        "lonc delayed list {subject} shows what the last try said",
        logged=True,
    ),
    "many-dead": Kind(
        "critical", "many-dead", "look at this machine's network, name server and certificate"
    ),
    "clients-refused": Kind(
        "critical",
        "clients-refused",
        "lonc clients shows who holds the places; loncMaxClients",
        logged=False,
    ),
    "clients-full": Kind(
        "warning",
        "clients-refused",
        "lonc clients shows who holds the places; loncMaxClients",
        logged=False,
    ),
    "clients-one-program": Kind(
        "warning",
        "clients-refused",
        "does it close its connections? lonc clients shows them",
        "program",
    ),
    "clients-cut-off": Kind(
        "warning", "clients-cut-off", "lonc.log says why of each", logged=False
    ),
    "memory-used-up": Kind(
        "warning", "memory", "see who sends so much; loncMaxRequestMemory", logged=False
    ),
    "host-not-served": _host(
        "have no socket", "not-served", "lonc hosts {subject}; mend what is in the way", "critical"
    ),
    "hosts-not-served": Kind(
        "critical", "open-files", "raise the limit of open files, then restart lonc"
    ),
    "open-files": Kind("warning", "open-files", "raise the limit of open files, then restart lonc"),
    "table-row": Kind(
        "warning",
        "files",
        "mend the line: its host is not served; lonc reload",
        "file",
        "lines of a table are not used",
    ),
    "setting-unused": Kind(
        "warning",
        "files",
        "it does nothing: mend or delete it; lonc reload",
        "file",
        "settings do nothing",
    ),
    "own-id-missing": Kind(
        "warning",
        "files",
        "add a line, or mend lonHostID: other servers do not know this one",
        "file",
    ),
    "nobody-may-manage": Kind(
        "warning", "files", "name those whose certificates may see, or steer; lonc reload"
    ),
    "management-open": Kind(
        "note", "exposed", "a UNIX socket has levels: loncManagement, then lonc reload"
    ),
    "port-not-open": Kind(
        "warning",
        "port-not-open",
        "lonc settings; free what it names, then lonc reload",
        "",
        logged=False,
    ),
    "files-used-up": Kind(
        "critical", "open-files", "raise the limit of open files, then restart lonc"
    ),
    "table-not-fetched": Kind(
        "warning", "table-not-fetched", "grep 'no host table from' lonc.log", "file", logged=False
    ),
    "restart-needed": Kind("note", "files", "restart lonc when it suits you"),
    "runs-as-root": Kind(
        "critical", "exposed", "start it with twistd --uid and --gid, or set loncSocketGroup"
    ),
    "folder-open": Kind("warning", "exposed", "chmod o-w {subject}", "file"),
    "key-readable": Kind("warning", "exposed", "chmod o-r {subject}", "file"),
    "no-idea": Kind("critical", "no-idea", "install an OpenSSL that has IDEA, then restart lonc"),
    "certificate-unusable": Kind(
        "warning", "certificate", "mend the file, then lonc reload", "file"
    ),
    "certificate-ends": Kind("warning", "certificate", "have it renewed, then lonc reload", "file"),
    "certificate-ended": Kind(
        "critical", "certificate", "have it renewed, then lonc reload", "file"
    ),
    "delayed-folder": Kind(
        "critical", "delayed-folder", "mend its owner and mode, or its disk: {subject}", "file"
    ),
    "delayed-disk-full": Kind(
        "critical", "delayed-folder", "make room: df {subject}; df -i {subject}", "file"
    ),
    "delayed-not-cleared": Kind(
        "critical", "delayed-folder", "mend that before the next restart: {subject}", "file"
    ),
    "delayed-unsealed": Kind(
        "critical", "delayed-unsealed", "mend its owner and mode, or its disk: {subject}", "file"
    ),
    "delayed-locked": Kind(
        "warning", "delayed-unsealed", "set loncDelayedKeyFile again; lonc reload"
    ),
    "delayed-unknown": _host(
        "are not in the table and have delayed requests",
        "delayed-unknown",
        "put it into hosts.tab, or lonc delayed drop; lonc delayed list {subject}",
        logged=True,
    ),
    "delayed-kept": Kind(
        "warning", "kept", "lonc delayed kept shows them, with the answers", logged=False
    ),
    "pid-file": Kind("warning", "pid-file", "see whose it is, then remove it", "file"),
    "log-file": Kind(
        "critical", "files", "mend rights or space of {subject}", "file", logged=False
    ),
    "status-file": Kind(
        "warning", "files", "mend rights or space of {subject}", "file", logged=False
    ),
    "reload-failed": Kind(
        "warning", "reload-failed", "lonc check names file and line", logged=False
    ),
}


@attrs.frozen(kw_only=True)
class Problem:
    """
    Something that is wrong now.

    :ivar number: counts the problems since the start; the order in which they began. 0 for one
        that is on no list.
    :ivar kind: a name of :data:`KINDS`.
    :ivar level: one of :data:`LEVELS`.
    :ivar subject: whom it concerns: a host id, a program, a file; empty for the daemon.
    :ivar what: what is wrong, for a person.
    :ivar since: since when, in Unix time; ``None`` where that is not known.
    :ivar advice: what to do, with the section of the page "when something is wrong" in brackets.
    """

    number: int = 0
    kind: str
    level: str
    subject: str
    what: str
    since: float | None = None
    advice: str

    @property
    def host(self) -> str:
        """The host id; empty where it is about no host."""
        return self.subject if KINDS[self.kind].of == "host" else ""


def problem(
    kind: str, subject: str, what: str, *, level: Level | None = None, since: float | None = None
) -> Problem:
    """
    Make a problem; level and advice are those of its kind.

    :param level: another than that of the kind.
    """
    rules = KINDS[kind]
    advice = f"{rules.advice.format(subject=subject)} ({rules.section})"
    level = level or rules.level
    return Problem(kind=kind, level=level, subject=subject, what=what, since=since, advice=advice)


class Problems:
    """
    The list. Iterating over it gives the worst first, and of one level the oldest.

    :param now: Unix time.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._all: dict[tuple[str, str], Problem] = {}
        self._count = 0

    def __iter__(self) -> Iterator[Problem]:
        return iter(worst_first(self._all.values()))

    def tell(
        self,
        kind: str,
        subject: str,
        what: str,
        *,
        level: Level | None = None,
        since: float | None = None,
    ) -> None:
        """
        Say that something is wrong, once or as often as it is noticed.

        :param kind: one of :data:`KINDS`.
        :param subject: whom it concerns; empty for the daemon.
        :param level: another than that of the kind.
        :param since: Unix time; without it since it was first told.
        """
        self.replace([problem(kind, subject, what, level=level, since=since)], ())

    def over(self, kind: str, subject: str = "") -> None:
        """Say that something is well, whether it was told that it is not or not."""
        self._end([(kind, subject)])

    def replace(self, found: Iterable[Problem], kinds: Collection[str]) -> None:
        """
        Put all that was found at a look in the place of what an earlier one found.

        :param kinds: the kinds that were looked for; of these, what was not found is over.
        """
        there = {(each.kind, each.subject): each for each in found}
        worse = [each for each in there.values() if self._add(each)]
        for number, told in _some(worse):
            if told.level == "critical":
                log.critical("a problem: {what} ({kind})", what=told.what, **_in_the_log(told))
            else:
                log.warn("a problem: {what} ({kind})", what=told.what, **_in_the_log(told))
            if number:
                log.warn("{count} more problems ({kind})", count=number, kind=told.kind)
        self._end([key for key in self._all if key[0] in kinds and key not in there])

    def _add(self, told: Problem) -> bool:
        """Return whether it is new, or worse than before."""
        key = told.kind, told.subject
        before = self._all.get(key)
        if before is None:
            self._count += 1
            number, begun = self._count, self._now()
        else:
            number, begun = before.number, before.since or 0.0
        since = begun if told.since is None else told.since
        self._all[key] = attrs.evolve(told, number=number, since=since)
        return before is None or LEVELS.index(before.level) < LEVELS.index(told.level)

    def _end(self, keys: Iterable[tuple[str, str]]) -> None:
        ended = [self._all.pop(key) for key in keys if key in self._all]
        for number, told in _some(ended):
            log.info("a problem is over: {what} ({kind})", what=told.what, **_in_the_log(told))
            if number:
                log.info("{count} more problems are over ({kind})", count=number, kind=told.kind)


def _some(listed: Iterable[Problem]) -> Iterator[tuple[int, Problem]]:
    """Yield the first few of each kind that the log tells, the last with how many are left out."""
    kinds: dict[str, list[Problem]] = {}
    for each in listed:
        if KINDS[each.kind].logged and each.level != "note":
            kinds.setdefault(each.kind, []).append(each)
    for found in kinds.values():
        for place, each in enumerate(found[:LINES], 1):
            yield max(0, len(found) - LINES) if place == LINES else 0, each


def _in_the_log(told: Problem) -> dict[str, str]:
    fields = {"kind": told.kind, "subject": told.subject, "problem_level": told.level}
    return fields | ({"host_id": told.host} if told.host else {})


def worst_first(found: Iterable[Problem]) -> list[Problem]:
    """Return problems as people want to see them: the worst first, then the oldest."""
    return sorted(found, key=lambda each: (-LEVELS.index(each.level), each.number))


def state(found: Iterable[Problem]) -> str:
    """Sum problems up: ``ok``, ``warning`` or ``critical``."""
    worst = max((LEVELS.index(each.level) for each in found), default=0)
    return LEVELS[worst] if worst else "ok"


@attrs.frozen
class Group:
    """
    Problems of one kind and level, as one line on a screen.

    :ivar members: there is one at least; those that hurt most are the first.
    """

    members: Sequence[Problem]

    @property
    def kind(self) -> str:
        """A name of :data:`KINDS`."""
        return self.members[0].kind

    @property
    def level(self) -> str:
        """One of :data:`LEVELS`."""
        return self.members[0].level

    @property
    def what(self) -> str:
        """What is wrong with them: of several their number and what they have in common."""
        first, rules = self.members[0], KINDS[self.kind]
        if len(self.members) > 1:
            return f"{len(self.members)} {rules.of}s {rules.cause}"
        return f"{first.host} {first.what}".lstrip()

    @property
    def advice(self) -> str:
        """What to do, with the section of the page "when something is wrong" in brackets."""
        if len(self.members) == 1:
            return self.members[0].advice
        rules = KINDS[self.kind]
        return f"{rules.advice.format(subject=rules.of.upper())} ({rules.section})"

    def subjects(self, most: int) -> str:
        """Name the first of several, and how many more there are; empty where there is one."""
        names = [each.subject for each in self.members]
        if len(names) == 1:
            return ""
        more = [f"… {len(names) - most} more"] if len(names) > most else []
        return ", ".join(names[:most] + more)


def grouped(
    found: Iterable[Problem], weight: Callable[[Problem], float] = lambda each: 0.0
) -> list[Group]:
    """
    Put problems with one cause together, the worst first, then those with most members.

    :param weight: how much one hurts, compared with others of its group.
    """
    groups: dict[tuple[str, str, str], list[Problem]] = {}
    for each in worst_first(found):
        apart = "" if KINDS[each.kind].cause else each.subject
        groups.setdefault((each.level, each.kind, apart), []).append(each)
    for members in groups.values():
        members.sort(key=lambda each: -weight(each))
    return sorted(
        (Group(members) for members in groups.values()),
        key=lambda each: (-LEVELS.index(each.level), -len(each.members)),
    )
