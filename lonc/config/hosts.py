"""
The host table: ``hosts.tab`` becomes a HostTable, and two tables can be compared or put together.

A line reads ``id:domain:role:hostname[:ip[:...]]`` (protocol, section 7). What stands in the fifth
field decides where lonc connects to:

* an IPv4 or IPv6 address: to that. Since colons part the fields, a bare IPv6 address takes as many
  of them as can belong to it; brackets leave no doubt where it ends.
* nothing, ``http`` or ``https``, or no such field: to the host name of the fourth field, which is
  looked up. Behind the latter two the internet domain may stand.
* another host name: to that one, which takes the fourth field's place.

A line ``^server[:port][:http|https]`` names a server that has the cluster's host table; the port
is lonc's own addition. Blanks around fields and a CR before the newline are dropped, and lines
that begin with ``#`` are comments.

This module is pure: it reads files and imports nothing of lonc.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from collections.abc import Mapping
from functools import cached_property

import attrs

#: Bytes of a host table at most; a cluster of 100,000 hosts would still fit.
SIZE_LIMIT = 16 * 1024 * 1024

#: How many problems are told one by one; the rest is only counted, so that no log is flooded.
PROBLEM_LIMIT = 1000

#: How many problems of a table that came from elsewhere are told: nobody here can mend them.
FETCHED_PROBLEM_LIMIT = 20

#: Characters of an id at most where the folder of the sockets is not known: a UNIX socket's path
#: has 107 bytes on Linux, and one of them is a slash.
ID_LIMIT = 106

#: Names in the folder of the sockets that are lonc's own.
RESERVED_IDS = frozenset({"delayed", "lonc.amp", "lonc.amp.lock", "lonc.keys"})

_BLANKS = " \t\r\f\v"
_ID = re.compile(r"[A-Za-z0-9_.-]+")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# A name whose last label is digits only would be an IPv4 address, or a failed attempt at one.
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?![0-9]+\.?\Z){_LABEL}\.?")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?")
_PORT = re.compile("[0-9]{1,5}")

#: Parts between colons that an IPv6 address has at most: eight groups and an empty one.
_MOST_PARTS = 9


class TableError(Exception):
    """The table cannot be used. The message is one line for a person, and names the file."""


@attrs.frozen
class Host:
    """
    A line of the table.

    :ivar id: the host id.
    :ivar domain: its LON-CAPA domain.
    :ivar role: ``library`` or ``access``.
    :ivar name: its host name, or an IPv4 address where the table has one in its place.
    :ivar address: its IP address in normal form, or None: look ``name`` up.
    :ivar line: number of the line, from 1.
    :ivar protocol: how its web server is spoken to, ``http`` or ``https``.
    :ivar internet_domain: the institution's name on the internet, or nothing.
    :ivar hostname: what stands in the fourth field: another name in the fifth leaves it alone.
    """

    id: str
    domain: str
    role: str
    name: str
    address: str | None
    line: int
    protocol: str = "http"
    internet_domain: str = ""
    hostname: str = attrs.field()

    @hostname.default
    def _hostname(self) -> str:
        return self.name

    @property
    def target(self) -> str:
        """What to connect to: the address if there is one, else the name."""
        return self.address or self.name


@attrs.frozen
class TableServer:
    """
    A server that has the cluster's host table (protocol, section 7).

    :ivar name: its host name or IPv4 address.
    :ivar protocol: ``http`` or ``https``.
    :ivar port: None for the protocol's own.
    """

    name: str
    protocol: str = "http"
    port: int | None = None

    @property
    def url(self) -> str:
        """Where the table is."""
        port = "" if self.port is None else f":{self.port}"
        return f"{self.protocol}://{self.name}{port}/adm/dns/hosts"


@attrs.frozen
class HostTable:
    """
    What a file holds.

    :ivar hosts: by id, in the order of their lines.
    :ivar problems: a line for a person for each line that cannot be understood or is double.
    :ivar servers: who has the cluster's table, in the order of their lines.
    :ivar unusable: how many lines could not be understood.
    """

    hosts: Mapping[str, Host]
    problems: tuple[str, ...]
    servers: tuple[TableServer, ...] = ()
    unusable: int = 0

    def ids_at(self, target: str) -> tuple[str, ...]:
        """
        Return the ids of the hosts with one target, which one lond serves.

        It is one lond whatever name its certificate has to bear for each of them: the ways in do
        not part what is reached by way of them.
        """
        return tuple(self._by_target.get(_normal(target), ()))

    @cached_property
    def _by_target(self) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for host in self.hosts.values():
            found.setdefault(_normal(host.target), []).append(host.id)
        return found


@attrs.frozen
class Changes:
    """Ids by what became of them; ``gone`` in the old table's order, the others in the new's."""

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
    :param fetched: it came from elsewhere: who is asked for the next one is not for it to say.
    :raises TableError: there is neither a host that can be used nor a server to ask for one.
    """
    hosts: dict[str, Host] = {}
    servers: dict[TableServer, None] = {}
    problems: list[str] = []
    left_out = unusable = 0
    for number, line in enumerate(text.decode("utf-8-sig", "surrogateescape").split("\n"), 1):
        line = line.strip(_BLANKS)
        if not line or line[0] == "#":
            continue
        problem = ""
        try:
            if line[0] == "^":
                if fetched:
                    continue
                servers[_server(line[1:])] = None
                continue
            host = _host(line, number, max_id)
        except ValueError as error:
            problem = str(error)
            unusable += 1
        else:
            if earlier := hosts.pop(host.id, None):
                problem = f"{host.id} stands in line {earlier.line} too; line {number} is used"
            hosts[host.id] = host
        if problem and len(problems) < max_problems:
            problems.append(f"{file}, line {number}: {problem}")
        elif problem:
            left_out += 1
    if not hosts and not servers:
        raise TableError("; ".join([f"{file}: there is no host that can be used", *problems[:1]]))
    if left_out:
        problems.append(f"{file}: {left_out} more lines with problems")
    return HostTable(hosts, tuple(problems), tuple(servers), unusable)


