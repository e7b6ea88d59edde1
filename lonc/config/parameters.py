"""
The settings: name, type, default and the reason for the default.

Each setting is a field of :class:`Settings` with this metadata. Parsing, the text of ``--help``
and ``docs/settings.rst`` are derived from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import attrs

from lonc.config.hosts import RESERVED_IDS
from lonc.config.kinds import (
    ENDPOINT,
    FOLDER,
    GROUP,
    HOST_ID,
    HOST_IDS,
    HOST_NAMES,
    MANAGING_NAMES,
    MODE,
    NAME_OF_FILE,
    OPTIONAL_ENDPOINT,
    OPTIONAL_FILE,
    OPTIONAL_FOLDER,
    SWITCH,
    Kind,
    one_of,
    seconds,
    size,
    whole,
)
from lonc.transport.endpoint import Endpoint, quoted

#: Maximum length of a UNIX socket's path in bytes: Linux allows 108 with the final NUL.
SOCKET_PATH_LIMIT = 107

#: Name of the management socket in ``lonSockDir``.
MANAGEMENT_SOCKET = "lonc.amp"


def _setting(
    variable: str,
    default: str | None,
    kind: Kind,
    what: str,
    why: str,
    made: Callable[[Settings], object] | None = None,
) -> Any:
    """
    Return a field for a setting; see :class:`lonc.config.settings.Parameter`.

    :param made: computes the default from the other settings.
    """
    metadata = {"variable": variable, "default": default, "kind": kind, "what": what, "why": why}
    if default is None:
        return attrs.field(metadata=metadata)
    if made is not None:
        return attrs.field(default=attrs.Factory(made, takes_self=True), metadata=metadata)
    return attrs.field(default=kind.parse(default), metadata=metadata)


def _beside_the_sockets(settings: Settings) -> str:
    return f"unix:{quoted(settings.socket_path(MANAGEMENT_SOCKET))}:mode=600"


@attrs.frozen
class _Path:
    """The path of a file or folder: its name, in the folder that another attribute names."""

    folder: str
    name: str

    def __get__(self, settings: Settings, _: type[Settings]) -> str:
        folder: str = getattr(settings, self.folder)
        return os.path.join(folder, self.name)


@attrs.frozen(kw_only=True)
class Settings:
    """
    All settings, typed and checked: times in seconds, sizes in bytes, paths as text.

    ``warnings`` has a line for each part of the file that has no effect. ``written`` maps the name
    of each setting in the file to its text and its source: ``default``, an option, or file and
    line.
    """

    config_file: str
    # fmt: off
    host_id: str = _setting(
        "lonHostID", None, HOST_ID,
        "This machine's own host id",
        "It cannot be derived from anything else, and session keys are made from it.",
    )
    tab_dir: str = _setting(
        "lonTabDir", None, FOLDER,
        "Folder of hosts.tab",
        "The other programs read the same table there.",
    )
    sock_dir: str = _setting(
        "lonSockDir", None, FOLDER,
        "Folder of the UNIX sockets and the delayed requests",
        "Clients look for their sockets there.",
    )
    daemons_dir: str = _setting(
        "lonDaemons", None, FOLDER,
        "Folder whose subfolder logs contains the log files and the pid file",
        "The programs that read the logs look there.",
    )
    doc_root: str = _setting(
        "lonDocRoot", None, FOLDER,
        "Folder whose subfolder lon-status contains the status file",
        "The web server shows the status file from there.",
    )
    lond_port: int = _setting(
        "londPort", "5663", whole("port", 1, 65535),
        "TCP port of every lond",
        "The port that the lond of a LON-CAPA machine listens on.",
    )
    max_connections: int = _setting(
        "loncMaxConnections", "10", whole("connections", 1, 1000),
        "Maximum number of connections to one machine, for all of its host ids",
        "A lond runs a process for each connection, and ten slow requests at once are rare.",
    )
    retries: int = _setting(
        "loncRetries", "2", whole("failures", 1, 1000),
        "Consecutive failures before a host is DEAD",
        "One failure may be chance. After two, it is better to tell clients at once that they "
        "cannot be served than to let each of them wait for a time-out.",
    )
    idle_timeout: float = _setting(
        "loncIdleTimeout", "3600", seconds(0.01, 2592000),
        "Time without a waiting request before idle connections are closed, one per second",
        "An idle lond process costs memory on the other machine; an hour bridges the breaks of "
        "a teaching day, so that the next request finds a connection.",
    )
    connect_timeout: float = _setting(
        "loncConnectTimeout", "5", seconds(0.01, 3600),
        "Time limit for looking a host up and connecting to it",
        "Long enough for one lost packet to be retransmitted, and short enough that a host "
        "that is gone is noticed while its clients still wait.",
    )
    keepalive_time: int = _setting(
        "loncKeepaliveTime", "60", whole("seconds", 1, 32767),
        "Silence on a connection to a lond after which the kernel sends keep-alive probes",
        "A firewall silently drops a connection that has been quiet for some minutes: a probe "
        "a minute keeps it open.",
    )
    keepalive_interval: int = _setting(
        "loncKeepaliveInterval", "15", whole("seconds", 1, 32767),
        "Time between unanswered keep-alive probes",
        "A route that is gone for some seconds is no reason to close a connection.",
    )
    keepalive_probes: int = _setting(
        "loncKeepaliveProbes", "4", whole("questions", 1, 127),
        "Unanswered keep-alive probes after which the connection is closed",
        "A dead connection is closed a minute after the first probe, two minutes after the "
        "last traffic, and so before most requests run into it.",
    )
    allow_insecure: bool = _setting(
        "loncAllowInsecure", "1", SWITCH,
        "Whether to accept connections without TLS to londs on other machines",
        "Londs of the first releases support nothing else, and a cluster may have some.",
    )
    certificate_directory: str | None = _setting(
        "lonCertificateDirectory", "none", OPTIONAL_FOLDER,
        "Folder of the certificates",
        "The other programs have theirs there.",
    )
    certificate_authority: str | None = _setting(
        "lonnetCertificateAuthority", "none", NAME_OF_FILE,
        "File with the certificate of the cluster's authority, in PEM format",
        "A machine without certificates works without TLS.",
    )
    certificate: str | None = _setting(
        "lonnetCertificate", "none", NAME_OF_FILE,
        "File with this machine's own certificate, in PEM format",
        "A machine without certificates works without TLS.",
    )
    private_key: str | None = _setting(
        "lonnetPrivateKey", "none", NAME_OF_FILE,
        "File with the key of this machine's own certificate, in PEM format",
        "A machine without certificates works without TLS.",
    )
    certificate_name_check: bool = _setting(
        "loncCertificateNameCheck", "1", SWITCH,
        "Whether a lond's certificate must be for its host name",
        "Without this check, any machine with a certificate of the cluster can impersonate any "
        "other.",
    )
    name_lifetime: float = _setting(
        "loncNameLifetime", "300", seconds(1, 86400),
        "Time for which the addresses of a host name are cached",
        "The system does not report how long an answer is valid. A host that moves is found "
        "within five minutes, and name servers are not queried more often than necessary.",
    )
    name_grace: float = _setting(
        "loncNameGrace", "3600", seconds(0, 2592000),
        "Time for which the last addresses of a name stay in use while it cannot be resolved",
        "Trouble with a name server says nothing about the host. Hosts rarely move, and within "
        "an hour somebody has fixed the name server.",
    )
    request_timeout: float = _setting(
        "loncRequestTimeout", "60", seconds(0.01, 86400),
        "Time from a request's first byte to the last of its reply, and for a whole handshake",
        "The slowest ordinary requests, dumps of large files, take tens of seconds on a busy "
        "lond.",
    )
    slow_answer: float = _setting(
        "loncSlowAnswer", "5", seconds(0.01, 86400),
        "Time above which the slowest answers of a host are a problem",
        "A page of a course needs several answers, and its user stops waiting after some "
        "seconds. To be a problem, the answers must also be four times slower than usual.",
    )
    queue_timeout: float = _setting(
        "loncQueueTimeout", "60", seconds(0.01, 86400),
        "Time limit for a request that waits for a connection",
        "The user of a browser has given up by then.",
    )
    queue_limit: int = _setting(
        "loncQueueLimit", "10000", whole("requests", 1, 1000000),
        "Maximum number of requests waiting for one host",
        "A request further back in the queue would time out before it could be sent.",
    )
    max_line: int = _setting(
        "loncMaxLine", "16 MiB", size("1 KiB", "1 GiB"),
        "Maximum length of a request or a reply",
        "Far more than the largest dump of a course, and small enough that one client cannot "
        "use up the memory.",
    )
    max_clients: int = _setting(
        "loncMaxClients", "4096", whole("clients", 1, 1000000),
        "Maximum number of open client connections, for all hosts together",
        "The workers of a web server, each using several hosts, stay well below it; a program "
        "that forgets to close its connections does not.",
    )
    socket_names: str = _setting(
        "loncSocketNames", "id", one_of("id", "hostname", "both"),
        "What the UNIX sockets are named after: a host's id, its host name, or both",
        "LON-CAPA releases of loncnew's time look for the ids; later ones look for host names, "
        "and name the id in each request.",
    )
    socket_mode: int = _setting(
        "loncSocketMode", "0660", MODE,
        "Mode of the UNIX sockets",
        "Anyone who can open a socket can send any request to the cluster, so it is not for "
        "every local user.",
    )
    socket_group: int | None = _setting(
        "loncSocketGroup", "none", GROUP,
        "Group of the UNIX sockets; none leaves them with lonc's own group",
        "The web server and lonc usually run as the same user, and then no group is needed.",
    )
    management: str = _setting(
        "loncManagement", "unix:<lonSockDir>/lonc.amp:mode=600", ENDPOINT,
        "Where the AMP management port listens",
        "Anyone who reaches this port can see everything in lonc, or stop it, so by default "
        "that is only lonc's own user and root.",
        made=_beside_the_sockets,
    )
    management_group: int | None = _setting(
        "loncManagementGroup", "none", GROUP,
        "Group that may see over the management socket; none for nobody",
        "Which hosts are in trouble, and which users' programs are connected, is private "
        "unless an administrator decides otherwise.",
    )
    management_tls: str | None = _setting(
        "loncManagementTLS", "none", OPTIONAL_ENDPOINT,
        "Where other machines of the cluster manage lonc over TLS, such as lonctls:8664",
        "Most servers are not managed from other machines, and every open port is an "
        "additional risk.",
    )
    management_names: tuple[tuple[str, bool], ...] = _setting(
        "loncManagementNames", "none", MANAGING_NAMES,
        "Certificate names that may see over lonctls:, and may steer if followed by :steer",
        "Every server of the cluster has a certificate of its authority; that alone does not "
        "justify access.",
    )
    http: str | None = _setting(
        "loncHTTP", "none", OPTIONAL_ENDPOINT,
        "Where the status page and the metrics are served over HTTP",
        "Anyone who reaches it can see the state of each host; most servers have their own "
        "monitoring, and every open port is an additional risk.",
    )
    http_names: tuple[str, ...] = _setting(
        "loncHTTPNames", "none", HOST_NAMES,
        "Names, besides this machine's own, under which the page may be requested",
        "On a loopback address, a request for an unknown name comes from a web page whose own "
        "name was made to resolve there (DNS rebinding) to read what it must not. On other "
        "addresses every name is accepted unless some are listed.",
    )
    watch: tuple[str, ...] = _setting(
        "loncWatch", "none", HOST_IDS,
        "Hosts that must not be DEAD; none means the own host id",
        "A DEAD host is usually a matter for that host's administrator; the own lond is a "
        "matter for this machine's.",
    )
    log_format: str = _setting(
        "loncLogFormat", "seed", one_of("seed", "json", "text"),
        "Format of lonc.log",
        "The web page that shows lonc.log expects the format that it has always had.",
    )
    write_timeout: float = _setting(
        "loncWriteTimeout", "60", seconds(0.01, 86400),
        "Time limit for a client to read a byte of its answer, or to complete a line it began",
        "A client on the same machine needs far less; a client that hangs would hold memory "
        "and a descriptor forever.",
    )
    max_unread: int = _setting(
        "loncMaxUnread", "48 MiB", size("1 KiB", "64 GiB"),
        "Memory for answers that clients have not read, for all clients together",
        "Room for three answers of the maximum length. When it is used up, the client with the "
        "most unread data, of the program that leaves the most unread, is closed.",
    )
    max_request_memory: int = _setting(
        "loncMaxRequestMemory", "256 MiB", size("1 KiB", "64 GiB"),
        "Memory for requests of all clients together, and the same again for incomplete answers",
        "Room for sixteen requests of the maximum length, or thousands of large ones. When it "
        "is used up, requests whose client has gone end first, then the client with the most "
        "gets con_lost; of the answers, the longest loses its connection. The first 8 KiB of "
        "each are not counted.",
    )
    drain_timeout: float = _setting(
        "loncDrainTimeout", "5", seconds(0, 3600),
        "Time that requests in flight are given at INT and TERM",
        "Nearly every request is answered by then, and a machine that shuts down does not wait "
        "much longer.",
    )
    disk_timeout: float = _setting(
        "loncDiskTimeout", "10", seconds(0.01, 3600),
        "Time limit for one read, sync or move of a delayed request",
        "A disk that is slower than that is faulty, or a network file system whose server is "
        "gone.",
    )
    delayed_key_file: str | None = _setting(
        "loncDelayedKeyFile", "none", OPTIONAL_FILE,
        "File with the key that seals delayed requests; none leaves them in the clear",
        "lonnet and loncnew do not know sealed files, and requests cannot be read without the "
        "key, so sealing is a decision for the administrator.",
    )
    table_interval: float = _setting(
        "loncTableInterval", "43200", seconds(60, 2592000),
        "Time between two fetches of the cluster's host table",
        "Hosts come and go a few times a year, and twice a day is soon enough for a new one. "
        "The interval is varied by a tenth, so that a cluster's machines do not all ask at "
        "once.",
    )
    table_timeout: float = _setting(
        "loncTableTimeout", "30", seconds(0.01, 3600),
        "Time limit for one server to send the cluster's host table, look-up and connect included",
        "A table has about 100 KB, and only the request to the next server waits for it.",
    )
    table_limit: int = _setting(
        "loncTableLimit", "4 MiB", size("1 KiB", "16 MiB"),
        "Maximum length of the cluster's host table",
        "Room for about 50,000 hosts; anything longer is not a host table.",
    )
    table_growth: int = _setting(
        "loncTableGrowth", "4", whole("times", 1, 1000),
        "Factor by which the number of hosts may grow from one table to the next",
        "A cluster that doubles within half a day would be unusual, and one that becomes many "
        "times as large is a mistake. A hundred more hosts are always allowed, and the first "
        "table is not compared.",
    )
    # fmt: on
    warnings: tuple[str, ...] = ()
    written: Mapping[str, tuple[str, str]] = attrs.field(factory=dict, eq=False, repr=False)

    # Where files are (protocol, section 7); the folders of the first column are settings, or
    # one of the rows above.
    hosts_file = _Path("tab_dir", "hosts.tab")
    #: The last host table fetched from the cluster.
    fetched_hosts_file = _Path("tab_dir", "dns_hosts.tab")
    logs_dir = _Path("daemons_dir", "logs")
    #: Where a process records for the next one which hosts are DEAD.
    health_file = _Path("logs_dir", "lonc.health")
    pid_file = _Path("logs_dir", "lonc.pid")
    log_file = _Path("logs_dir", "lonc.log")
    #: The log of delayed requests, to which other programs write too.
    perm_log_file = _Path("logs_dir", "lonnet.perm.log")
    status_dir = _Path("doc_root", "lon-status")
    status_file = _Path("status_dir", "loncstatus.txt")
    #: The folder of the delayed requests (section 6), those that are sealed, and those set aside.
    delayed_dir = _Path("sock_dir", "delayed")
    sealed_dir = _Path("delayed_dir", "sealed")
    kept_dir = _Path("delayed_dir", "kept")
    #: The folder of the short-lived key files (section 9).
    key_dir = _Path("sock_dir", "lonc.keys")

    def socket_path(self, name: str) -> str:
        """Return the path of the UNIX socket of the host with that id or host name."""
        return os.path.join(self.sock_dir, name)

    @cached_property
    def reserved_names(self) -> frozenset[str]:
        """Names in the folder of the sockets that are reserved for lonc itself."""
        described = (self.management, self.http)
        paths = [Endpoint.parse(each).unix_path for each in described if each is not None]
        folder = os.path.normpath(self.sock_dir)
        own = [os.path.split(os.path.normpath(path)) for path in paths if path is not None]
        return RESERVED_IDS.union(name for where, name in own if where == folder)

    @property
    def max_host_id(self) -> int:
        """Maximum length of a host id in bytes, so that the path of its socket fits."""
        return SOCKET_PATH_LIMIT - len(os.fsencode(self.socket_path("")))
