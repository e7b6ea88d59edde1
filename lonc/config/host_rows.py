"""
Parses a line of the host table, which describes a host or a server that has the table.

A line is ``id:domain:role:hostname[:ip[:...]]`` (protocol, section 7). The fifth field determines
where lonc connects to:

* an IPv4 or IPv6 address: that address. Since colons separate the fields, an IPv6 address without
  brackets takes as many fields as can belong to it.
* empty, ``http`` or ``https``, or missing: the host name in the fourth field, which is
  looked up. The internet domain may follow ``http`` and ``https``.
* another host name: that name, instead of the one in the fourth field.

A line ``^server[:port][:http|https]`` names a server that has the cluster's host table; the port
is an extension of lonc. Spaces around fields and a CR before the newline are removed, and lines
that begin with ``#`` are comments.
"""

from __future__ import annotations

import ipaddress
import re
import sys

import attrs

from lonc.wire.printable import quoted

#: Maximum length of an id if the folder of the sockets is unknown: the path of a UNIX socket
#: has at most 107 bytes on Linux, and one of them is a slash.
ID_LIMIT = 106

#: The socket, in the folder of the sockets, over which one process hands over to the next.
TAKE_OVER_SOCKET = "lonc.new"

#: Names in the folder of the sockets that lonc uses itself.
RESERVED_IDS = frozenset({"delayed", "lonc.amp", "lonc.keys", TAKE_OVER_SOCKET})

BLANKS = " \t\r\f\v"
_ID = re.compile(r"[A-Za-z0-9_.-]+")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# A name whose last label has only digits is meant as an IPv4 address.
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?![0-9]+\.?\Z){_LABEL}\.?")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?")
_PORT = re.compile("[0-9]{1,5}")

_BROADCAST = "255.255.255.255"

#: Maximum number of colon-separated parts of an IPv6 address: eight groups and an empty one.
_MOST_PARTS = 9


