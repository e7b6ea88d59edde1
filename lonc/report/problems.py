"""
The list of current problems, which everything that shows the daemon's state reads.

Code that notices a lasting problem reports it here, and also its end. Both are logged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

import attrs

from lonc.report.events import Logger
from lonc.report.kinds import KINDS, LEVELS, Level

log = Logger()

#: Problems of one kind that are logged individually when they begin together; the rest is counted.
LINES: Final = 5


@attrs.frozen(kw_only=True)
class Problem:
    """
    A current problem.

    :ivar number: serial number since the start, in the order in which problems began; 0 for one
        that is not on the list.
    :ivar kind: a name in :data:`lonc.report.kinds.KINDS`.
    :ivar level: one of :data:`lonc.report.kinds.LEVELS`.
    :ivar subject: what it concerns: a host id, a program, a file; empty for the daemon.
    :ivar what: a readable description.
    :ivar since: when it began, in Unix time; ``None`` if unknown.
    :ivar advice: what to do, with the section of docs/trouble.rst in brackets.
    :ivar lost: ``con_lost`` of its host in the last five minutes; 0 if it does not concern a host.
    """

    number: int = 0
    kind: str
    level: str
    subject: str
    what: str
    since: float | None = None
    advice: str
    lost: int = 0

    @property
    def host(self) -> str:
        """The host id; empty if it does not concern a host."""
        return self.subject if KINDS[self.kind].of == "host" else ""

    @property
    def sentence(self) -> str:
        """The description, with the host in front if it concerns one."""
        return f"{self.host} {self.what}".lstrip()


def problem(
    kind: str, subject: str, what: str, *, level: Level | None = None, since: float | None = None
) -> Problem:
    """
    Create a problem with the advice of its kind.

    :param level: if it differs from that of the kind.
    """
    rules = KINDS[kind]
    level, advice = level or rules.level, rules.advice_for(subject)
    return Problem(kind=kind, level=level, subject=subject, what=what, since=since, advice=advice)


class Problems:
    """
    The list. Iteration yields the worst first, and the oldest first within a level.

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
        Report a problem, once or as often as it is noticed.

        :param kind: one of :data:`lonc.report.kinds.KINDS`.
        :param subject: what it concerns; empty for the daemon.
        :param level: if it differs from that of the kind.
        :param since: Unix time; None for the time of the first report.
        """
        self.replace([problem(kind, subject, what, level=level, since=since)], ())

    def over(self, kind: str, subject: str = "") -> None:
        """Remove a problem, if it is on the list."""
        self._end([(kind, subject)])

    def replace(self, found: Iterable[Problem], kinds: Collection[str]) -> None:
        """
        Replace the problems of some kinds by those found now.

        :param kinds: kinds whose problems are over if they are not among ``found``.
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
        """Add or update a problem; return whether it is new or has become worse."""
        key = told.kind, told.subject
        before = self._all.get(key)
        if before is None:
            self._count += 1
            begun = self._now() if told.since is None else told.since
            self._all[key] = attrs.evolve(told, number=self._count, since=begun)
            return True
        since = before.since if told.since is None else told.since
        now = attrs.evolve(told, number=before.number, since=since)
        if now != before:
            self._all[key] = now
        return LEVELS.index(before.level) < LEVELS.index(told.level)

    def _end(self, keys: Iterable[tuple[str, str]]) -> None:
        ended = [self._all.pop(key) for key in keys if key in self._all]
        for number, told in _some(ended):
            log.info("a problem is over: {what} ({kind})", what=told.what, **_in_the_log(told))
            if number:
                log.info("{count} more problems are over ({kind})", count=number, kind=told.kind)


def _some(listed: Iterable[Problem]) -> Iterator[tuple[int, Problem]]:
    """Yield the first few of each logged kind, the last one with the number left out."""
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
    """Sort problems: the worst first, then the oldest."""
    return sorted(found, key=lambda each: (-LEVELS.index(each.level), each.number))


def state(found: Iterable[Problem]) -> str:
    """Return the overall state: ``ok``, ``warning`` or ``critical``."""
    worst = max((LEVELS.index(each.level) for each in found), default=0)
    return LEVELS[worst] if worst else "ok"


@attrs.frozen
class Group:
    """
    Problems of one kind and level, shown as one line.

    :ivar members: at least one; those with the most lost requests first.
    """

    members: Sequence[Problem]

    @property
    def kind(self) -> str:
        """A name in :data:`lonc.report.kinds.KINDS`."""
        return self.members[0].kind

    @property
    def level(self) -> str:
        """One of :data:`lonc.report.kinds.LEVELS`."""
        return self.members[0].level

    @property
    def what(self) -> str:
        """The description of the problem, or the number and common cause of several."""
        first, rules = self.members[0], KINDS[self.kind]
        if len(self.members) > 1:
            what = f"hosts {rules.cause}" if rules.of == "host" else rules.cause
            return f"{len(self.members)} {what}"
        return first.sentence

    @property
    def advice(self) -> str:
        """What to do, with the section of docs/trouble.rst in brackets."""
        if len(self.members) == 1:
            return self.members[0].advice
        rules = KINDS[self.kind]
        return rules.advice_for(rules.of.upper())

    def sentence(self, most: int) -> str:
        """Return a text for these problems, with the first of several."""
        names = self.subjects(most)
        return f"{self.what}: {names}" if names else self.what

    def subjects(self, most: int) -> str:
        """List the first of several subjects, and the number of others; empty if there is one."""
        names = [each.subject for each in self.members]
        if len(names) == 1:
            return ""
        more = [f"… {len(names) - most} more"] if len(names) > most else []
        comma = "; " if KINDS[self.kind].of == "file" else ", "  # "FILE, line 7" contains a comma
        return comma.join(names[:most] + more)


def by_host(found: Iterable[Problem]) -> dict[str, list[Problem]]:
    """Return the problems of each host in their order, and those of no host under an empty id."""
    hosts: dict[str, list[Problem]] = {}
    for each in found:
        hosts.setdefault(each.host, []).append(each)
    return hosts


def by_cause(found: Iterable[Problem]) -> list[Group]:
    """
    Group problems by cause, the worst first, then those with the most members.

    In each group, those whose hosts lost the most requests come first.
    """
    groups: dict[tuple[str, str, str], list[Problem]] = {}
    for each in worst_first(found):
        apart = "" if KINDS[each.kind].cause else each.subject
        groups.setdefault((each.level, each.kind, apart), []).append(each)
    for members in groups.values():
        members.sort(key=lambda each: -each.lost)
    return sorted(
        (Group(members) for members in groups.values()),
        key=lambda each: (-LEVELS.index(each.level), -len(each.members)),
    )
