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
    :ivar advice: what to do first, with a field ``{subject}``.
    :ivar section: the section of docs/trouble.rst about them; by default it has the kind's name.
    :ivar of: what the subject is.
    :ivar cause: text that follows the number of several of them: "3 hosts lose requests".
    :ivar logged: whether their beginning and end are logged, unless they are notes. False if the
        code that notices them logs its own lines.
    """

    level: Level
    advice: str
    section: str = ""
    of: Literal["", "host", "program", "file"] = ""
    cause: str = ""
    logged: bool = True

    def advice_for(self, subject: str) -> str:
        """Return what to do, with the section in brackets."""
        return f"{self.advice.format(subject=subject)} ({self.section})"


def _host(
    cause: str, advice: str, section: str = "", level: Level = "warning", logged: bool = False
) -> Kind:
    return Kind(level, advice, section, "host", cause, logged)


def _file(
    level: Level, advice: str, section: str = "", cause: str = "", logged: bool = True
) -> Kind:
    return Kind(level, advice, section, "file", cause, logged)


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
    "host-refused": _host("DEAD: refused", _IS_IT_RUNNING, "host-dead"),
    "host-unreachable": _host("DEAD: unreachable", _IS_IT_UP, "host-dead"),
    "host-timed-out": _host("DEAD: timed out", _IS_IT_UP, "host-dead"),
    "host-look-up-failed": _host(
        "DEAD: no address", "check the name server, or correct hosts.tab; lonc reload", "host-dead"
    ),
    "host-unknown-there": _host(
        "do not know this machine",
        "hosts.tab there needs a line for this machine; lonc hosts {subject}",
        "host-dead",
    ),
    "host-bad-handshake": _host(
        "DEAD: bad handshake", "is it a lond that listens there? lonc hosts {subject}", "host-dead"
    ),
    "host-leads-elsewhere": _host(
        "lead to another lond", "correct the address in hosts.tab; lonc reload", "host-dead"
    ),
    "host-broke": _host("DEAD: broke", _IS_IT_RUNNING, "host-dead"),
    "host-dead": _host("DEAD", _IS_IT_RUNNING),
    "host-unproven": _host(
        "do not answer, and are being probed", "wait a minute, then lonc hosts {subject}"
    ),
    "host-name": _host(
        "cannot be resolved",
        "check the name server: getent hosts <name>; lonc hosts {subject}",
        "name",
        logged=True,
    ),
    "host-paused": _host("paused", "lonc resume {subject}", "paused", level="note"),
    "host-waits": _host(
        "keep requests waiting",
        "lonc hosts {subject} shows where the time goes",
        "slow-host",
        logged=True,
    ),
    "host-silent": _host(
        "answer nothing", "the lond hangs: restart it there; lonc clients {subject}", logged=True
    ),
    "host-out-of-step": _host(
        "were out of step",
        "warn those who used it; find out what runs there: lonc hosts {subject}",
        "out-of-step",
        level="critical",
    ),
    "host-ping": _host(
        "answer ping differently or not at all",
        "is it really a lond, of a known release? lonc hosts {subject}",
        level="note",
    ),
    "host-loses": _host(
        "lose requests", "lonc hosts {subject} has the causes", "con-lost", logged=True
    ),
    "host-slow": _host(
        "are slow", "lonc slow {subject} names the commands", "slow-host", logged=True
    ),
    "delayed-old": _host(
        "have old delayed requests",
        "lonc delayed list {subject} shows what the last try said",
        logged=True,
    ),
    "many-dead": Kind("critical", "check this machine's network, name server and certificate"),
    "lonc-fault": Kind(
        "warning", "please report it, with its lines in lonc.log", "stuck", logged=False
    ),
    "clients-refused": Kind("critical", _WHO_HOLDS_THEM, logged=False),
    "certificate-ends": _file("warning", _RENEW, "certificate"),
    "certificate-ended": _file("critical", _RENEW, "certificate"),
    "delayed-kept": Kind(
        "warning", "lonc delayed kept shows them, with the answers", "kept", logged=False
    ),
}

#: Found in the configuration by checking the disk, so they can end without a reload.
EXPOSED: Final[Mapping[str, Kind]] = {
    "folder-open": _file("warning", "chmod o-w {subject}", "exposed"),
    "key-readable": _file("warning", "chmod o-r {subject}", "exposed"),
}

#: Found in the configuration in force.
CONFIGURED: Final[Mapping[str, Kind]] = {
    **EXPOSED,
    "hosts-not-served": Kind("critical", _RAISE_THE_LIMIT, "open-files"),
    "open-files": Kind("warning", _RAISE_THE_LIMIT),
    "table-row": _file(
        "warning",
        "correct or delete the line; lonc reload",
        "files",
        cause="lines of a table are unusable",
    ),
    "setting-unused": _file(
        "warning",
        "correct or delete the line; lonc reload",
        "files",
        cause="settings have no effect",
    ),
    "own-id-missing": _file(
        "warning", "add a line, or correct lonHostID: other servers do not know this one", "files"
    ),
    "nobody-may-manage": Kind(
        "warning", "list the certificate names that may see or steer; lonc reload", "files"
    ),
    "management-open": Kind(
        "note", "a UNIX socket has levels: loncManagement, then lonc reload", "exposed"
    ),
    "restart-needed": Kind("note", "restart lonc when it suits you", "files"),
    "runs-as-root": Kind(
        "critical", "start it with twistd --uid and --gid, or set loncSocketGroup", "exposed"
    ),
    "certificate-unusable": _file("warning", "correct the file, then lonc reload", "certificate"),
}

#: Shortages shared by all clients.
SHORTAGES: Final[Mapping[str, Kind]] = {
    "clients-full": Kind("warning", _WHO_HOLDS_THEM, "clients-refused", logged=False),
    "clients-one-program": Kind(
        "warning",
        "does it close its connections? See lonc clients",
        "clients-refused",
        of="program",
    ),
    "clients-cut-off": Kind("warning", "lonc.log gives the reason for each", logged=False),
    "memory-used-up": Kind(
        "warning", "find out who sends so much; see loncMaxRequestMemory", "memory", logged=False
    ),
}

#: Other problems checked every second.
UPKEEP: Final[Mapping[str, Kind]] = {
    "port-not-open": Kind(
        "warning", "lonc settings; free what it names, then lonc reload", logged=False
    ),
    "name-not-served": Kind(
        "critical",
        "remove what is in the way; see loncSocketNames",
        "not-served",
        cause="host names have no socket",
        logged=False,
    ),
    "files-used-up": Kind("critical", _RAISE_THE_LIMIT, "open-files"),
    "lonc-replaced": Kind("note", "restart lonc: until then the old one runs", "files"),
}

#: Reported, and ended, by the code that notices them.
TOLD: Final[Mapping[str, Kind]] = {
    "host-not-served": _host(
        "have no socket",
        "lonc hosts {subject}; remove what is in the way",
        "not-served",
        level="critical",
    ),
    "table-not-fetched": _file("warning", "grep 'no host table from' lonc.log", logged=False),
    "no-idea": Kind("critical", "install an OpenSSL that has IDEA, then restart lonc"),
    "delayed-folder": _file("critical", _FIX_IT),
    "delayed-disk-full": _file(
        "critical", "free some space: df {subject}; df -i {subject}", "delayed-folder"
    ),
    "delayed-not-cleared": _file(
        "critical", "fix that before the next restart: {subject}", "delayed-folder"
    ),
    "delayed-unsealed": _file("critical", _FIX_IT),
    "delayed-locked": Kind(
        "warning", "set loncDelayedKeyFile again; lonc reload", "delayed-unsealed"
    ),
    "delayed-unknown": _host(
        "are not in the table and have delayed requests",
        "add it to hosts.tab, or lonc delayed drop; lonc delayed list {subject}",
        logged=True,
    ),
    "pid-file": _file("warning", "find out whose it is, then remove it"),
    "log-file": _file("critical", _MAKE_ROOM, "cannot-write", logged=False),
    "status-file": _file("warning", _MAKE_ROOM, "cannot-write", logged=False),
    "reload-failed": _file("warning", "lonc check gives file and line", logged=False),
}

#: All kinds, by name. Names are stable, because programs read them.
KINDS: Final[Mapping[str, Kind]] = {
    name: attrs.evolve(kind, section=kind.section or name)
    for name, kind in {**JUDGED, **CONFIGURED, **SHORTAGES, **UPKEEP, **TOLD}.items()
}
