"""
What passes between a new connection and its first request (protocol, sections 2 and 3).

Pure: bytes go in, bytes to send come out; :class:`lonc.connection.LondConnection` moves them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum

from lonc.cipher import session_key

#: No line of a handshake comes near this length, in bytes; the seed's lond sends fewer than 40.
MAX_LINE = 1024

_CHALLENGE = re.compile(rb"[0-9]{1,64}")
_BUILD_KEY = re.compile(rb"[0-9A-F]{1,256}")


class HandshakeError(Exception):
    """The lond does not speak the handshake, or will not have us. The message is for a person."""


class State(Enum):
    """The states of protocol, section 2: each says what is awaited."""

    CONNECTED = "Connected"
    INITIALIZED = "Initialized"
    CHALLENGE_REPLIED = "ChallengeReplied"
    RECEIVING_KEY = "ReceivingKey"
    IDLE = "Idle"


class Handshake:
    """
    Our side of one handshake (rows S6 and F15).

    :ivar state: where it stands.
    :ivar key: the session's key of 16 bytes, once ``state`` is ``IDLE``.
    """

    def __init__(self, lond_id: str, own_id: str) -> None:
        self._lond_id = lond_id
        self._own_id = own_id
        self._received = b""
        self.state = State.CONNECTED
        self.key: bytes | None = None

    def start(self) -> bytes:
        """Return what opens the exchange."""
        self.state = State.INITIALIZED
        return b"init\n"

    def receive(self, data: bytes) -> bytes:
        """
        Take bytes from the lond, however they are split, and return what to send.

        :raises HandshakeError: when they are not what this state awaits.
        """
        self._received += data
        # A lond that refuses may leave out the newline; nothing else begins like that.
        if self.state is State.INITIALIZED and self._received.rstrip(b"\r\n") == b"refused":
            raise HandshakeError(f"refused: that lond does not know {self._own_id}")
        line, newline, rest = self._received.partition(b"\n")
        if len(line) > MAX_LINE:
            raise HandshakeError(f"a line of more than {MAX_LINE} bytes in state {self._where}")
        if not newline:
            return b""
        if rest:
            raise HandshakeError(f"more than one line in state {self._where}")
        self._received = b""
        step, following = self._STEPS[self.state]
        answer = step(self, line)
        self.state = following
        return answer

    @property
    def _where(self) -> str:
        return self.state.value

    def _challenge(self, line: bytes) -> bytes:
        if not _CHALLENGE.fullmatch(line):
            raise HandshakeError(f"no challenge but {_shown(line)}")
        return line + b"\n"

    def _accepted(self, line: bytes) -> bytes:
        if line != b"ok":
            raise HandshakeError(f"our answer to the challenge was met with {_shown(line)}")
        return b"ekey\n"

    def _build_key(self, line: bytes) -> bytes:
        if not _BUILD_KEY.fullmatch(line):
            # Not shown: it may be a good key with something wrong at its end.
            raise HandshakeError(f"no key but {len(line)} bytes of something else")
        self.key = session_key(self._lond_id, self._own_id, line)
        return b""

    #: state -> what takes the line that comes in it, and the state after that.
    _STEPS: dict[State, tuple[Callable[[Handshake, bytes], bytes], State]] = {
        State.INITIALIZED: (_challenge, State.CHALLENGE_REPLIED),
        State.CHALLENGE_REPLIED: (_accepted, State.RECEIVING_KEY),
        State.RECEIVING_KEY: (_build_key, State.IDLE),
    }


def _shown(line: bytes) -> str:
    """Return the beginning of a line that a peer sent, for a message."""
    return ascii(line[:40].decode("latin-1")) + ("..." if len(line) > 40 else "")
