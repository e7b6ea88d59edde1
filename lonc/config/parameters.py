"""
The table of settings: name, type, default and the reason for the default.

Each is a field of :class:`Settings`, with all of that beside it: the parsing, the text of
``--help`` and the check of the documentation come from there. A further setting is one more field.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import attrs

from lonc.config.endpoint import Endpoint, quoted
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

#: Bytes of a UNIX socket's path at most: Linux has room for 108 with the final NUL.
SOCKET_PATH_LIMIT = 107

#: The management port's own name in ``lonSockDir``.
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

    :param made: makes the default of the other settings.
    """
    metadata = {"variable": variable, "default": default, "kind": kind, "what": what, "why": why}
    if default is None:
        return attrs.field(metadata=metadata)
    if made is not None:
        return attrs.field(default=attrs.Factory(made, takes_self=True), metadata=metadata)
    return attrs.field(default=kind.parse(default), metadata=metadata)


def _beside_the_sockets(settings: Settings) -> str:
    return f"unix:{quoted(settings.socket_path(MANAGEMENT_SOCKET))}:mode=600"


@attrs.frozen(kw_only=True)
class Settings:
    """
    All settings, typed and checked: times in seconds, sizes in bytes, paths as text.

    ``warnings`` holds a line for a person for each thing in the file that does nothing, ``written``
    for each setting's name in the file what was written, and where: ``default``, an option, or file
    and line.
    """

    config_file: str
    # fmt: off
    host_id: str = _setting(
        "lonHostID", None, HOST_ID,
        "This machine's own host id",
        "Nothing can stand in for it: session keys are made from it.",
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
        "Folder whose subfolder logs takes the log files and the pid file",
        "The programs that read the logs look there.",
    )
    doc_root: str = _setting(
        "lonDocRoot", None, FOLDER,
        "Folder whose subfolder lon-status takes the status file",
        "The web server shows the status file from there.",
    )
    lond_port: int = _setting(
        "londPort", "5663", whole("port", 1, 65535),
        "TCP port of every lond",
        "The port that the lond of a LON-CAPA machine listens on.",
    )
    max_connections: int = _setting(
        "loncMaxConnections", "10", whole("connections", 1, 1000),
        "Connections to one machine at most, for all of its host ids",
        "A lond runs a process for each connection, and ten slow requests at once are rare.",
    )
    retries: int = _setting(
        "loncRetries", "2", whole("failures", 1, 1000),
        "Failures in a row before a host is DEAD",
        "One failure may be chance. After two, clients had better hear at once that they "
        "cannot be served than wait for a time limit each.",
    )
    idle_timeout: float = _setting(
        "loncIdleTimeout", "3600", seconds(0.01, 2592000),
        "Time without a waiting request before idle connections close, one each second",
        "A lond's process costs memory while nobody asks; an hour bridges the pauses of a "
        "teaching day, so that the next request finds a connection.",
    )
    connect_timeout: float = _setting(
        "loncConnectTimeout", "5", seconds(0.01, 3600),
        "Time to look a host up and connect to it",
        "Long enough for one lost packet to be sent again, and short enough that a host "
        "that is gone is noticed while its clients still wait.",
    )
    keepalive_time: int = _setting(
        "loncKeepaliveTime", "60", whole("seconds", 1, 32767),
        "Silence on a connection to a lond after which the kernel asks whether it is there",
        "A firewall forgets a connection that is silent for some minutes, without a word to "
        "either side: a question a minute keeps it in mind.",
    )
    keepalive_interval: int = _setting(
        "loncKeepaliveInterval", "15", whole("seconds", 1, 32767),
        "Time between two such questions when there is no answer",
        "A route that is gone for some seconds is nothing to end a connection for.",
    )
    keepalive_probes: int = _setting(
        "loncKeepaliveProbes", "4", whole("questions", 1, 127),
        "Such questions without an answer after which the connection is given up",
        "A minute of silence in answer to questions, and two in all, before a request runs "
        "into a connection that is dead.",
    )
    allow_insecure: bool = _setting(
        "loncAllowInsecure", "1", SWITCH,
        "Whether a connection without TLS will do, to a lond on another machine",
        "Londs of the first releases know nothing else, and a cluster may have some.",
    )
    certificate_directory: str | None = _setting(
        "lonCertificateDirectory", "none", OPTIONAL_FOLDER,
        "Folder of the certificates",
        "The other programs have theirs there.",
    )
    certificate_authority: str | None = _setting(
        "lonnetCertificateAuthority", "none", NAME_OF_FILE,
        "File with the certificate of the cluster's authority, in PEM form",
        "A machine without certificates goes on without TLS.",
    )
    certificate: str | None = _setting(
        "lonnetCertificate", "none", NAME_OF_FILE,
        "File with this machine's own certificate, in PEM form",
        "A machine without certificates goes on without TLS.",
    )
    private_key: str | None = _setting(
        "lonnetPrivateKey", "none", NAME_OF_FILE,
        "File with the key of this machine's own certificate, in PEM form",
        "A machine without certificates goes on without TLS.",
    )
    certificate_name_check: bool = _setting(
        "loncCertificateNameCheck", "1", SWITCH,
        "Whether a lond's certificate has to be for its host name",
        "Without it any machine with a certificate of the cluster can pass for any other.",
    )
    name_lifetime: float = _setting(
        "loncNameLifetime", "300", seconds(1, 86400),
        "Time for which the addresses of a host's name are kept",
        "The system does not tell for how long an answer holds. A host that moves is found "
        "within five minutes, and a name server is asked no more than it has to be.",
    )
    name_grace: float = _setting(
        "loncNameGrace", "3600", seconds(0, 2592000),
        "Time for which the last addresses of a name serve on while it cannot be resolved",
        "A name server that is in trouble says nothing about the host. Hosts rarely move, and "
        "within an hour somebody has mended the name server.",
    )
    request_timeout: float = _setting(
        "loncRequestTimeout", "60", seconds(0.01, 86400),
        "Time from a request's first byte to its reply's last, and for a whole handshake",
        "The slowest ordinary requests, dumps of large files, take tens of seconds on a "
        "busy lond.",
    )
    slow_answer: float = _setting(
        "loncSlowAnswer", "5", seconds(0.01, 86400),
        "Time from which on the slowest answers of a host make it a problem",
        "A page of a course needs several answers, and its user has stopped waiting after "
        "some seconds. Besides, they have to be four times slower than usual.",
    )
    queue_timeout: float = _setting(
        "loncQueueTimeout", "60", seconds(0.01, 86400),
        "Time that a request waits for a connection",
        "A browser's user has given up by then.",
    )
    queue_limit: int = _setting(
        "loncQueueLimit", "10000", whole("requests", 1, 1000000),
        "Requests that wait for one host at most",
        "What lies further back would run out of time before its turn came.",
    )
    max_line: int = _setting(
        "loncMaxLine", "16 MiB", size("1 KiB", "1 GiB"),
        "Length of one request or one reply at most",
        "Far more than a course's largest dump, and small enough that one client cannot "
        "use up the memory.",
    )
    max_clients: int = _setting(
        "loncMaxClients", "4096", whole("clients", 1, 1000000),
        "Open client connections at most, for all hosts together",
        "A web server's workers, each with several hosts in use, stay well under it; a "
        "program that forgets to close its connections does not.",
    )
    socket_names: str = _setting(
        "loncSocketNames", "id", one_of("id", "hostname", "both"),
        "What the UNIX sockets are called: a host's id, its host name, or both",
        "A LON-CAPA release of lonc's own age looks for the ids; later ones look for host "
        "names, and say with each request which id they mean.",
    )
    socket_mode: int = _setting(
        "loncSocketMode", "0660", MODE,
        "Mode of the UNIX sockets",
        "Whoever opens a socket can ask anything of the cluster, so it is not for every "
        "local user.",
    )
    socket_group: int | None = _setting(
        "loncSocketGroup", "none", GROUP,
        "Group of the UNIX sockets; none leaves them with lonc's own",
        "Web server and lonc run as the same user as a rule, and then no group is needed.",
    )
    management: str = _setting(
        "loncManagement", "unix:<lonSockDir>/lonc.amp:mode=600", ENDPOINT,
        "Where the AMP management port listens",
        "Whoever reaches this port can see all of lonc, or stop it: its own user and root, "
        "nobody else.",
        made=_beside_the_sockets,
    )
    management_group: int | None = _setting(
        "loncManagementGroup", "none", GROUP,
        "Group that may see over the management socket; none for nobody",
        "Which hosts are unwell, and which users' programs are connected, is nobody else's "
        "business unless somebody says so.",
    )
    management_tls: str | None = _setting(
        "loncManagementTLS", "none", OPTIONAL_ENDPOINT,
        "Where other machines of the cluster manage lonc over TLS, such as lonctls:8664",
        "Nobody has to reach it from another machine, and an open port that nobody asked for "
        "is one too many.",
    )
    management_names: tuple[tuple[str, bool], ...] = _setting(
        "loncManagementNames", "none", MANAGING_NAMES,
        "Whose certificates may see over lonctls:, and with :steer behind the name steer",
        "Every server of the cluster has a certificate of its authority; that alone is no "
        "reason to let it in.",
    )
    http: str | None = _setting(
        "loncHTTP", "none", OPTIONAL_ENDPOINT,
        "Where the status page and the metrics can be had over HTTP",
        "Whoever reaches it can see how each host is; most servers have monitoring of their "
        "own, and an open port that nobody asked for is one too many.",
    )
    http_names: tuple[str, ...] = _setting(
        "loncHTTPNames", "none", HOST_NAMES,
        "Names, besides this machine's own, under which the page may be asked for",
        "On a loopback address a request under a strange name comes from a page that has made "
        "its own name lead there, to read what it must not. Elsewhere any name will do unless "
        "some are given.",
    )
    watch: tuple[str, ...] = _setting(
        "loncWatch", "none", HOST_IDS,
        "Hosts that must not be DEAD; none stands for the own host id",
        "A host that is DEAD is usually that host's trouble; the own lond is this "
        "machine's.",
    )
    log_format: str = _setting(
        "loncLogFormat", "seed", one_of("seed", "json", "text"),
        "Form of lonc.log",
        "The web page that shows lonc.log expects the form it has always had.",
    )
    write_timeout: float = _setting(
        "loncWriteTimeout", "60", seconds(0.01, 86400),
        "Time for a client to take a byte of its answer, or to end a line that it began",
        "A client on the same machine needs far less; one that is stuck would hold memory "
        "and a descriptor for ever.",
    )
    max_unread: int = _setting(
        "loncMaxUnread", "48 MiB", size("1 KiB", "64 GiB"),
        "Answers in memory that clients do not read, at most, for all clients together",
        "Room for three answers of the greatest length. Past it, a client of the program that "
        "leaves most unread is closed: the one with most.",
    )
    max_request_memory: int = _setting(
        "loncMaxRequestMemory", "256 MiB", size("1 KiB", "64 GiB"),
        "Requests in memory at most, for all clients together, and unfinished answers as much",
        "Room for sixteen requests of the greatest length, or thousands of large ones. Past "
        "it, requests whose client has gone end first, then the client with most gets con_lost; "
        "of the answers the longest loses its connection. The first 8 KiB of each are not "
        "counted.",
    )
    drain_timeout: float = _setting(
        "loncDrainTimeout", "5", seconds(0, 3600),
        "Time that requests in flight get at INT and TERM",
        "Nearly every request is answered by then, and a machine that shuts down does not "
        "wait much longer.",
    )
    disk_timeout: float = _setting(
        "loncDiskTimeout", "10", seconds(0.01, 3600),
        "Time for one read, sync or move of a delayed request",
        "A disk that is slower than that has a fault, or is a network folder whose server "
        "is gone.",
    )
    delayed_key_file: str | None = _setting(
        "loncDelayedKeyFile", "none", OPTIONAL_FILE,
        "File with the key that seals delayed requests; none leaves them in the clear",
        "lonnet and lonc's forerunner know nothing of sealed files: whoever sets a key takes "
        "care not to lose it.",
    )
    table_interval: float = _setting(
        "loncTableInterval", "43200", seconds(60, 2592000),
        "Time between two looks at the cluster's host table",
        "Hosts come and go a few times a year, and twice a day is soon enough for a new one. "
        "A tenth more or less keeps a cluster's machines from asking all at once.",
    )
    table_timeout: float = _setting(
        "loncTableTimeout", "30", seconds(0.01, 3600),
        "Time for one server to send the cluster's host table, look-up and connect included",
        "A table has some 100 KB, and nothing waits for it but the next server's turn.",
    )
    table_limit: int = _setting(
        "loncTableLimit", "4 MiB", size("1 KiB", "16 MiB"),
        "Length of the cluster's host table at most",
        "Room for some 50,000 hosts; what is longer is no host table.",
    )
    table_growth: int = _setting(
        "loncTableGrowth", "4", whole("times", 1, 1000),
        "How many times as many hosts as the last table the next one may have",
        "A cluster that doubles within half a day is news, and one that becomes many times "
        "as large is somebody's mistake. A hundred more are always allowed, and the first "
        "table is compared with none.",
    )
    # fmt: on
    warnings: tuple[str, ...] = ()
    written: Mapping[str, tuple[str, str]] = attrs.field(factory=dict, eq=False, repr=False)

    def socket_path(self, name: str) -> str:
        """Return the path of the UNIX socket of the host with that id or host name."""
        return os.path.join(self.sock_dir, name)

    @cached_property
    def reserved_names(self) -> frozenset[str]:
        """Names in the folder of the sockets that no host's socket may have."""
        described = (self.management, self.http)
        paths = [Endpoint.parse(each).unix_path for each in described if each is not None]
        folder = os.path.normpath(self.sock_dir)
        own = [os.path.split(os.path.normpath(path)) for path in paths if path is not None]
        return RESERVED_IDS.union(name for where, name in own if where == folder)

    @property
    def max_host_id(self) -> int:
        """Characters that a host id may have at most, so that its socket's path fits."""
        return SOCKET_PATH_LIMIT - len(os.fsencode(self.socket_path("")))

    @property
    def hosts_file(self) -> str:
        """The host table."""
        return os.path.join(self.tab_dir, "hosts.tab")

    @property
    def fetched_hosts_file(self) -> str:
        """The last host table that came from the cluster."""
        return os.path.join(self.tab_dir, "dns_hosts.tab")

    @property
    def logs_dir(self) -> str:
        """The folder of the log files and the pid file."""
        return os.path.join(self.daemons_dir, "logs")

    @property
    def health_file(self) -> str:
        """Where a process tells the next one which hosts are DEAD."""
        return os.path.join(self.logs_dir, "lonc.health")

    @property
    def pid_file(self) -> str:
        """The daemon's process id."""
        return os.path.join(self.logs_dir, "lonc.pid")

    @property
    def log_file(self) -> str:
        """The log."""
        return os.path.join(self.logs_dir, "lonc.log")

    @property
    def perm_log_file(self) -> str:
        """The log of delayed requests, which other programs write too."""
        return os.path.join(self.logs_dir, "lonnet.perm.log")

    @property
    def status_dir(self) -> str:
        """The folder of the status file."""
        return os.path.join(self.doc_root, "lon-status")

    @property
    def status_file(self) -> str:
        """The status of every host, for the web server."""
        return os.path.join(self.status_dir, "loncstatus.txt")

    @property
    def delayed_dir(self) -> str:
        """Where delayed requests wait (protocol, section 6)."""
        return os.path.join(self.sock_dir, "delayed")

    @property
    def key_dir(self) -> str:
        """Where key files are for a moment (protocol, section 9)."""
        return os.path.join(self.sock_dir, "lonc.keys")

    @property
    def sealed_dir(self) -> str:
        """Where delayed requests wait that lonc has sealed."""
        return os.path.join(self.delayed_dir, "sealed")

    @property
    def kept_dir(self) -> str:
        """Where delayed requests go that lonc sets aside (row F8)."""
        return os.path.join(self.delayed_dir, "kept")
