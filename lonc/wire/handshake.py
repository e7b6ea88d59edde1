"""
The handshake at the start of a connection (protocol, sections 2, 3 and 9).

This module is pure: bytes received go in, bytes to send come out;
:class:`lonc.host.connection.LondConnection` transfers them. The key file of the local mode is
created and removed by an object that is passed in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from typing import Protocol

import attrs

from lonc.wire.cipher import session_key
from lonc.wire.printable import quoted
from lonc.wire.tls import TLSError, TLSPhase

#: Maximum bytes of a handshake line; a lond of 2003 sends fewer than 40.
MAX_LINE = 1024

_CHALLENGE = re.compile(rb"[0-9]{1,64}")
_BUILD_KEY = re.compile(rb"[0-9A-F]{1,256}")
_KEY = re.compile(rb"[0-9A-Fa-f]{32}")
_REVISION = re.compile(rb"\$Revision[: ]*([!-#%-~]{0,40}) *\$")
#: A number with a point, else a separate integer.
_NUMBER = re.compile(rb"[0-9]+(?:\.[0-9]+)+"), re.compile(rb"(?<!\w)[0-9]+(?!\w)")
_UNKNOWN = b"unknown_cmd"
_UNABLE = b"unable_to_set"

#: Seconds within which a lond must delete the key file after reporting that it took it.
TAKE_LIMIT = 1.0


class HandshakeError(Exception):
    """
    The lond violated the handshake protocol or refused us. The message is readable.

    :ivar farewell: bytes to send before disconnecting.
    """

    def __init__(self, message: str, farewell: bytes = b"") -> None:
        super().__init__(message)
        self.farewell = farewell


class OtherLondError(HandshakeError):
    """The lond responds, but does not serve the wanted host id."""


class State(Enum):
    """
    The states of protocol, section 2, and more: those of section 9, and those for a lond without
    ``sethost`` that serves several host ids.
    """

    CONNECTED = "Connected"
    INITIALIZED = "Initialized"
    TAKING_KEY_FILE = "TakingKeyFile"
    CHALLENGE_RECEIVED = "ChallengeReceived"
    CHALLENGE_REPLIED = "ChallengeReplied"
    STARTING_TLS = "StartingTLS"
    RECEIVING_KEY_IN_TLS = "ReceivingKeyInTLS"
    REQUESTING_VERSION = "RequestingVersion"
    READING_VERSION_STRING = "ReadingVersionString"
    SET_HOST = "SetHost"
    HOST_SET = "HostSet"
    REQUESTING_ID = "RequestingID"
    READING_ID = "ReadingID"
    REQUESTING_KEY = "RequestingKey"
    RECEIVING_KEY = "ReceivingKey"
    IDLE = "Idle"


class AuthMode(Enum):
    """The authentication modes (protocol, section 9), the most secure first."""

    LOCAL = "local"
    SSL = "ssl"
    INSECURE = "insecure"


class KeyFile(Protocol):
    """A file containing a key: see :class:`lonc.config.key_files.KeyFile`."""

    @property
    def path(self) -> str: ...  # noqa: D102

    @property
    def key(self) -> bytes: ...  # noqa: D102

    @property
    def taken(self) -> bool: ...  # noqa: D102

    def remove(self) -> None: ...  # noqa: D102


class KeyFiles(Protocol):
    """Creates key files: see :class:`lonc.config.key_files.KeyFolder`."""

    def make(self) -> KeyFile: ...  # noqa: D102


class Certificates(Protocol):
    """Creates our end of TLS: see :class:`lonc.config.certificates.Certificates`."""

    def client(self, name: str) -> TLSPhase: ...  # noqa: D102


@attrs.frozen
class AuthModes:
    """
    The authentication modes possible for a host's connections.

    :ivar key_files: creates key files; None if the lond is on another machine.
    :ivar certificates: for TLS; None without a certificate of our own.
    :ivar insecure: whether the insecure mode is allowed.
    :ivar name: the host name that the lond's certificate must be for.
    """

    key_files: KeyFiles | None = None
    certificates: Certificates | None = None
    insecure: bool = True
    name: str = ""


class Omission(Enum):
    """A step of the handshake to omit because the lond failed at it."""

    VERSION = "version"
    KEY_FILES = "key files"


@attrs.define
class LondFacts:
    """
    What one handshake revealed about the lond; its connection relies on nothing else.

    :ivar host_id: the host id that applies to requests that name none.
    :ivar version: as reported by the lond; empty if unknown.
    :ivar mode: the value of the `AuthMode` used; empty until the handshake is complete.
    :ivar knows_version: whether the lond supports ``version``; None if not asked.
    :ivar knows_sethost: whether it supports ``sethost``; False only after ``unknown_cmd``.
    :ivar names: whether each request has to name its host: the lond serves several and supports
        ``sethost``.
    :ivar only: the single host id served if the lond has several but no ``sethost``; else empty.
    :ivar unserved: the host ids that the lond refused.
    """

    host_id: str
    version: str = ""
    mode: str = ""
    knows_version: bool | None = None
    knows_sethost: bool = True
    names: bool = False
    only: str = ""
    unserved: list[str] = attrs.field(factory=list)


class Handshake:
    """
    Our side of one handshake (rows S6 and F15).

    The caller must call `fail` or `close` when it ends before it is complete, and
    `check_key_file` repeatedly while ``state`` is ``TAKING_KEY_FILE``, for at most `TAKE_LIMIT`.

    ``sethost`` is sent in each handshake: the lond may have been replaced by another release since
    the last one, and without ``sethost`` a connection acts for the lond's default host id.

    :param lond_id: the wanted host id of the lond.
    :param own_id: our own host id.
    :param others: further host ids that this lond should serve; any of them is acceptable.
    :param several: whether the lond has several host ids according to the table.
    :param omissions: steps to omit if there is an alternative.
    :ivar facts: what is known about the lond so far.
    :ivar state: the current state.
    :ivar key: the session key of 16 bytes, once ``state`` is ``IDLE``.
    """

    def __init__(
        self,
        lond_id: str,
        own_id: str,
        auth_modes: AuthModes | None = None,
        others: Sequence[str] = (),
        several: bool = False,
        omissions: Collection[Omission] = (),
    ) -> None:
        self.facts = LondFacts(lond_id)
        self._others = [each for each in others if each != lond_id]
        self._several = several
        self._own_id = own_id
        self._auth_modes = auth_modes or AuthModes()
        self._omissions = omissions
        self._auth_mode = AuthMode.INSECURE
        self._key_file: KeyFile | None = None
        self._tls: TLSPhase | None = None
        self._challenge = b""
        self._early_key = b""
        self._received = b""
        self.state = State.CONNECTED
        self.key: bytes | None = None

    def start(self) -> bytes:
        """
        Return the first bytes to send.

        :raises HandshakeError: no authentication mode is possible.
        """
        return self._go(State.CONNECTED)

    def receive(self, data: bytes) -> bytes:
        """
        Handle bytes from the lond, however they are split, and return what to send.

        :raises HandshakeError: they are not valid in the current state.
        """
        said = b""
        if data and self.state is State.TAKING_KEY_FILE:
            raise HandshakeError(f"more than one line in state {self._where}")
        if self._tls is not None:
            said, data = self._through_tls(self._tls, data)
        self._received += data
        # A refusing lond may omit the newline; no other reply begins like this.
        if self.state is State.INITIALIZED and self._received.rstrip(b"\r\n") == b"refused":
            raise HandshakeError(f"refused: that lond does not know {self._own_id}")
        line, newline, rest = self._received.partition(b"\n")
        if len(line) > MAX_LINE:
            raise HandshakeError(f"a line of more than {MAX_LINE} bytes in state {self._where}")
        if not newline:
            return said
        if rest:
            raise HandshakeError(f"more than one line in state {self._where}")
        self._received = b""
        return said + self._go(self._TAKES[self.state](self, line)) + self.check_key_file()

    def check_key_file(self) -> bytes:
        """If the lond has taken the key file, go on; return what to send."""
        key_file = self._key_file
        if self.state is not State.TAKING_KEY_FILE or key_file is None or not key_file.taken:
            return b""
        self.key = bytes.fromhex(key_file.key.decode())
        self._drop_key_file()
        return self._go(State.REQUESTING_VERSION)

    def fail(self) -> Omission | None:
        """
        Handle a disconnection by the lond, and clean up.

        :return: the step that the next attempt should omit: the key file, if the lond did not take
            it, or ``version``, which some of the first releases do not even answer with
            ``unknown_cmd``.
        """
        if self.state is State.READING_VERSION_STRING:
            return None if self._several else Omission.VERSION
        if self._auth_mode is not AuthMode.LOCAL or self.key is not None:
            return None
        self.close()
        return Omission.KEY_FILES if self._has_others else None

    def close(self) -> None:
        """Clean up a handshake that will not be completed."""
        self._drop_key_file()

    @property
    def _where(self) -> str:
        return self.state.value

    def _go(self, state: State) -> bytes:
        """Enter a state, and pass through those in which we send; return what to send."""
        said = b""
        while state in self._SPEAKS:
            speak, then, otherwise = self._SPEAKS[state]
            words = speak(self)
            said += words
            state = then if words else otherwise
        self.state = state
        if state is State.IDLE:
            facts = self.facts
            facts.mode = self._auth_mode.value
            facts.names = self._several and facts.knows_sethost
        return said

    # What we send; nothing if not needed.

    def _open(self) -> bytes:
        """Try the best authentication mode; the lond's answer decides whether it is used."""
        modes = self._auth_modes
        omits = Omission.KEY_FILES in self._omissions and self._has_others
        if modes.key_files is not None and not omits:
            self._auth_mode = AuthMode.LOCAL
            return b"init:local:%s\n" % self._make_key_file(modes.key_files)
        if modes.certificates is not None:
            self._auth_mode = AuthMode.SSL
            return b"init:ssl\n"
        if modes.insecure:
            return b"init\n"
        raise HandshakeError(
            "no authentication mode is possible: loncAllowInsecure is 0, and no certificate is set"
        )

    @property
    def _has_others(self) -> bool:
        """Whether there is a mode other than key files."""
        return self._auth_modes.certificates is not None or self._auth_modes.insecure

    def _make_key_file(self, key_files: KeyFiles) -> bytes:
        try:
            self._key_file = key_files.make()
        except OSError as error:
            why = f"{error.filename}: {error.strerror}"
            raise HandshakeError(f"no key file can be made: {why}") from None
        return os.fsencode(self._key_file.path)

    def _drop_key_file(self) -> None:
        if self._key_file is not None:
            self._key_file.remove()
            self._key_file = None

    def _echo(self) -> bytes:
        return self._challenge + b"\n"

    def _start_tls(self) -> bytes:
        assert self._auth_modes.certificates is not None
        self._tls = self._auth_modes.certificates.client(self._auth_modes.name)
        return self._tls.start()

    def _ask_version(self) -> bytes:
        return b"" if Omission.VERSION in self._omissions else b"version\n"

    def _ask_for_host(self) -> bytes:
        return f"sethost:{self.facts.host_id}\n".encode()

    def _ask_for_id(self) -> bytes:
        """Ask which id the lond serves if it has several but no ``sethost``."""
        return b"ping\n" if self._several and not self.facts.knows_sethost else b""

    def _ask_for_key(self) -> bytes:
        return b"ekey\n" if self.key is None else b""

    #: The states in which we send: what, and the next state if something was sent or not.
    _SPEAKS: dict[State, tuple[Callable[[Handshake], bytes], State, State]] = {
        State.CONNECTED: (_open, State.INITIALIZED, State.INITIALIZED),
        State.CHALLENGE_RECEIVED: (_echo, State.CHALLENGE_REPLIED, State.CHALLENGE_REPLIED),
        State.STARTING_TLS: (_start_tls, State.RECEIVING_KEY_IN_TLS, State.RECEIVING_KEY_IN_TLS),
        State.REQUESTING_VERSION: (_ask_version, State.READING_VERSION_STRING, State.SET_HOST),
        State.SET_HOST: (_ask_for_host, State.HOST_SET, State.REQUESTING_ID),
        State.REQUESTING_ID: (_ask_for_id, State.READING_ID, State.REQUESTING_KEY),
        State.REQUESTING_KEY: (_ask_for_key, State.RECEIVING_KEY, State.IDLE),
    }

    # What the lond sends.

    def _opened(self, line: bytes) -> State:
        if self._auth_mode is AuthMode.SSL and line == b"ok:ssl":
            return State.STARTING_TLS
        if self._key_file is not None and line == b"ok:local":
            return State.TAKING_KEY_FILE
        if not _CHALLENGE.fullmatch(line):
            raise HandshakeError(f"expected a challenge, got {quoted(line)}")
        if not self._auth_modes.insecure:
            raise HandshakeError(
                "it is an old lond without a secure authentication mode, and loncAllowInsecure is 0"
            )
        if self._auth_mode is AuthMode.LOCAL and self._auth_modes.certificates is not None:
            raise HandshakeError("that lond takes no key files")  # it may support TLS
        self._auth_mode = AuthMode.INSECURE
        self._drop_key_file()
        self._challenge = line
        return State.CHALLENGE_RECEIVED

    def _through_tls(self, tls: TLSPhase, data: bytes) -> tuple[bytes, bytes]:
        """Return what to send, and the plain bytes received after TLS."""
        try:
            said = tls.receive(data)
        except TLSError as error:
            raise HandshakeError(str(error), error.farewell) from None
        if tls.line is not None and self.key is None:
            if not _KEY.fullmatch(tls.line):
                raise HandshakeError(f"expected a key, got {len(tls.line)} other bytes")
            self.key = bytes.fromhex(tls.line.decode())
            said += self._go(State.REQUESTING_VERSION)
        plain = tls.rest()
        if plain:
            self._tls = None
        return said, plain

    def _accepted(self, line: bytes) -> State:
        if line != b"ok":
            raise HandshakeError(
                f"the lond replied to our answer to the challenge with {quoted(line)}"
            )
        return State.REQUESTING_VERSION

    def _version(self, line: bytes) -> State:
        self.facts.knows_version = line != _UNKNOWN
        if self.facts.knows_version:
            if _BUILD_KEY.fullmatch(line):
                # Some of the first releases take any third line for ``ekey``.
                self._early_key = line
            self.facts.version = _number_in(line)
        return State.SET_HOST

    def _host_set(self, line: bytes) -> State:
        facts = self.facts
        if line == _UNKNOWN:
            facts.knows_sethost = False
        elif line != b"ok":
            facts.unserved.append(facts.host_id)
            if not self._others:
                error = OtherLondError if line == _UNABLE else HandshakeError
                raise error(f"that lond is not {facts.host_id}: it says {quoted(line)}")
            facts.host_id = self._others.pop(0)
            return State.SET_HOST
        return State.REQUESTING_ID

    def _id_told(self, line: bytes) -> State:
        facts = self.facts
        told = line.rstrip(b"\r").decode("ascii", "replace")
        wanted = [facts.host_id, *self._others]
        if told not in wanted:
            raise OtherLondError(
                f"that lond does not support sethost, and identifies itself as {quoted(line)}: "
                f"requests for {', '.join(wanted)} are not sent to it"
            )
        facts.host_id = facts.only = told
        return State.REQUESTING_KEY

    def _build_key(self, line: bytes) -> State:
        if line == _UNKNOWN and self._early_key:
            line = self._early_key
        if not _BUILD_KEY.fullmatch(line):
            # Not logged: it may be a valid key followed by garbage.
            raise HandshakeError(f"expected a key, got {len(line)} other bytes")
        self.key = session_key(self.facts.host_id, self._own_id, line)
        return State.IDLE

    #: The states in which a line is expected: its handler, which returns the next state.
    _TAKES: dict[State, Callable[[Handshake, bytes], State]] = {
        State.INITIALIZED: _opened,
        State.CHALLENGE_REPLIED: _accepted,
        State.READING_VERSION_STRING: _version,
        State.HOST_SET: _host_set,
        State.READING_ID: _id_told,
        State.RECEIVING_KEY: _build_key,
    }


def _number_in(line: bytes) -> str:
    """Return the number in a lond's version, or the line itself if there is none."""
    if revision := _REVISION.search(line):
        line = revision[1] or line
    if found := _NUMBER[0].search(line) or _NUMBER[1].search(line):
        return found[0].decode()
    return quoted(line.strip(), 40)[1:-1]
