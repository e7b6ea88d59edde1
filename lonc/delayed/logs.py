"""
Logging about delayed requests: to lonc's own log, to ``lonnet.perm.log`` (row F9), and, for lasting
problems, to the list of problems.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lonc.delayed.names import name_of
from lonc.delayed.spool import Spool
from lonc.delayed.states import StoredRequest
from lonc.disk.threads import Stuck
from lonc.report.events import Logger
from lonc.report.problems import Problems, problem
from lonc.report.units import count
from lonc.wire.escaping import to_text
from lonc.wire.request import command_word, is_secret, refusal


class DelayedLogs:
    """
    Logs events and problems with delayed requests.

    :param perm_log: writes a line to ``lonnet.perm.log``.
    :param problems: the list of problems.
    """

    def __init__(self, log: Logger, perm_log: Callable[[str], None], problems: Problems) -> None:
        self._log = log
        self._perm_log = perm_log
        self._problems = problems

    def tell_answered(self, host_id: str, request: StoredRequest) -> None:
        """Log that a request has a proven answer; only the command if the request is secret."""
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

    def tell_not_proven(self, host_id: str, files: Sequence[str]) -> None:
        """Log that answers are discarded because their connection may have been out of step."""
        self._log.warn(
            "delayed requests are sent again, because their answers cannot be trusted: "
            "{file}{more}",
            file=name_of(files[0]),
            more=f" and {len(files) - 1} more" if files[1:] else "",
            host_id=host_id,
        )

    def tell_set_aside(self, request: StoredRequest, reason: str) -> None:
        """Log that a request cannot be sent."""
        self._log.warn(
            "delayed request {file} goes to {kept}: {reason}",
            file=name_of(request.file),
            kept=request.spool.kept,
            reason=reason,
            host_id=request.host_id,
        )

    def tell_put_off(self, request: StoredRequest, pause: float, cause: str) -> None:
        """Log that a request has failed, and the pause until the next attempt."""
        self._log.info(
            "delayed request {file} stays, next try in {pause:.1f} s: {cause}",
            file=name_of(request.file),
            pause=pause,
            cause=cause,
            host_id=request.host_id,
        )

    def tell_changed(self, request: StoredRequest) -> None:
        """Log that a file was written to while its request was being sent."""
        message = "delayed request {file} changed while it was being sent: sending it again"
        self._log.warn(message, file=name_of(request.file), host_id=request.host_id)

    def tell_left(self, host_id: str, stuck: Stuck) -> None:
        """Log that the disk does not answer."""
        self._log.warn("delayed request left for later: {why}", why=stuck, host_id=host_id)

    # ------------------------------------------------------------------ problems

    def tell_unreadable(self, folder: str, why: str) -> None:
        """Report that the folder cannot be listed."""
        self._problems.tell("delayed-folder", folder, f"cannot look for delayed requests: {why}")

    def tell_faults(self, spool: Spool) -> None:
        """Report the problems of the folders found by a scan."""
        found = [problem(kind, path, what) for (kind, path), what in spool.faults.items()]
        self._problems.replace(found, ("delayed-folder", "delayed-disk-full"))

    def tell_not_cleared(self, request: StoredRequest, error: OSError) -> None:
        """Report that a file cannot be deleted or moved."""
        what = f"delayed requests cannot be cleared away: {name_of(request.file)}: {error.strerror}"
        self._problems.tell("delayed-not-cleared", request.spool.folder, what)

    def end_not_cleared(self) -> None:
        """Report that this is over."""
        self._problems.replace((), ("delayed-not-cleared",))

    def tell_unsealed(self, folder: str, why: str) -> None:
        """Report that a file cannot be sealed."""
        what = f"delayed requests cannot be sealed, and stay in the clear: {why}"
        self._problems.tell("delayed-unsealed", folder, what)

    def end_unsealed(self) -> None:
        """Report that this is over."""
        self._problems.replace((), ("delayed-unsealed",))

    def tell_unknown(self, counts: Mapping[str, int]) -> None:
        """Report the numbers of requests for hosts that are not in the table."""
        what = "is not in the host table, and has {}"
        found = [
            problem("delayed-unknown", host_id, what.format(count(number, "delayed request")))
            for host_id, number in counts.items()
        ]
        self._problems.replace(found, ("delayed-unknown",))

    def tell_key(self, config_file: str, error: Exception) -> None:
        """Report that a new key cannot be used, until the next reload."""
        what = f"the previous key for delayed requests stays in use: {error}"
        self._problems.tell("reload-failed", config_file, what)

    def tell_locked(self, number: int) -> None:
        """Report the number of sealed requests without a key."""
        if number:
            sealed = count(number, "sealed delayed request")
            what = f"{sealed}, and no key is set (loncDelayedKeyFile)"
            self._problems.tell("delayed-locked", "", what)
        else:
            self._problems.over("delayed-locked")
