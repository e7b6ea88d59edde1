"""
The table of settings: what each is called, what may be written, its default and the reason for it.

PARAMETERS drives the parsing, the text of ``--help`` and the check of the documentation. A
further setting is one more row here and one more attribute of ``lonc.config.settings.Settings``.
"""

from __future__ import annotations

import grp
import re
from collections.abc import Callable
from typing import Any

import attrs


class SettingsError(Exception):
    """The settings cannot be used. The message is one line for a person, and says where."""


# Kinds of values


@attrs.frozen
class Kind:
    """
    A kind of value.

    :ivar unit: what it counts or names, for people.
    :ivar allowed: what may be written, worded to follow "is not".
    :ivar parse: text to value; raises ValueError for whatever ``allowed`` does not name.
    """

    unit: str
    allowed: str
    parse: Callable[[str], Any]


def _match(pattern: str, text: str) -> re.Match[str]:
    match = re.fullmatch(pattern, text, re.ASCII | re.IGNORECASE)
    if match is None:
        raise ValueError(text)
    return match


def _check(allowed: bool) -> None:
    if not allowed:
        raise ValueError


def whole(unit: str, least: int, most: int) -> Kind:
    """Return the kind of a whole number of ``unit``, both ends included."""

    def parse(text: str) -> int:
        value = int(_match("[0-9]{1,18}", text)[0])
        _check(least <= value <= most)
        return value

    return Kind(unit, f"a whole number from {least} to {most}", parse)


def seconds(least: float, most: float) -> Kind:
    """Return the kind of a time in seconds, both ends included; parts of a second may be given."""

    def parse(text: str) -> float:
        value = float(_match(r"[0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18}", text)[0])
        _check(least <= value <= most)
        return value

    return Kind("seconds", f"a number from {least} to {most}", parse)


def size(least: str, most: str) -> Kind:
    """Return the kind of a number of bytes, both ends included; KiB, MiB or GiB may follow."""

    def in_bytes(text: str) -> int:
        match = _match(r"([0-9]{1,18})[ \t]*(?:([KMG])(?:iB)?)?", text)
        return int(match[1]) << 10 * " KMG".index((match[2] or " ").upper())

    def parse(text: str) -> int:
        value = in_bytes(text)
        _check(in_bytes(least) <= value <= in_bytes(most))
        return value

    return Kind("bytes", f"a size from {least} to {most}", parse)


def _mode(text: str) -> int:
    value = int(_match("(?:0o?)?([0-7]{3})", text)[1], 8)
    _check(value & 0o600 == 0o600)  # Without it lonc's own user could not connect.
    return value


def _group(text: str) -> int | None:
    if text == "none":
        return None
    if re.fullmatch("[0-9]{1,10}", text):
        _check(int(text) < 2**32 - 1)  # The last one means "leave it" to chown.
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ValueError(text) from None


def _folder(text: str) -> str:
    # What cannot be printed could not be named in a log line either.
    _check(text.startswith("/") and text.isprintable())
    return text.rstrip("/") or "/"


def _optional_file(text: str) -> str | None:
    if text == "none":
        return None
    _check(text.startswith("/") and text.isprintable())
    return text


def _name_of_file(text: str) -> str | None:
    _check(bool(text) and text.isprintable())
    return None if text == "none" else text


def _switch(text: str) -> bool:
    return _match("[01]", text)[0] == "1"


def _endpoint(text: str) -> str:
    _check(text.isprintable())
    return _match("[a-z][a-z0-9]*:.+", text)[0]


def _host_id(text: str) -> str:
    _check(text not in (".", ".."))
    return _match("[a-z0-9_.-]+", text)[0]


def _optional_endpoint(text: str) -> str | None:
    return None if text == "none" else _endpoint(text)


def one_of(*words: str) -> Kind:
    """Return the kind of a choice between ``words``."""

    def parse(text: str) -> str:
        _check(text in words)
        return text

    return Kind("word", "one of " + ", ".join(words), parse)


def _managing_names(text: str) -> tuple[tuple[str, bool], ...]:
    """Return each name in small letters, and whether it may steer."""
    if text == "none":
        return ()
    found = (_match(r"([a-z0-9-]+(?:\.[a-z0-9-]+)*)(:steer)?", each) for each in text.split())
    return tuple((each[1].lower(), each[2] is not None) for each in found)


