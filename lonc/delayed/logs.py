"""
What the two logs are told of delayed requests: lonc's own, and ``lonnet.perm.log`` (row F9).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.logger import Logger

from lonc.delayed.names import name_of
from lonc.delayed.spool import Spool
from lonc.delayed.states import StoredRequest
from lonc.disk.threads import Stuck
from lonc.wire.escaping import to_text
from lonc.wire.refusal import refusal
from lonc.wire.request import command_word, is_secret


class DelayedLogs:
    """
    Writes what becomes of delayed requests into both logs.

    :param perm_log: takes the lines of ``lonnet.perm.log``.
    """

    def __init__(self, log: Logger, perm_log: Callable[[str], None]) -> None:
        self._log = log
        self._perm_log = perm_log
        self._unknown: set[str] = set()
        self._locked = 0

    def answered(self, host_id: str, request: StoredRequest) -> None:
        """Tell that a request has an answer that counts; no more of it than may be told."""
        line, spool = request.line, request.spool
        command = command_word(line)
        hidden = spool.key is not None or is_secret(line)
        shown = command.encode() if hidden else line[:-1]
        self._perm_log(f"S:{host_id}:{to_text(shown)}")
        fields = {"file": name_of(request.file), "command": command, "host_id": host_id}
        word = refusal(request.note)
        if word is None:
            self._log.info("delayed request sent: {file} ({command})", success=True, **fields)
        else:
            self._log.warn(
                "delayed request sent: {file} ({command}); the answer is {word}, so it is kept in"
                " {kept}",
                word=word,
                kept=spool.kept,
                **fields,
            )

    def not_proven(self, host_id: str, files: Sequence[str]) -> None:
        """Tell that answers do not count, since their connection may have been out of step."""
        self._log.warn(
            "delayed requests are sent again, for their answers cannot be trusted: {file}{more}",
            file=name_of(files[0]),
            more=f" and {len(files) - 1} more" if files[1:] else "",
            host_id=host_id,
        )

    def set_aside(self, request: StoredRequest, reason: str) -> None:
        """Tell that a request cannot be sent."""
        self._log.warn(
            "delayed request {file} goes to {kept}: {reason}",
            file=name_of(request.file),
            kept=request.spool.kept,
            reason=reason,
            host_id=request.host_id,
        )

    def put_off(self, request: StoredRequest, pause: float, cause: str) -> None:
        """Tell that a request has failed, and when the next one is tried."""
        self._log.info(
            "delayed request {file} stays, next try in {pause:.1f} s: {cause}",
            file=name_of(request.file),
            pause=pause,
            cause=cause,
            host_id=request.host_id,
        )

    def changed(self, request: StoredRequest) -> None:
        """Tell that somebody has written to a request that was sent."""
        message = "delayed request {file} has changed meanwhile: once more"
        self._log.warn(message, file=name_of(request.file), host_id=request.host_id)

    def left(self, host_id: str, stuck: Stuck) -> None:
        """Tell that the disk does not answer."""
        self._log.warn("delayed request left for later: {why}", why=stuck, host_id=host_id)

    def not_cleared(self, request: StoredRequest, error: OSError) -> None:
        """Tell that a file cannot be deleted or moved."""
        self._log.error(
            "delayed request {file} cannot be cleared away: {error}",
            file=name_of(request.file),
            error=error,
            host_id=request.host_id,
        )

    def unknown(self, requests: Mapping[str, Sequence[str]], spool: Spool) -> None:
        """Tell of the requests to hosts that the table does not have, of each once."""
        for host_id, files in requests.items():
            new = [file for file in files if name_of(file) not in self._unknown]
            if new:
                self._log.warn(
                    "delayed requests stay on disk, the host table has no {unknown}: {file}{more}",
                    unknown=host_id,
                    file=spool.path(new[0]),
                    more=f" and {len(new) - 1} more" if new[1:] else "",
                )
        self._unknown = {name_of(file) for files in requests.values() for file in files}

    def locked(self, count: int) -> None:
        """Tell that requests are sealed and there is no key, when there are more of them."""
        if count > self._locked:
            self._log.warn(
                "{count} delayed requests are sealed, and stay on disk: no key is set"
                " (loncDelayedKeyFile)",
                count=count,
            )
        self._locked = count