def read_host_table(
    path: str, max_id: int = ID_LIMIT, max_problems: int = PROBLEM_LIMIT, fetched: bool = False
) -> HostTable:
    """
    Return the table in the file ``path``; see parse_host_table.

    :raises TableError: the file cannot be read, is too long, or has no host that can be used.
    """
    try:
        # Asked first because opening a pipe could wait for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise TableError(f"{path}: not a file")
        with open(path, "rb") as opened:
            text = opened.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from None
    if len(text) > SIZE_LIMIT:
        raise TableError(f"{path}: longer than {SIZE_LIMIT} bytes, which no host table is")
    return parse_host_table(text, path, max_id, max_problems, fetched)


def read_both_tables(
    own_file: str, fetched_file: str, max_id: int = ID_LIMIT, lenient: bool = False
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
        return merged(own, read_host_table(fetched_file, max_id, FETCHED_PROBLEM_LIMIT, True))
    except TableError as error:
        if not lenient:
            raise
        return attrs.evolve(own, problems=(*own.problems, str(error)))


def merged(own: HostTable, fetched: HostTable) -> HostTable:
    """Return a table with the rows of both: of two for the same id the first table's counts."""
    others = {row.id: row for row in fetched.hosts.values() if row.id not in own.hosts}
    return HostTable(
        {**own.hosts, **others},
        (*own.problems, *fetched.problems),
        own.servers,
        own.unusable + fetched.unusable,
    )


def same_target(one: str, other: str) -> bool:
    """Whether two targets are one: capitals and a dot at the end of a name do not matter."""
    return _normal(one) == _normal(other)


def compare(old: HostTable, new: HostTable) -> Changes:
    """
    Return what became of the hosts of ``old`` (protocol, section 8: USR2).

    A host has changed when its name or its address has: those say where its lond is and who it
    has to be. The other fields do not matter to a connection.
    """

    def moved(host_id: str) -> bool:
        before, after = old.hosts[host_id], new.hosts[host_id]
        return (before.name, before.address) != (after.name, after.address)

    both = [host_id for host_id in new.hosts if host_id in old.hosts]
    return Changes(
        gone=tuple(host_id for host_id in old.hosts if host_id not in new.hosts),
        changed=tuple(host_id for host_id in both if moved(host_id)),
        new=tuple(host_id for host_id in new.hosts if host_id not in old.hosts),
        same=tuple(host_id for host_id in both if not moved(host_id)),
    )


# One line: each of these raises ValueError with the reason why it is no use.


def _server(text: str) -> TableServer:
    name, *more = [field.strip(_BLANKS) for field in text.split(":", 4)]
    if more and not more[-1]:
        more.pop()
    port = int(more.pop(0)) if more and _PORT.fullmatch(more[0]) else None
    protocol = more.pop(0).lower() if more else "http"
    if more or protocol not in ("http", "https") or (port is not None and not 0 < port < 65536):
        raise ValueError(f"{_shown(text)} is not a table server (server[:port][:http or :https])")
    return TableServer(_name_of_host(name), protocol, port)


def _host(line: str, number: int, max_id: int) -> Host:
    fields = [field.strip(_BLANKS) for field in line.split(":", 4)]
    if len(fields) < 4:
        raise ValueError(f"{len(fields)} of at least 4 fields (id:domain:role:hostname)")
    host_id, domain, role, name, rest = fields if len(fields) == 5 else [*fields, ""]
    _check_id(host_id, max_id)
    if not _ID.fullmatch(domain):
        raise ValueError(f"{_shown(domain)} is not a domain")
    if role not in ("library", "access"):
        raise ValueError(f"the role {_shown(role)} is neither library nor access")
    own_name = _name_of_host(name)
    other_name, address = _where_to_connect(rest)
    protocol, internet_domain = _web_server(rest)
    return Host(
        host_id,
        domain,
        role,
        other_name or own_name,
        address,
        number,
        protocol,
        internet_domain,
        own_name,
    )


def _check_id(host_id: str, max_id: int) -> None:
    if not _ID.fullmatch(host_id) or host_id in (".", ".."):
        raise ValueError(f"{_shown(host_id)} is not a host id")
    if host_id in RESERVED_IDS:
        raise ValueError(f"the host id {host_id} is taken by a file of lonc's own")
    if len(host_id) > max_id:
        raise ValueError(
            f"the host id {_shown(host_id)} is too long: the path of its UNIX socket leaves "
            f"room for {max(max_id, 0)} characters"
        )


def _where_to_connect(rest: str) -> tuple[str | None, str | None]:
    """Return another name, or an address, or neither, from the fifth field onwards."""
    first, colon, _ = rest.partition(":")
    first = first.rstrip(_BLANKS)
    if rest.startswith("["):
        inner, bracket, after = rest[1:].partition("]")
        address = _ip(inner)
        if not (address and bracket) or after.lstrip(_BLANKS)[:1] not in ("", ":"):
            raise ValueError(f"{_shown(rest)} does not begin with an IPv6 address in brackets")
        return None, address
    if colon and rest.strip(":") and (address := _bare_ipv6(rest)):
        return None, address
    if first.lower() in ("", "http", "https"):
        return None, None
    if address := _ip(first):
        return None, address
    if colon and re.fullmatch("[0-9A-Fa-f]{1,4}", first):
        raise ValueError(f"{_shown(rest)}: an IPv6 address needs brackets if fields follow it")
    return _name_of_host(first), None


def _bare_ipv6(rest: str) -> str | None:
    """Return the IPv6 address that ``rest`` begins with, the longest where there are several."""
    parts = rest.split(":", _MOST_PARTS)
    for count in range(len(parts), 2, -1):
        text = ":".join(parts[:count]).rstrip(_BLANKS)
        # An empty field may as well follow a name such as "cafe".
        if (count == len(parts) or not text.endswith(":")) and (address := _ip(text)):
            return address
    return None


def _web_server(rest: str) -> tuple[str, str]:
    """Return the protocol and the internet domain, from the fifth field onwards."""
    protocol, internet_domain, *_ = [field.strip(_BLANKS) for field in f"{rest}:".split(":", 2)]
    if protocol.lower() not in ("http", "https"):
        return "http", ""
    # lonc does not use it, so a wrong one is nothing that a host should be left out for.
    known = len(internet_domain) and _NAME.fullmatch(internet_domain)
    return protocol.lower(), internet_domain if known else ""


def _name_of_host(text: str) -> str:
    if _NAME.fullmatch(text):
        return text
    address = _ip(text)
    if address is None:
        raise ValueError(f"{_shown(text)} is neither an address nor a possible host name")
    return address


def _normal(target: str) -> str:
    return target.lower().removesuffix(".")


def _ip(text: str) -> str | None:
    """Return an IP address in its normal form, so that two can be compared, else None."""
    if not _ADDRESS.fullmatch(text):
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"{_shown(text)} is not the address of one host")
    return str(address)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")
