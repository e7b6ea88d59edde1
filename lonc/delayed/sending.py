"""
Sends the delayed requests of each host, one after the other, and removes those that are answered.

An answer is only valid once its connection has been proven afterwards: a lond that has sent an
extra line answers each request with the answer to the previous one. Later requests are sent
meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from lonc.config.settings import Settings
from lonc.delayed.names import ANSWER, REASON, name_of, own_name
from lonc.delayed.states import DelayedQueue, Sender, State, StoredRequest
from lonc.disk.files import Changed, Stamp, Unfinished, Unusable, why
from lonc.disk.threads import Disk, NoPlace, Stuck
from lonc.report.events import Logger
from lonc.report.problems import Problems
from lonc.wire.escaping import to_text
from lonc.wire.request import Cause, ConLost, Provable, command_word, is_secret, refusal

#: Seconds until a request is tried again that failed while its host was alive; doubled each time.
FIRST_PAUSE: Final = 1.0
LAST_PAUSE: Final = 60.0

#: Seconds until deleting or moving a file is tried again.
TRY_AGAIN: Final = 60.0

#: Minimum seconds between proofs of a connection, unless this many answers wait for one.
PROOF_PAUSE: Final = 1.0
PROOF_ANSWERS: Final = 32

#: Maximum number of unproven answers: this many requests, and the one in flight, may be sent again
#: after a crash, or after an extra line of a lond.
UNPROVEN: Final = 2 * PROOF_ANSWERS

#: Failures that would occur again each time.
_HOPELESS: Final = {
    Cause.TOO_LONG: "it was sent, but it or its answer is over the line limit",
    Cause.CONTROL_BYTE: "its command word contains a control byte",
    Cause.WRONG_HOST: "it is for another host than its file name says",
}


@attrs.define(eq=False)
class Sending:
    """
    Processes the queues.

    :param sender_of: host id -> its sender; None if the host is not in the table.
    :param settings: returns the settings in force.
    :param must_wait: whether a request must be sealed before it is sent.
    :param spawn: runs a coroutine for which the stop of lonc waits.
    :param random: for the jitter of the pauses.
    :param problems: the list of problems.
    :param perm_log: writes a line to ``lonnet.perm.log``.
    :ivar running: whether new requests are processed.
    :ivar cannot_clear: whether a file could not be deleted or moved.
    """

    _clock: IReactorTime
    _disk: Disk
    _sender_of: Callable[[str], Sender | None]
    _settings: Callable[[], Settings]
    _must_wait: Callable[[StoredRequest], bool]
    _spawn: Callable[[Coroutine[Deferred[object], object, None]], object]
    _random: Random
    _problems: Problems
    _perm_log: Callable[[str], None]
    _log: Logger
    running: bool = attrs.field(init=False, default=False)
    cannot_clear: bool = attrs.field(init=False, default=False)

    def begin(self, queue: DelayedQueue) -> None:
        """Process a queue, unless it is already being processed."""
        if self.running and not queue.busy and queue.waiting:
            queue.busy = True
            self._spawn(self._work(queue))

    def is_in_hand(self, request: StoredRequest) -> bool:
        """Return whether a request is being processed, or was answered."""
        answered = request.state in (State.SENDING, State.ANSWERED, State.PROVEN)
        return answered or request.busy or self._disk.is_at(request.path)

    async def _work(self, queue: DelayedQueue) -> None:
        """Process a host's requests until nothing more can be done now."""
        request = queue.waiting[-1]
        try:
            while queue.waiting:
                request = queue.waiting[-1]
                if self._waits(queue) or not await self._deal_with(queue, request):
                    return
                # A scan may have refilled the queue meanwhile.
                if queue.waiting and queue.waiting[-1] is request:
                    queue.waiting.pop()
        except Exception:
            if request.state is State.SENDING:
                request.move(request.ready_state)
            self._put_off(queue, request, "a fault inside lonc")
            self._log.failure("sending a delayed request failed", host_id=queue.host_id)
        finally:
            queue.busy = False

    def _waits(self, queue: DelayedQueue) -> bool:
        """
        Return whether the next request must be sealed first.

        A sealed one waits for an unsealed one of its name: a crash may have left both forms, and
        only as long as both exist are they known to be one request.
        """
        name = own_name(queue.waiting[-1].file)
        for request in reversed(queue.waiting):
            if own_name(request.file) != name:
                break
            if self._must_wait(request):
                return True
        return False

    async def _deal_with(self, queue: DelayedQueue, request: StoredRequest) -> bool:
        """Process a request as far as possible; return whether the next one may follow."""
        now = self._clock.seconds()
        if request.state in (State.PROVEN, State.SKIPPED):
            return request.again > now or await self._clear(request)
        if request.busy or self._disk.is_at(request.path) or request.state in _PASSED_OVER:
            return True
        if request.is_locked:  # the key was removed since the last scan
            return True
        sender = self._sender_of(queue.host_id)
        if sender is None or not sender.alive or now < queue.not_before:
            return False
        if len(queue.unproven) >= UNPROVEN:
            return False  # until one is proven
        request.busy, queue.overtaken = True, False
        try:
            line = await self._read(queue, request)
        except NoPlace:
            return False
        except Stuck as stuck:
            self._tell_left(request, stuck)
            return True
        finally:
            request.busy = False
        if queue.overtaken:
            return True
        if line is not None:
            return await self._send(queue, request, line, sender)
        return await self._pass_over(request)

    async def _pass_over(self, request: StoredRequest) -> bool:
        """Return whether the next request may follow one that was not sent."""
        if request.state is State.SKIPPED:
            return await self._clear(request)
        return request.state is State.GONE

    async def _read(self, queue: DelayedQueue, request: StoredRequest) -> bytes | None:
        """Return the line to send; None if it cannot be sent, or not yet."""
        max_line, still = self._settings().max_line, request.settled_stamp()
        try:
            line, stamp = await self._disk.run(
                request.path, partial(request.spool.read, request.file, max_line, still)
            )
        except Unfinished as unfinished:
            await self._time_growth(queue, request, unfinished.stamp)
            return None
        except Unusable as fault:
            self._skip(request, fault.stamp, str(fault))
            return None
        except FileNotFoundError:
            request.move(State.GONE)
            return None
        except OSError as error:
            self._put_off(queue, request, why(error))
            return None
        if not self.running or not request.is_ripe():
            return None
        request.files = {request.file: stamp}
        if request.state is not request.ready_state:
            request.move(request.ready_state)
        return line

    async def _time_growth(self, queue: DelayedQueue, request: StoredRequest, stamp: Stamp) -> None:
        """Record when a file last changed, and the same for those that wait behind it."""
        before = request.stamp
        if request.first_state is State.SEALED:  # only lonc writes there: try again later
            return
        request.note_growth(stamp)
        if stamp != before:
            # Otherwise each would have to wait separately when its turn comes.
            behind = {x.file: x for x in queue.waiting if x.state is State.FOUND}
            found = await self._disk.run(request.path, partial(request.spool.stamps, list(behind)))
            for file, its_stamp in found.items():
                if behind[file].state is State.FOUND:
                    behind[file].note_growth(its_stamp)

    def _tell_left(self, request: StoredRequest, stuck: Stuck) -> None:
        self._log.warn("delayed request left for later: {why}", why=stuck, host_id=request.host_id)

    # ------------------------------------------------------------------ sending

    async def _send(
        self, queue: DelayedQueue, request: StoredRequest, line: bytes, sender: Sender
    ) -> bool:
        request.move(State.SENDING)
        try:
            answer, request.connection = await sender.deliver(line, request.doubted)
        except ConLost as lost:
            if lost.cause in _HOPELESS:
                self._skip(request, request.files[request.file], _HOPELESS[lost.cause])
                return await self._clear(request)
            request.move(request.ready_state)
            self._put_off(queue, request, lost.cause.value)
            return False
        now = self._clock.seconds()
        queue.pause = queue.not_before = 0.0
        request.move(State.ANSWERED)
        if queue.overtaken:
            request.move(request.ready_state)
            return True
        request.line, request.note = line, answer
        request.ending = "" if refusal(answer) is None else ANSWER
        queue.unproven.append(request)
        if request.connection is None:
            return await self._settle(queue)
        if (
            len(queue.unproven) >= PROOF_ANSWERS
            or now >= queue.proved + PROOF_PAUSE
            or not self.running
        ):
            self.prove(queue)
        return True

    def prove(self, queue: DelayedQueue) -> None:
        """Prove the connections of unproven answers."""
        if queue.unproven:
            queue.proved = self._clock.seconds()
        for connection in dict.fromkeys(each.connection for each in queue.unproven):
            if connection is not None and connection not in queue.proving:
                queue.proving.append(connection)
                self._spawn(self._prove(queue, connection))

    async def _prove(self, queue: DelayedQueue, connection: Provable) -> None:
        answered = [each for each in queue.unproven if each.connection is connection]
        try:
            is_proven = await connection.prove()
        finally:
            queue.proving.remove(connection)
        if is_proven:
            for each in answered:
                if each.connection is connection:  # otherwise it was sent again meanwhile
                    each.connection = None
            await self._settle(queue)
            self.begin(queue)
        else:
            self._send_again(queue, connection)
        if not self.running:
            self.prove(queue)  # those answered meanwhile

    def _send_again(self, queue: DelayedQueue, connection: Provable) -> None:
        """
        Discard the answers of a connection that failed its proof.

        Later answers of the same host are discarded too, because the last request must be carried
        out last.
        """
        since = [each.connection is connection for each in queue.unproven]
        if True not in since:
            return
        first = since.index(True)
        again, queue.unproven = queue.unproven[first:], queue.unproven[:first]
        for each in again:
            each.doubted = each.doubted or each.connection is connection
            each.forget_answer(each.ready_state)
        queue.overtaken = True
        queue.waiting.extend(reversed(again))
        self._log.warn(
            "delayed requests are sent again, because their answers cannot be trusted: "
            "{file}{more}",
            file=name_of(again[0].file),
            more=f" and {len(again) - 1} more" if again[1:] else "",
            host_id=queue.host_id,
        )
        self.begin(queue)

    async def _settle(self, queue: DelayedQueue) -> bool:
        """Remove requests with proven answers, in order."""
        may_follow = True
        while queue.unproven and queue.unproven[0].connection is None:
            request = queue.unproven.pop(0)
            request.move(State.PROVEN)
            self._tell_answered(request)
            request.line = b""
            may_follow = await self._clear(request)
        return may_follow

    def _tell_answered(self, request: StoredRequest) -> None:
        """Log that a request has a proven answer (row F9); only the command if it is secret."""
        line, command = request.line, command_word(request.line)
        hidden = request.spool.key is not None or is_secret(line)
        shown = to_text(command.encode() if hidden else line[:-1])
        self._perm_log(f"S:{request.host_id}:{shown}")
        fields = {"command": command, **_named(request)}
        word = refusal(request.note)
        if word is None:
            self._log.info("delayed request sent: {file} ({command})", success=True, **fields)
        else:
            self._log.warn(
                "delayed request sent: {file} ({command}); the answer is {word}, so it is kept in"
                " {kept}",
                word=word,
                kept=request.spool.kept,
                **fields,
            )

    # ------------------------------------------------------------------ removing

    def _skip(self, request: StoredRequest, stamp: Stamp, reason: str) -> None:
        """Mark a request that cannot be sent, so that it is set aside."""
        self._log.warn(
            "delayed request {file} goes to {kept}: {reason}",
            kept=request.spool.kept,
            reason=reason,
            **_named(request),
        )
        request.files = {request.file: stamp}
        request.ending, request.note = REASON, f"{reason}\n".encode()
        request.move(State.SKIPPED)

    async def _clear(self, request: StoredRequest) -> bool:
        """Delete a request, or set it aside; return whether the next one may follow."""
        if request.busy or self._disk.is_at(request.path):
            return True
        request.busy = True
        try:
            await self._disk.run(request.path, request.clear)
        except NoPlace:
            return False
        except Stuck as stuck:
            self._tell_left(request, stuck)
        except Changed:
            # The new content was not sent, so the whole file is sent again.
            message = "delayed request {file} changed while it was being sent: sending it again"
            self._log.warn(message, **_named(request))
            request.forget_answer(request.first_state)
        except FileNotFoundError:  # deleted by somebody else
            request.move(State.GONE)
        except OSError as error:
            self.cannot_clear = True
            what = f"{name_of(request.file)}: {error.strerror}"
            self._problems.tell(
                "delayed-not-cleared",
                request.spool.folder,
                f"delayed requests cannot be cleared away: {what}",
            )
            request.file = next(iter(request.files))  # it may be sealed by now
            request.again = self._clock.seconds() + TRY_AGAIN
        else:
            request.move(State.KEPT if request.ending else State.GONE)
        finally:
            request.busy = False
        return True

    def _put_off(self, queue: DelayedQueue, request: StoredRequest, cause: str) -> None:
        """Pause a host's queue after a failure, longer each time."""
        request.tries, request.outcome = request.tries + 1, cause
        queue.pause = min(2 * queue.pause, LAST_PAUSE) or FIRST_PAUSE
        pause = queue.pause * self._random.uniform(0.8, 1.0)
        queue.not_before = self._clock.seconds() + pause
        self._log.info(
            "delayed request {file} stays, next try in {pause:.1f} s: {cause}",
            pause=pause,
            cause=cause,
            **_named(request),
        )


def _named(request: StoredRequest) -> dict[str, str]:
    """Return the fields of a log line that name a request."""
    return {"file": name_of(request.file), "host_id": request.host_id}


#: States in which nothing needs to be done with a request in the queue.
_PASSED_OVER: Final = (State.SENDING, State.ANSWERED, State.KEPT, State.GONE)
