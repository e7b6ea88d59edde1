"""
The kinds of problems: names and common properties.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import attrs

Level = Literal["note", "warning", "critical"]

#: In increasing order of severity. A note does not affect the overall state.
LEVELS: Final[tuple[Level, ...]] = ("note", "warning", "critical")


@attrs.frozen
class Kind:
    """
    The common properties of problems of one kind.

    :ivar level: their level, unless a problem has its own.
    :ivar section: the section of docs/trouble.rst about them.
    :ivar advice: what to do first, with a field ``{subject}``.
    :ivar of: what the subject is.
    :ivar cause: text that follows the number of several of them: "3 hosts lose requests".
    :ivar logged: whether their beginning and end are logged, unless they are notes. False if the
        code that notices them logs its own lines.
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


def _file(level: Level, section: str, advice: str, cause: str = "", logged: bool = True) -> Kind:
    return Kind(level, section, advice, "file", cause, logged)


#: Advice shared by several kinds.
_IS_IT_RUNNING: Final = "is the lond running? lonc hosts {subject}; lonc retry {subject}"
_IS_IT_UP: Final = "is the machine up, and the network? lonc hosts {subject}"
_WHO_HOLDS_THEM: Final = "lonc clients shows who holds the slots; see loncMaxClients"
_RAISE_THE_LIMIT: Final = "raise the limit of open files, then restart lonc"
_RENEW: Final = "renew it, then lonc reload"
_FIX_IT: Final = "fix its owner and mode, or its disk: {subject}"
_MAKE_ROOM: Final = "fix its permissions, or free some space"

#: Found in the status of hosts and of the daemon; over when no longer found there.
JUDGED: Final[Mapping[str, Kind]] = {
    "host-refused": _host("DEAD: refused", "host-dead", _IS_IT_RUNNING),
    "host-unreachable": _host("DEAD: unreachable", "host-dead", _IS_IT_UP),
    "host-timed-out": _host("DEAD: timed out", "host-dead", _IS_IT_UP),
    "host-look-up-failed": _host(
        "DEAD: no address", "host-dead", "check the name server, or correct hosts.tab; lonc reload"
    ),
    "host-unknown-there": _host(
        "do not know this machine",
        "host-dead",
        "hosts.tab there needs a line for this machine; lonc hosts {subject}",
    ),
    "host-bad-handshake": _host(
        "DEAD: bad handshake", "host-dead", "is it a lond that listens there? lonc hosts {subject}"
    ),
    "host-leads-elsewhere": _host(
        "lead to another lond", "host-dead", "correct the address in hosts.tab; lonc reload"
    ),
    "host-broke": _host("DEAD: broke", "host-dead", _IS_IT_RUNNING),
    "host-dead": _host("DEAD", "host-dead", _IS_IT_RUNNING),
    "host-unproven": _host(
        "do not answer, and are being probed",
        "host-unproven",
        "wait a minute, then lonc hosts {subject}",
    ),
    "host-name": _host(
        "cannot be resolved",
        "name",
        "check the name server: getent hosts <name>; lonc hosts {subject}",
        logged=True,
    ),
    "host-paused": _host("paused", "paused", "lonc resume {subject}", "note"),
    "host-waits": _host(
        "keep requests waiting",
        "slow-host",
        "lonc hosts {subject} shows where the time goes",
        logged=True,
    ),
    "host-silent": _host(
        "answer nothing",
        "host-silent",
        "the lond hangs: restart it there; lonc clients {subject}",
        logged=True,
    ),
    "host-out-of-step": _host(
        "were out of step",
        "out-of-step",
        "warn those who used it; find out what runs there: lonc hosts {subject}",
        "critical",
    ),
    "host-ping": _host(
        "answer ping differently or not at all",
        "host-ping",
        "is it really a lond, of a known release? lonc hosts {subject}",
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
        "critical", "many-dead", "check this machine's network, name server and certificate"
    ),
    "lonc-fault": Kind(
        "warning", "stuck", "please report it, with its lines in lonc.log", logged=False
    ),
    "clients-refused": Kind("critical", "clients-refused", _WHO_HOLDS_THEM, logged=False),
    "certificate-ends": _file("warning", "certificate", _RENEW),
    "certificate-ended": _file("critical", "certificate", _RENEW),
    "delayed-kept": Kind(
        "warning", "kept", "lonc delayed kept shows them, with the answers", logged=False
    ),
}

