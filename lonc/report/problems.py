"""
What is wrong now: one list, which everything that shows the daemon's condition reads.

Whoever notices a problem that lasts tells it here, and says when it is over. A problem that begins
and one that ends are lines of the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

import attrs

from lonc.report.events import Logger
from lonc.report.kinds import KINDS, LEVELS, Level

log = Logger()

#: Problems of one kind that begin together and have a line of the log each; the rest is counted.
LINES: Final = 5


@attrs.frozen(kw_only=True)
class Problem:
    """
    Something that is wrong now.

    :ivar number: counts the problems since the start, in the order in which they began; 0 for one
        that is not on the list.
    :ivar kind: a name of :data:`lonc.report.kinds.KINDS`.
    :ivar level: one of :data:`lonc.report.kinds.LEVELS`.
    :ivar subject: whom it concerns: a host id, a program, a file; empty for the daemon.
    :ivar what: what is wrong, for a person.
    :ivar since: since when, in Unix time; ``None`` where that is not known.
    :ivar advice: what to do, with the section of the page "when something is wrong" in brackets.
    :ivar lost: ``con_lost`` of its host in the last five minutes; 0 where it is about no host.
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
        """The host id; empty where it is about no host."""
        return self.subject if KINDS[self.kind].of == "host" else ""

    @property
    def sentence(self) -> str:
        """What is wrong, with the host in front where it is about one."""
        return f"{self.host} {self.what}".lstrip()


def problem(
    kind: str, subject: str, what: str, *, level: Level | None = None, since: float | None = None
) -> Problem:
    """
    Make a problem; level and advice are those of its kind.

    :param level: where it differs from that of the kind.
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

        :param kind: one of :data:`lonc.report.kinds.KINDS`.
        :param subject: whom it concerns; empty for the daemon.
        :param level: where it differs from that of the kind.
        :param since: Unix time; None for when it was first told.
        """
        self.replace([problem(kind, subject, what, level=level, since=since)], ())

    def over(self, kind: str, subject: str = "") -> None:
        """Say that a problem is over, if there was one."""
        self._end([(kind, subject)])

    def replace(self, found: Iterable[Problem], kinds: Collection[str]) -> None:
        """
        Replace the problems of some kinds by those that have been found just now.

        :param kinds: the kinds that were looked for: problems of these that are not found are over.
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
        """A name of :data:`lonc.report.kinds.KINDS`."""
        return self.members[0].kind

    @property
    def level(self) -> str:
        """One of :data:`lonc.report.kinds.LEVELS`."""
        return self.members[0].level

    @property
    def what(self) -> str:
        """What is wrong with them: of several their number and what they have in common."""
        first, rules = self.members[0], KINDS[self.kind]
        if len(self.members) > 1:
            what = f"hosts {rules.cause}" if rules.of == "host" else rules.cause
            return f"{len(self.members)} {what}"
        return first.sentence

    @property
    def advice(self) -> str:
        """What to do, with the section of the page "when something is wrong" in brackets."""
        if len(self.members) == 1:
            return self.members[0].advice
        rules = KINDS[self.kind]
        return f"{rules.advice.format(subject=rules.of.upper())} ({rules.section})"

    def sentence(self, most: int) -> str:
        """Say what is wrong, and name the first of several."""
        names = self.subjects(most)
        return f"{self.what}: {names}" if names else self.what

    def subjects(self, most: int) -> str:
        """Name the first of several, and how many more there are; empty where there is one."""
        names = [each.subject for each in self.members]
        if len(names) == 1:
            return ""
        more = [f"… {len(names) - most} more"] if len(names) > most else []
        comma = "; " if KINDS[self.kind].of == "file" else ", "  # "FILE, line 7" has one itself
        return comma.join(names[:most] + more)


def by_cause(found: Iterable[Problem]) -> list[Group]:
    """
    Put problems with one cause together, the worst first, then those with most members.

    In each those come first whose hosts lost most requests.
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