@attrs.frozen
class Host:
    """
    A line of the table.

    :ivar id: the host id.
    :ivar domain: its LON-CAPA domain.
    :ivar role: ``library`` or ``access``.
    :ivar name: the host name to connect to, or an IPv4 address if the table has one instead.
    :ivar address: its IP address in normal form, or None if ``name`` has to be looked up.
    :ivar line: number of the line, from 1.
    :ivar protocol: the protocol of its web server, ``http`` or ``https``.
    :ivar internet_domain: the institution's internet domain, or empty.
    :ivar hostname: the fourth field, even if the fifth has another name.
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
        """Where to connect to: the address if there is one, else the name."""
        return self.address or self.name


@attrs.frozen
class TableServer:
    """
    A server that has the cluster's host table (protocol, section 7).

    :ivar name: its host name or IPv4 address.
    :ivar protocol: ``http`` or ``https``.
    :ivar port: None for the default port of the protocol.
    """

    name: str
    protocol: str = "http"
    port: int | None = None

    @property
    def url(self) -> str:
        """The URL of the table."""
        port = "" if self.port is None else f":{self.port}"
        return f"{self.protocol}://{self.name}{port}/adm/dns/hosts"


# Parsing a line: each of these raises ValueError with the reason why it is invalid.


def server_in(text: str) -> TableServer:
    """Parse a server after the ``^`` of a line; raises ValueError."""
    name, *more = [field.strip(BLANKS) for field in text.split(":", 4)]
    if more and not more[-1]:
        more.pop()
    port = int(more.pop(0)) if more and _PORT.fullmatch(more[0]) else None
    protocol = more.pop(0).lower() if more else "http"
    if more or protocol not in ("http", "https") or (port is not None and not 0 < port < 65536):
        raise ValueError(f"{quoted(text)} is not a table server (server[:port][:http or :https])")
    return TableServer(_name_of_host(name), protocol, port)


def host_in(line: str, number: int, max_id: int) -> Host:
    """
    Parse the line of a host.

    :param number: number of the line, from 1.
    :param max_id: maximum length of its id.
    :raises ValueError: the line is invalid; with the reason.
    """
    fields = [field.strip(BLANKS) for field in line.split(":", 4)]
    if len(fields) < 4:
        raise ValueError(f"{len(fields)} of at least 4 fields (id:domain:role:hostname)")
    host_id, domain, role, hostname, rest = fields if len(fields) == 5 else [*fields, ""]
    _check_id(host_id, max_id)
    if not _ID.fullmatch(domain):
        raise ValueError(f"{quoted(domain)} is not a domain")
    if role not in ("library", "access"):
        raise ValueError(f"the role {quoted(role)} is neither library nor access")
    hostname = _name_of_host(hostname)
    other_name, address = _where_to_connect(rest)
    name = other_name or hostname
    domain, role = sys.intern(domain), sys.intern(role)  # many rows have the same
    return Host(host_id, domain, role, name, address, number, *_web_server(rest), hostname)


def _check_id(host_id: str, max_id: int) -> None:
    if not _ID.fullmatch(host_id) or host_id in (".", ".."):
        raise ValueError(f"{quoted(host_id)} is not a host id")
    if host_id in RESERVED_IDS:
        raise ValueError(f"the host id {host_id} is reserved for one of lonc's own files")
    if len(host_id) > max_id:
        raise ValueError(
            f"the host id {quoted(host_id)} is too long: the path of its UNIX socket leaves "
            f"room for {max(max_id, 0)} characters"
        )


def _where_to_connect(rest: str) -> tuple[str | None, str | None]:
    """Return another name, or an address, or neither; ``rest`` is the fifth field and the rest."""
    first, colon, _ = rest.partition(":")
    first = first.rstrip(BLANKS)
    if rest.startswith("["):
        inner, bracket, after = rest[1:].partition("]")
        address = _ip(inner)
        if not (address and bracket) or after.lstrip(BLANKS)[:1] not in ("", ":"):
            raise ValueError(f"{quoted(rest)} does not begin with an IPv6 address in brackets")
        return None, address
    if colon and rest.strip(":") and (address := _bare_ipv6(rest)):
        return None, address
    if first.lower() in ("", "http", "https"):
        return None, None
    if address := _ip(first):
        return None, address
    if colon and re.fullmatch("[0-9A-Fa-f]{1,4}", first):
        raise ValueError(f"{quoted(rest)}: an IPv6 address needs brackets if fields follow it")
    return _name_of_host(first), None


def _bare_ipv6(rest: str) -> str | None:
    """Return the longest IPv6 address with which ``rest`` begins."""
    parts = rest.split(":", _MOST_PARTS)
    for count in range(len(parts), 2, -1):
        text = ":".join(parts[:count]).rstrip(BLANKS)
        # It could also be a name such as "cafe" with an empty field after it.
        if (count == len(parts) or not text.endswith(":")) and (address := _ip(text)):
            return address
    return None


def _web_server(rest: str) -> tuple[str, str]:
    """Return the protocol and the internet domain; ``rest`` is the fifth field and the rest."""
    protocol, internet_domain, *_ = [field.strip(BLANKS) for field in f"{rest}:".split(":", 2)]
    if protocol.lower() not in ("http", "https"):
        return "http", ""
    # lonc does not use it, so the line is accepted even if it is invalid.
    known = len(internet_domain) and _NAME.fullmatch(internet_domain)
    return protocol.lower(), internet_domain if known else ""


def _name_of_host(text: str) -> str:
    if _NAME.fullmatch(text):
        return text
    address = _ip(text)
    if address is None:
        raise ValueError(f"{quoted(text)} is neither an address nor a possible host name")
    return address


def _ip(text: str) -> str | None:
    """Return an IP address in normal form, or None if the text is not an address."""
    if not _ADDRESS.fullmatch(text):
        return None
    try:
        address = normal_address(text)
    except ValueError:
        return None
    if not is_of_one_host(address):
        raise ValueError(f"{quoted(text)} is not the address of one host")
    return address


def normal_address(text: str) -> str:
    """
    Return an IP address in normal form, for comparison.

    An IPv4-mapped IPv6 address becomes the IPv4 address, which it is for the kernel.

    :raises ValueError: it is not an address.
    """
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def is_of_one_host(address: str) -> bool:
    """
    Return whether an IP address in normal form can be the address of one host.

    For the kernel the unspecified address means this machine.
    """
    found = ipaddress.ip_address(address)
    return not (found.is_unspecified or found.is_multicast or address == _BROADCAST)