#: Found in the configuration by checking the disk, so they can end without a reload.
EXPOSED: Final[Mapping[str, Kind]] = {
    "folder-open": _file("warning", "exposed", "chmod o-w {subject}"),
    "key-readable": _file("warning", "exposed", "chmod o-r {subject}"),
}

#: Found in the configuration in force.
CONFIGURED: Final[Mapping[str, Kind]] = {
    **EXPOSED,
    "hosts-not-served": Kind("critical", "open-files", _RAISE_THE_LIMIT),
    "open-files": Kind("warning", "open-files", _RAISE_THE_LIMIT),
    "table-row": _file(
        "warning",
        "files",
        "correct or delete the line; lonc reload",
        cause="lines of a table are unusable",
    ),
    "setting-unused": _file(
        "warning",
        "files",
        "correct or delete the line; lonc reload",
        cause="settings have no effect",
    ),
    "own-id-missing": _file(
        "warning", "files", "add a line, or correct lonHostID: other servers do not know this one"
    ),
    "nobody-may-manage": Kind(
        "warning", "files", "list the certificate names that may see or steer; lonc reload"
    ),
    "management-open": Kind(
        "note", "exposed", "a UNIX socket has levels: loncManagement, then lonc reload"
    ),
    "restart-needed": Kind("note", "files", "restart lonc when it suits you"),
    "runs-as-root": Kind(
        "critical", "exposed", "start it with twistd --uid and --gid, or set loncSocketGroup"
    ),
    "certificate-unusable": _file("warning", "certificate", "correct the file, then lonc reload"),
}

#: Shortages shared by all clients.
SHORTAGES: Final[Mapping[str, Kind]] = {
    "clients-full": Kind("warning", "clients-refused", _WHO_HOLDS_THEM, logged=False),
    "clients-one-program": Kind(
        "warning",
        "clients-refused",
        "does it close its connections? See lonc clients",
        "program",
    ),
    "clients-cut-off": Kind(
        "warning", "clients-cut-off", "lonc.log gives the reason for each", logged=False
    ),
    "memory-used-up": Kind(
        "warning", "memory", "find out who sends so much; see loncMaxRequestMemory", logged=False
    ),
}

#: Other problems checked every second.
UPKEEP: Final[Mapping[str, Kind]] = {
    "port-not-open": Kind(
        "warning",
        "port-not-open",
        "lonc settings; free what it names, then lonc reload",
        logged=False,
    ),
    "name-not-served": Kind(
        "critical",
        "not-served",
        "remove what is in the way; see loncSocketNames",
        cause="host names have no socket",
        logged=False,
    ),
    "files-used-up": Kind("critical", "open-files", _RAISE_THE_LIMIT),
    "lonc-replaced": Kind("note", "files", "restart lonc: until then the old one runs"),
}

#: Reported, and ended, by the code that notices them.
TOLD: Final[Mapping[str, Kind]] = {
    "host-not-served": _host(
        "have no socket",
        "not-served",
        "lonc hosts {subject}; remove what is in the way",
        "critical",
    ),
    "table-not-fetched": _file(
        "warning", "table-not-fetched", "grep 'no host table from' lonc.log", logged=False
    ),
    "no-idea": Kind("critical", "no-idea", "install an OpenSSL that has IDEA, then restart lonc"),
    "delayed-folder": _file("critical", "delayed-folder", _FIX_IT),
    "delayed-disk-full": _file(
        "critical", "delayed-folder", "free some space: df {subject}; df -i {subject}"
    ),
    "delayed-not-cleared": _file(
        "critical", "delayed-folder", "fix that before the next restart: {subject}"
    ),
    "delayed-unsealed": _file("critical", "delayed-unsealed", _FIX_IT),
    "delayed-locked": Kind(
        "warning", "delayed-unsealed", "set loncDelayedKeyFile again; lonc reload"
    ),
    "delayed-unknown": _host(
        "are not in the table and have delayed requests",
        "delayed-unknown",
        "add it to hosts.tab, or lonc delayed drop; lonc delayed list {subject}",
        logged=True,
    ),
    "pid-file": _file("warning", "pid-file", "find out whose it is, then remove it"),
    "log-file": _file("critical", "cannot-write", _MAKE_ROOM, logged=False),
    "status-file": _file("warning", "cannot-write", _MAKE_ROOM, logged=False),
    "reload-failed": _file(
        "warning", "reload-failed", "lonc check gives file and line", logged=False
    ),
}

#: All kinds, by name. Names are stable, because programs read them.
KINDS: Final[Mapping[str, Kind]] = {**JUDGED, **CONFIGURED, **SHORTAGES, **UPKEEP, **TOLD}