def _host_ids(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(_host_id(each) for each in text.split())


HOST_ID = Kind("host id", "a host id (letters, digits, _, - and .)", _host_id)
HOST_IDS = Kind("host ids", "host ids with blanks between them, or none", _host_ids)
MANAGING_NAMES = Kind(
    "host names",
    "host names with blanks between them, :steer behind those that may steer, or none",
    _managing_names,
)
FOLDER = Kind("folder", "an absolute path in printable characters", _folder)
OPTIONAL_FILE = Kind("file", "an absolute path in printable characters, or none", _optional_file)
OPTIONAL_FOLDER = attrs.evolve(OPTIONAL_FILE, unit="folder")
NAME_OF_FILE = Kind("file", "a name or a path in printable characters, or none", _name_of_file)
SWITCH = Kind("switch", "1 (on) or 0 (off)", _switch)
MODE = Kind("octal mode", "an octal mode from 0600 to 0777 with read and write for the user", _mode)
GROUP = Kind("group", "the name or number of a group of this machine, or none", _group)
ENDPOINT = Kind(
    "endpoint", "a Twisted endpoint description such as tcp:7000:interface=127.0.0.1", _endpoint
)

OPTIONAL_ENDPOINT = Kind(
    "endpoint", "a Twisted endpoint description such as tcp:8663, or none", _optional_endpoint
)


# The table


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
            raise SettingsError(f"{where}: it takes one value, in quotes if that has blanks")
        try:
            return self.kind.parse(text.strip())
        except ValueError:
            short = text if len(text) <= 80 else text[:77] + "..."
            raise SettingsError(f"{where}: {short!r} is not {self.kind.allowed}") from None


def _required(attribute: str, variable: str, kind: Kind, what: str, why: str) -> Parameter:
    return Parameter(attribute, None, variable, None, kind, what, why)


def _optional(
    option: str, variable: str, default: str, kind: Kind, what: str, why: str
) -> Parameter:
    return Parameter(option.replace("-", "_"), option, variable, default, kind, what, why)


# fmt: off
#: Every setting; protocol, section 7, has the names that were there before lonc.
PARAMETERS: tuple[Parameter, ...] = (
    _required("host_id", "lonHostID", HOST_ID,
              "This machine's own host id",
              "Nothing can stand in for it: session keys are made from it."),
    _required("tab_dir", "lonTabDir", FOLDER,
              "Folder of hosts.tab",
              "The other programs read the same table there."),
    _required("sock_dir", "lonSockDir", FOLDER,
              "Folder of the UNIX sockets and the delayed requests",
              "Clients look for their sockets there."),
    _required("daemons_dir", "lonDaemons", FOLDER,
              "Folder whose subfolder logs takes the log files and the pid file",
              "The programs that read the logs look there."),
    _required("doc_root", "lonDocRoot", FOLDER,
              "Folder whose subfolder lon-status takes the status file",
              "The web server shows the status file from there."),
    _optional("lond-port", "londPort", "5663", whole("port", 1, 65535),
              "TCP port of every lond",
              "The port that the lond of a LON-CAPA machine listens on."),
    _optional("max-connections", "loncMaxConnections", "10", whole("connections", 1, 1000),
              "Connections to one machine at most, for all of its host ids",
              "A lond runs a process for each connection, and ten slow requests at once are rare."),
    _optional("retries", "loncRetries", "2", whole("failures", 1, 1000),
              "Failures in a row before a host is DEAD",
              "One failure may be chance. After two, clients had better hear at once that they "
              "cannot be served than wait for a time limit each."),
    _optional("idle-timeout", "loncIdleTimeout", "3600", seconds(0.01, 2592000),
              "Time without a waiting request before idle connections close, one each second",
              "A lond's process costs memory while nobody asks; an hour bridges the pauses of a "
              "teaching day, so that the next request finds a connection."),
    _optional("connect-timeout", "loncConnectTimeout", "5", seconds(0.01, 3600),
              "Time to look a host up and connect to it",
              "Long enough for one lost packet to be sent again, and short enough that a host "
              "that is gone is noticed while its clients still wait."),
    _optional("keepalive-time", "loncKeepaliveTime", "60", whole("seconds", 1, 32767),
              "Silence on a connection to a lond after which the kernel asks whether it is there",
              "A firewall forgets a connection that is silent for some minutes, without a word to "
              "either side: a question a minute keeps it in mind."),
    _optional("keepalive-interval", "loncKeepaliveInterval", "15", whole("seconds", 1, 32767),
              "Time between two such questions when there is no answer",
              "A route that is gone for some seconds is nothing to end a connection for."),
    _optional("keepalive-probes", "loncKeepaliveProbes", "4", whole("questions", 1, 127),
              "Such questions without an answer after which the connection is given up",
              "A minute of silence in answer to questions, and two in all, before a request runs "
              "into a connection that is dead."),
    _optional("allow-insecure", "loncAllowInsecure", "1", SWITCH,
              "Whether a connection without TLS will do, to a lond on another machine",
              "Londs of the first releases know nothing else, and a cluster may have some."),
    _optional("certificate-directory", "lonCertificateDirectory", "none", OPTIONAL_FOLDER,
              "Folder of the certificates",
              "The other programs have theirs there."),
    _optional("certificate-authority", "lonnetCertificateAuthority", "none", NAME_OF_FILE,
              "File with the certificate of the cluster's authority, in PEM form",
              "A machine without certificates goes on without TLS."),
    _optional("certificate", "lonnetCertificate", "none", NAME_OF_FILE,
              "File with this machine's own certificate, in PEM form",
              "A machine without certificates goes on without TLS."),
    _optional("private-key", "lonnetPrivateKey", "none", NAME_OF_FILE,
              "File with the key of this machine's own certificate, in PEM form",
              "A machine without certificates goes on without TLS."),
    _optional("certificate-name-check", "loncCertificateNameCheck", "1", SWITCH,
              "Whether a lond's certificate has to be for its host name",
              "Without it any machine with a certificate of the cluster can pass for any other."),
    _optional("name-lifetime", "loncNameLifetime", "300", seconds(1, 86400),
              "Time for which the addresses of a host's name are kept",
              "The system does not tell for how long an answer holds. A host that moves is found "
              "within five minutes, and a name server is asked no more than it has to be."),
    _optional("name-threads", "loncNameThreads", "128", whole("names", 1, 1024),
              "Host names that are looked up at a time, each in a thread",
              "A name server that hangs holds each for tens of seconds; those who ask for other "
              "names shall not wait behind them."),
    _optional("request-timeout", "loncRequestTimeout", "60", seconds(0.01, 86400),
              "Time from a request's first byte to its reply's last, and for a whole handshake",
              "The slowest ordinary requests, dumps of large files, take tens of seconds on a "
              "busy lond."),
    _optional("queue-timeout", "loncQueueTimeout", "60", seconds(0.01, 86400),
              "Time that a request waits for a connection",
              "A browser's user has given up by then."),
    _optional("queue-limit", "loncQueueLimit", "10000", whole("requests", 1, 1000000),
              "Requests that wait for one host at most",
              "What lies further back would run out of time before its turn came."),
    _optional("max-line", "loncMaxLine", "16 MiB", size("1 KiB", "1 GiB"),
              "Length of one request or one reply at most",
              "Far more than a course's largest dump, and small enough that one client cannot "
              "use up the memory."),
    _optional("max-clients", "loncMaxClients", "4096", whole("clients", 1, 1000000),
              "Open client connections at most, for all hosts together",
              "A web server's workers, each with several hosts in use, stay well under it; a "
              "program that forgets to close its connections does not."),
    _optional("socket-names", "loncSocketNames", "id", one_of("id", "hostname", "both"),
              "What the UNIX sockets are called: a host's id, its host name, or both",
              "A LON-CAPA release of lonc's own age looks for the ids; later ones look for host "
              "names, and say with each request which id they mean."),
    _optional("socket-mode", "loncSocketMode", "0660", MODE,
              "Mode of the UNIX sockets",
              "Whoever opens a socket can ask anything of the cluster, so it is not for every "
              "local user."),
    _optional("socket-group", "loncSocketGroup", "none", GROUP,
              "Group of the UNIX sockets; none leaves them with lonc's own",
              "Web server and lonc run as the same user as a rule, and then no group is needed."),
    _optional("management", "loncManagement", "unix:<lonSockDir>/lonc.amp:mode=600", ENDPOINT,
              "Where the AMP management port listens",
              "Whoever reaches this port can see all of lonc, or stop it: its own user and root, "
              "nobody else."),
    _optional("management-group", "loncManagementGroup", "none", GROUP,
              "Group that may see over the management socket; none for nobody",
              "Which hosts are unwell, and which users' programs are connected, is nobody else's "
              "business unless somebody says so."),
    _optional("management-tls", "loncManagementTLS", "none", OPTIONAL_ENDPOINT,
              "Where other machines of the cluster manage lonc over TLS, such as lonctls:8664",
              "Nobody has to reach it from another machine, and an open port that nobody asked for "
              "is one too many."),
    _optional("management-names", "loncManagementNames", "none", MANAGING_NAMES,
              "Whose certificates may see over lonctls:, and with :steer behind the name steer",
              "Every server of the cluster has a certificate of its authority; that alone is no "
              "reason to let it in."),
    _optional("http", "loncHTTP", "none", OPTIONAL_ENDPOINT,
              "Where the status page and the metrics can be had over HTTP",
              "Whoever reaches it can see how each host is; most servers have monitoring of their "
              "own, and an open port that nobody asked for is one too many."),
    _optional("watch", "loncWatch", "none", HOST_IDS,
              "Hosts that must not be DEAD; none stands for the own host id",
              "A host that is DEAD is usually that host's trouble; the own lond is this "
              "machine's."),
    _optional("log-format", "loncLogFormat", "seed", one_of("seed", "json", "text"),
              "Form of lonc.log",
              "The web page that shows lonc.log expects the form it has always had."),
    _optional("write-timeout", "loncWriteTimeout", "60", seconds(0.01, 86400),
              "Time for a client to take a byte of its answer, or to end a line that it began",
              "A client on the same machine needs far less; one that is stuck would hold memory "
              "and a descriptor for ever."),
    _optional("max-unread", "loncMaxUnread", "48 MiB", size("1 KiB", "64 GiB"),
              "Answers in memory that clients do not read, at most, for all clients together",
              "Room for three answers of the greatest length. Past it, the client that has kept "
              "its answer waiting longest is closed."),
    _optional("max-request-memory", "loncMaxRequestMemory", "256 MiB", size("1 KiB", "64 GiB"),
              "Requests in memory at most, begun and waiting, for all clients together",
              "Room for sixteen requests of the greatest length, or thousands of large ones. Past "
              "it, the client that has sent most of what is not under way gets con_lost. The first "
              "8 KiB of each client are not counted."),
    _optional("drain-timeout", "loncDrainTimeout", "5", seconds(0, 3600),
              "Time that requests in flight get at INT and TERM",
              "Nearly every request is answered by then, and a machine that shuts down does not "
              "wait much longer."),
    _optional("disk-timeout", "loncDiskTimeout", "10", seconds(0.01, 3600),
              "Time for one read, sync or move of a delayed request",
              "A disk that is slower than that has a fault, or is a network folder whose server "
              "is gone."),
    _optional("delayed-key-file", "loncDelayedKeyFile", "none", OPTIONAL_FILE,
              "File with the key that seals delayed requests; none leaves them in the clear",
              "lonnet and lonc's forerunner know nothing of sealed files: whoever sets a key takes "
              "care not to lose it."),
    _optional("table-interval", "loncTableInterval", "43200", seconds(60, 2592000),
              "Time between two looks at the cluster's host table",
              "Hosts come and go a few times a year, and twice a day is soon enough for a new one. "
              "A tenth more or less keeps a cluster's machines from asking all at once."),
    _optional("table-timeout", "loncTableTimeout", "30", seconds(0.01, 3600),
              "Time for one server to send the cluster's host table, look-up and connect included",
              "A table has some 100 KB, and nothing waits for it but the next server's turn."),
    _optional("table-limit", "loncTableLimit", "4 MiB", size("1 KiB", "16 MiB"),
              "Length of the cluster's host table at most",
              "Room for some 50,000 hosts; what is longer is no host table."),
    _optional("table-lines", "loncTableLines", "100000", whole("lines", 1, 1000000),
              "Lines of the cluster's host table at most",
              "Two for each of 50,000 hosts, as comments are usual."),
    _optional("table-line-length", "loncTableLineLength", "1024",
              whole("characters", 64, 65536),
              "Length of a line of the cluster's host table at most; a longer one is left out",
              "Names have 253 characters at most, and a row with two long ones is shorter."),
    _optional("table-hosts", "loncTableHosts", "50000", whole("hosts", 1, 500000),
              "Hosts of the cluster's host table at most",
              "Each host costs memory and a socket. No known cluster has a tenth of it."),
    _optional("table-growth", "loncTableGrowth", "4", whole("times", 1, 1000),
              "How many times as many hosts as the last table the next one may have",
              "A cluster that doubles within half a day is news, and one that becomes many times "
              "as large is somebody's mistake. A hundred more are always allowed, and the first "
              "table is compared with none."),
)
# fmt: on


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
    ]
