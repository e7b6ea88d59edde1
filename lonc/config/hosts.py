"""
The host table: reads ``hosts.tab`` into a HostTable, compares and merges tables.

What a line says is the matter of :mod:`lonc.config.host_rows`.

It reads the two files of the table, and does nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property

import attrs

from lonc.config.host_rows import BLANKS, ID_LIMIT, host_in, server_in
from lonc.config.host_rows import RESERVED_IDS as RESERVED_IDS
from lonc.config.host_rows import Host as Host
from lonc.config.host_rows import TableServer as TableServer
from lonc.disk.files import read_file

#: Bytes of a host table at most; a cluster of 100,000 hosts would still fit.
SIZE_LIMIT = 16 * 1024 * 1024

#: How many problems are told one by one; the rest is only counted, so that no log is flooded.
PROBLEM_LIMIT = 1000

#: How many problems of a table that came from elsewhere are told: nobody here can mend them.
FETCHED_PROBLEM_LIMIT = 20

#: Fields of a host that are told of; what else its line has concerns nobody who connects.
_SHOWN = ("domain", "role", "name", "address")


class TableError(Exception):
    """The table cannot be used. The message is one line for a person, and names the file."""


@attrs.frozen
class HostTable:
    """
    A host table as it was read, with what is wrong with it.

    :ivar hosts: by id, in the order of their lines.
    :ivar problems: a line for a person for each line that cannot be understood or is double.
    :ivar servers: who has the cluster's table, in the order of their lines.
    :ivar unusable: how many lines could not be understood.
    :ivar problem_count: how many lines have problems; not all may be among ``problems``.
    :ivar fetched: how many hosts the part that came from the cluster has, None without one.
    :ivar refused: hosts that are not served, because there are too many, by id.
    """

    hosts: Mapping[str, Host]
    problems: tuple[str, ...]
    servers: tuple[TableServer, ...] = ()
    unusable: int = 0
    problem_count: int = 0
    fetched: int | None = None
    refused: Mapping[str, Host] = attrs.field(factory=dict)

    def first(self, count: int, own: str) -> HostTable:
        """
        Return the table without the hosts behind the first ones.

        :param count: how many stay.
        :param own: the id of a host that is among them in any case, where it is in the table.
        """
        ids = sorted(self.hosts, key=lambda host_id: host_id != own)  # it keeps their order
        keep = set(ids[:count])
        return attrs.evolve(
            self,
            hosts={host_id: row for host_id, row in self.hosts.items() if host_id in keep},
            refused={host_id: self.hosts[host_id] for host_id in ids[count:]},
        )

    def ids_at(self, target: str) -> tuple[str, ...]:
        """
        Return the ids of the hosts with one target, which one lond serves.

        It is one lond whatever name its certificate has to bear for each of them: the ways in do
        not part what is reached by way of them.
        """
        return tuple(self._by_target.get(normal_target(target), ()))

    @cached_property
    def _by_target(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        # Hosts that are not served count: a lond of several ids stays one.
        for row in (*self.hosts.values(), *self.refused.values()):
            found.setdefault(normal_target(row.target), []).append(row.id)
        return found


@attrs.frozen
class Changes:
    """The ids of two tables, by change; ``gone`` in the old table's order, others in the new's."""

    gone: tuple[str, ...]
    changed: tuple[str, ...]
    new: tuple[str, ...]
    same: tuple[str, ...]


def parse_host_table(
    text: bytes,
    file: str,
    max_id: int = ID_LIMIT,
    max_problems: int = PROBLEM_LIMIT,
    fetched: bool = False,
) -> HostTable:
    """
    Return the table that ``text`` holds (row S1).

    A line that cannot be understood is one entry of ``problems``, and the others serve. Of two
    lines with the same id the later one serves, as it does for the other LON-CAPA programs.

    :param file: its name, for the problems.
    :param max_id: characters of an id at most, so that its socket's path fits.
    :param max_problems: how many problems are told one by one.
    :param fetched: whether it came from elsewhere. ``^`` lines mean nothing then: who is asked for
        the next one is not for it to say.
    :raises TableError: there is neither a host that can be used nor a server to ask for one.
    """
    hosts: dict[str, Host] = {}
    servers: dict[TableServer, None] = {}
    problems: list[str] = []
    problem_count = unusable = 0
    for number, line in enumerate(text.decode("utf-8-sig", "surrogateescape").split("\n"), 1):
        line = line.strip(BLANKS)
        if not line or line[0] == "#":
            continue
        problem, place = "", number
        try:
            if line[0] == "^":
                if fetched:
                    continue
                servers[server_in(line[1:])] = None
                continue
            found = host_in(line, number, max_id)
        except ValueError as error:
            problem = str(error)
            unusable += 1
        else:
            if earlier := hosts.pop(found.id, None):
                problem = f"{found.id} stands in line {number} too, which is used"
                place = earlier.line
            hosts[found.id] = found
        problem_count += bool(problem)
        if problem and problem_count <= max_problems:
            problems.append(f"{file}, line {place}: {problem}")
    if not hosts and not servers:
        raise TableError("; ".join([f"{file}: there is no host that can be used", *problems[:1]]))
    if problem_count > max_problems:
        problems.append(f"{file}: {problem_count - max_problems} more lines with problems")
    return HostTable(hosts, tuple(problems), tuple(servers), unusable, problem_count)


def read_host_table(
    path: str,
    max_id: int = ID_LIMIT,
    max_problems: int = PROBLEM_LIMIT,
    fetched: bool = False,
) -> HostTable:
    """
    Return the table in the file ``path``; see parse_host_table.

    :raises TableError: the file cannot be read, is too long, or has no host that can be used.
    """
    try:
        text = read_file(path, SIZE_LIMIT)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from None
    return parse_host_table(text, path, max_id, max_problems, fetched)


def read_both_tables(
    own_file: str,
    fetched_file: str,
    max_id: int = ID_LIMIT,
    lenient: bool = False,
) -> HostTable:
    """
    Return the table of this machine, ``hosts.tab``, with the last one that came from the cluster.

    The latter counts only where the former names servers to fetch it from: without them it is
    somebody else's. There may be none yet.

    :param lenient: take a fetched table that cannot be used for a problem, not for an error.
    :raises TableError: one of them cannot be used.
    """
    own = read_host_table(own_file, max_id)
    if not own.servers or not os.path.lexists(fetched_file):
        return own
    try:
        cluster = read_host_table(fetched_file, max_id, FETCHED_PROBLEM_LIMIT, fetched=True)
        return merged(own, cluster)
    except TableError as error:
        if not lenient:
            raise
        problems = (*own.problems, str(error))
        return attrs.evolve(own, problems=problems, problem_count=own.problem_count + 1)


def merged(own: HostTable, fetched: HostTable) -> HostTable:
    """Return a table with the rows of both: of two for the same id the first table's counts."""
    others = {row.id: row for row in fetched.hosts.values() if row.id not in own.hosts}
    return HostTable(
        {**own.hosts, **others},
        (*own.problems, *fetched.problems),
        own.servers,
        own.unusable + fetched.unusable,
        own.problem_count + fetched.problem_count,
        len(fetched.hosts),
    )


