"""
The host table: reads ``hosts.tab`` into a HostTable, compares and merges tables.

:mod:`lonc.config.host_rows` parses the lines.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property

import attrs

from lonc.config.host_rows import BLANKS, ID_LIMIT, host_in, server_in
from lonc.config.host_rows import RESERVED_IDS as RESERVED_IDS
from lonc.config.host_rows import Host as Host
from lonc.config.host_rows import TableServer as TableServer
from lonc.disk.files import read_file

#: Maximum length of a host table in bytes; a cluster of 100,000 hosts would still fit.
SIZE_LIMIT = 16 * 1024 * 1024

#: Problems listed individually; the rest is only counted, so that the log is not flooded.
PROBLEM_LIMIT = 1000

#: Problems listed of a fetched table, which cannot be corrected on this machine.
FETCHED_PROBLEM_LIMIT = 20

#: Fields of a host whose changes are shown; the others do not matter for connections.
_SHOWN = ("domain", "role", "name", "address")


class TableError(Exception):
    """The table is unusable. The message is a readable line that names the file."""


@attrs.frozen
class HostTable:
    """
    A host table with its problems.

    :ivar hosts: by id, in the order of their lines.
    :ivar problems: a readable line for each invalid or duplicate line, at most for the first ones.
    :ivar servers: the servers of the cluster's table, in the order of their lines.
    :ivar unusable: number of invalid lines.
    :ivar fetched: number of hosts in the part fetched from the cluster, None without one.
    :ivar refused: hosts that are not served because there are too many, by id.
    """

    hosts: Mapping[str, Host]
    problems: tuple[str, ...]
    servers: tuple[TableServer, ...] = ()
    unusable: int = 0
    fetched: int | None = None
    refused: Mapping[str, Host] = attrs.field(factory=dict)

    def first(self, count: int, own: str) -> HostTable:
        """
        Return the table with its first hosts only.

        :param count: the number of hosts to keep.
        :param own: the id of a host that is always kept if it is in the table.
        """
        ids = sorted(self.hosts, key=lambda host_id: host_id != own)  # a stable sort
        keep = set(ids[:count])
        return attrs.evolve(
            self,
            hosts={host_id: row for host_id, row in self.hosts.items() if host_id in keep},
            refused={host_id: self.hosts[host_id] for host_id in ids[count:]},
        )

    def ids_at(self, target: str) -> tuple[str, ...]:
        """
        Return the ids of the hosts with this target, which one lond serves.

        It is one lond even if the ids differ in the name that its certificate must have.
        """
        return self._by_target.get(normal_target(target), ())

    @cached_property
    def _by_target(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        # Including hosts that are not served: the lond still has several ids.
        for row in (*self.hosts.values(), *self.refused.values()):
            found.setdefault(normal_target(row.target), []).append(row.id)
        return {target: tuple(ids) for target, ids in found.items()}


@attrs.frozen
class Changes:
    """Ids by change; ``gone`` is in the order of the old table, the others of the new one."""

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
    Parse a table (row S1).

    An invalid line becomes an entry of ``problems``, and the others are used. Of two
    lines with the same id the later one is used, as in the other LON-CAPA programs.

    :param file: its name, for the problems.
    :param max_id: maximum length of an id, so that the path of its socket fits.
    :param max_problems: how many problems to list individually.
    :param fetched: whether it was fetched. Then ``^`` lines are ignored: a fetched table must not
        determine the servers of the next one.
    :raises TableError: there is neither a usable host nor a server for a table.
    """
    hosts: dict[str, Host] = {}
    servers: dict[TableServer, None] = {}
    problems: list[str] = []
    problem_count = unusable = 0
    for number, line in enumerate(text.decode("utf-8-sig", "surrogateescape").split("\n"), 1):
        line = line.strip(BLANKS)
        if not line or line[0] == "#" or (fetched and line[0] == "^"):
            continue
        problem, place = "", number
        try:
            if line[0] == "^":
                servers[server_in(line[1:])] = None
                continue
            found = host_in(line, number, max_id)
        except ValueError as error:
            problem = str(error)
            unusable += 1
        else:
            if earlier := hosts.pop(found.id, None):
                problem = f"{found.id} is also in line {number}, which is used"
                place = earlier.line
            hosts[found.id] = found
        problem_count += bool(problem)
        if problem and problem_count <= max_problems:
            problems.append(f"{file}, line {place}: {problem}")
    if not hosts and not servers:
        raise TableError("; ".join([f"{file}: there is no host that can be used", *problems[:1]]))
    if problem_count > max_problems:
        problems.append(f"{file}: {problem_count - max_problems} more lines with problems")
    return HostTable(hosts, tuple(problems), tuple(servers), unusable)


def read_host_table(
    path: str,
    max_id: int = ID_LIMIT,
    max_problems: int = PROBLEM_LIMIT,
    fetched: bool = False,
) -> HostTable:
    """
    Return the table in a file; see parse_host_table.

    :raises TableError: the file cannot be read, is too long, or has no usable host.
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
    Return the table of this machine, ``hosts.tab``, merged with the last fetched one, if any.

    The latter is only used if the former names servers to fetch it from: otherwise it belongs to
    other programs.

    :param lenient: treat an unusable fetched table as a problem, not as an error.
    :raises TableError: one of them is unusable.
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
        return attrs.evolve(own, problems=(*own.problems, str(error)))


def merged(own: HostTable, fetched: HostTable) -> HostTable:
    """Return a table with the rows of both; if both have an id, the row of ``own`` is used."""
    others = {row.id: row for row in fetched.hosts.values() if row.id not in own.hosts}
    return HostTable(
        {**own.hosts, **others},
        (*own.problems, *fetched.problems),
        own.servers,
        own.unusable + fetched.unusable,
        len(fetched.hosts),
    )


def same_target(one: str, other: str) -> bool:
    """Whether two targets are the same, ignoring case and a trailing dot."""
    return normal_target(one) == normal_target(other)


def compare(old: HostTable, new: HostTable) -> Changes:
    """
    Compare two tables, host by host (protocol, section 8: USR2).

    A host has changed if its name or its address has: these determine where its lond is and which
    certificate it needs. The other fields do not matter for connections.
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
    """Return a target in normal form, for comparison; the same string for equal ones."""
    return sys.intern(target.lower().removesuffix("."))