def same_target(one: str, other: str) -> bool:
    """Whether two targets are the same: case and a trailing dot of a name do not matter."""
    return normal_target(one) == normal_target(other)


def compare(old: HostTable, new: HostTable) -> Changes:
    """
    Compare two tables, host by host (protocol, section 8: USR2).

    A host has changed when its name or its address has: those say where its lond is and who it
    has to be. The other fields do not matter to a connection.
    """

    def moved(host_id: str) -> bool:
        before, after = old.hosts[host_id], new.hosts[host_id]
        return before.address != after.address or not same_target(before.name, after.name)

    both = [host_id for host_id in new.hosts if host_id in old.hosts]
    return Changes(
        gone=tuple(host_id for host_id in old.hosts if host_id not in new.hosts),
        changed=tuple(host_id for host_id in both if moved(host_id)),
        new=tuple(host_id for host_id in new.hosts if host_id not in old.hosts),
        same=tuple(host_id for host_id in both if not moved(host_id)),
    )


def changed_hosts(before: HostTable, after: HostTable, changes: Changes) -> Iterator[str]:
    """Yield a line for each host that was added, removed or changed."""
    for host_id in changes.new:
        yield f"{host_id}: new, at {after.hosts[host_id].target}"
    for host_id in changes.gone:
        yield f"{host_id}: gone"
    for host_id in (*changes.changed, *changes.same):
        told = "; ".join(_differences(before.hosts[host_id], after.hosts[host_id]))
        if told:
            yield f"{host_id}: {told}"


def _differences(before: Host, after: Host) -> Iterator[str]:
    old, new = attrs.asdict(before), attrs.asdict(after)
    for name in _SHOWN:
        if old[name] != new[name]:
            yield f"{name} {new[name] or 'none'}, was {old[name] or 'none'}"


def normal_target(target: str) -> str:
    """Return a target in normal form, so that two can be compared."""
    return target.lower().removesuffix(".")
