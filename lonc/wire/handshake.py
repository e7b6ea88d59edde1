"""
What passes between a new connection and its first request (protocol, sections 2, 3 and 9).

Pure: bytes go in, bytes to send come out; :class:`lonc.host.connection.LondConnection` moves them.
The key file of one of the ways in is made and removed by an object that is handed in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

import attrs

from lonc.wire.cipher import session_key
from lonc.wire.printable import quoted
from lonc.wire.tls import TLSError, TLSPhase

#: No line of a handshake comes near this length, in bytes; a lond of 2003 sends fewer than 40.
MAX_LINE = 1024

_CHALLENGE = re.compile(rb"[0-9]{1,64}")
_BUILD_KEY = re.compile(rb"[0-9A-F]{1,256}")
_KEY = re.compile(rb"[0-9A-Fa-f]{32}")
_REVISION = re.compile(rb"\$Revision[: ]*([!-#%-~]{0,40}) *\$")
#: A number with a point in it, else one that stands alone.
_NUMBER = re.compile(rb"[0-9]+(?:\.[0-9]+)+"), re.compile(rb"(?<!\w)[0-9]+(?!\w)")
_UNKNOWN = b"unknown_cmd"

#: Seconds that a lond has to delete the key file after it has said that it took it.
TAKE_LIMIT = 1.0


class HandshakeError(Exception):
    """
    The lond does not speak the handshake, or will not have us. The message is for a person.

    :ivar farewell: what to send before hanging up.
    """

    def __init__(self, message: str, farewell: bytes = b"") -> None:
        super().__init__(message)
        self.farewell = farewell


class OtherLondError(HandshakeError):
    """The lond is there, but does not serve the host id that is wanted."""


class State(Enum):
    """
    The states of protocol, section 2, and more: for section 9, and for a lond that cannot be told
    which of its host ids is wanted.
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
    """The ways in, by what decides on the key (protocol, section 9); the best one first."""

    LOCAL = "local"
    SSL = "ssl"
    INSECURE = "insecure"


class KeyFile(Protocol):
    """A file with a key in it: see :class:`lonc.config.key_files.KeyFile`."""

    @property
    def path(self) -> str: ...  # noqa: D102

    @property
    def key(self) -> bytes: ...  # noqa: D102

    @property
    def taken(self) -> bool: ...  # noqa: D102

    def remove(self) -> None: ...  # noqa: D102


class KeyFiles(Protocol):
    """Where key files come from: see :class:`lonc.config.key_files.KeyFolder`."""

    def make(self) -> KeyFile: ...  # noqa: D102


class Certificates(Protocol):
    """What makes our end of TLS: see :class:`lonc.config.certificates.Certificates`."""

    def client(self, name: str) -> TLSPhase: ...  # noqa: D102


@attrs.frozen
class AuthModes:
    """
    The ways in that are open for a host's connections.

    :ivar key_files: makes key files; None where the lond is on another machine.
    :ivar certificates: what TLS needs; None where there is no certificate of our own.
    :ivar insecure: whether a connection in the clear will do.
    :ivar name: the host's name: the lond's certificate has to be for it.
    """

    key_files: KeyFiles | None = None
    certificates: Certificates | None = None
    insecure: bool = True
    name: str = ""


@attrs.define
class LondTraits:
    """
    What is known of a host's lond; for as long as it stays the same one.

    :ivar alone: whether the table has no other host id for it.
    :ivar version: what it says it is; empty when it does not say.
    :ivar mode: the `AuthMode` by which the last complete handshake went, in words; empty before it.
    :ivar knows_version, knows_sethost: False once it has said ``unknown_cmd`` to it, and at nothing
        else: an accident must not send the requests for one id to another. Of several ids, each
        connection asks again.
    :ivar breaks_at_version: whether it hung up, or worse, when it was asked for its version.
    :ivar only: the one host id that it serves, where it knows no ``sethost``; empty where it does,
        or has no other.
    :ivar takes_key_files: False once that way in was tried and led nowhere.
    """

    alone: bool = True
    version: str = ""
    mode: str = ""
    knows_version: bool = True
    knows_sethost: bool = True
    breaks_at_version: bool = False
    takes_key_files: bool = True
    only: str = ""


class Handshake:
    """
    Our side of one handshake (rows S6 and F15).

    Whoever drives it calls `fail` or `close` when it ends before it is complete, and `look` now and
    then while ``state`` is ``TAKING_KEY_FILE``, for `TAKE_LIMIT` at most.

    :param lond_id: the host id of the lond that is wanted.
    :param own_id: our own host id.
    :param others: further host ids that this lond should serve: one of them will do as well.
    :ivar lond_id: the host id that the lond speaks for, once ``state`` is ``IDLE``.
    :ivar unserved: those that it refused to speak for.
    :ivar state: where it stands.
    :ivar key: the session's key of 16 bytes, once ``state`` is ``IDLE``.
    """

    def __init__(
        self,
        lond_id: str,
        own_id: str,
        auth_modes: AuthModes | None = None,
        traits: LondTraits | None = None,
        others: Sequence[str] = (),
    ) -> None:
        self.lond_id = lond_id
        self.unserved: list[str] = []
        self._others = [each for each in others if each != lond_id]
        self._own_id = own_id
        self._auth_modes = auth_modes or AuthModes()
        self._traits = traits or LondTraits()
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
        Return what opens the exchange.

        :raises HandshakeError: there is no way in.
        """
        return self._go(State.CONNECTED)

    def receive(self, data: bytes) -> bytes:
        """
        Take bytes from the lond, however they are split, and return what to send.

        :raises HandshakeError: when they are not what this state awaits.
        """
        said = b""
        if data and self.state is State.TAKING_KEY_FILE:
            raise HandshakeError(f"more than one line in state {self._where}")
        if self._tls is not None:
            said, data = self._through_tls(self._tls, data)
            if data and self.state is State.IDLE:
                raise HandshakeError("more than a key came")
        self._received += data
        # A lond that refuses may leave out the newline; nothing else begins like that.
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
        return said + self._go(self._TAKES[self.state](self, line)) + self.look()

    def look(self) -> bytes:
        """See whether the lond has taken the key file that it says it took; return what to send."""
        key_file = self._key_file
        if self.state is not State.TAKING_KEY_FILE or key_file is None or not key_file.taken:
            return b""
        self.key = bytes.fromhex(key_file.key.decode())
        self._drop_key_file()
        return self._go(State.REQUESTING_VERSION)

    def fail(self) -> bool:
        """
        Learn from an end that the lond has brought about, and leave nothing behind.

        :return: whether another try is worth while, since something is left out in it: the key
            file that the lond did not take, or the question for its version, which one of the
            first releases may not even answer with ``unknown_cmd``.
        """
        if self.state is State.READING_VERSION_STRING:
            self._traits.breaks_at_version = self._traits.alone
            return self._traits.alone
        if self._auth_mode is not AuthMode.LOCAL or self.key is not None:
            return False
        self._traits.takes_key_files = False
        self.close()
        return self._has_others

    def close(self) -> None:
        """Leave nothing behind: the handshake will never be complete."""
        self._drop_key_file()

    @property
    def _where(self) -> str:
        return self.state.value

    def _go(self, state: State) -> bytes:
        """Go on to a state, and through those in which we speak; return what is said."""
        said = b""
        while state in self._SPEAKS:
            speak, then, otherwise = self._SPEAKS[state]
            words = speak(self)
            said += words
            state = then if words else otherwise
        self.state = state
        if state is State.IDLE:
            self._traits.mode = self._auth_mode.value
        return said

    # What we say. Nothing: there is no need to.

    def _open(self) -> bytes:
        """Take the best way in; what the lond answers tells whether it will do."""
        modes = self._auth_modes
        if modes.key_files is not None and (self._traits.takes_key_files or not self._has_others):
            self._auth_mode = AuthMode.LOCAL
            return b"init:local:%s\n" % self._make_key_file(modes.key_files)
        if modes.certificates is not None:
            self._auth_mode = AuthMode.SSL
            return b"init:ssl\n"
        if modes.insecure:
            return b"init\n"
        raise HandshakeError("no way in is open: loncAllowInsecure is 0, and no certificate is set")

    @property
    def _has_others(self) -> bool:
        """Whether there is a way in beside key files."""
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
        traits = self._traits
        asks = traits.knows_version and not (traits.breaks_at_version and traits.alone)
        return b"version\n" if asks else b""

    def _ask_for_host(self) -> bytes:
        """Ask again where there are several ids: the lond may be another release by now."""
        traits = self._traits
        asks = traits.knows_sethost or not traits.alone
        return f"sethost:{self.lond_id}\n".encode() if asks else b""

    def _ask_for_id(self) -> bytes:
        """Where the lond serves several ids and cannot be told which one, it has to tell us."""
        traits = self._traits
        return b"" if traits.knows_sethost or traits.alone else b"ping\n"

    def _ask_for_key(self) -> bytes:
        return b"ekey\n" if self.key is None else b""

    #: The states in which we speak: what we say, and the states after that, spoken or not.
    _SPEAKS: dict[State, tuple[Callable[[Handshake], bytes], State, State]] = {
        State.CONNECTED: (_open, State.INITIALIZED, State.INITIALIZED),
        State.CHALLENGE_RECEIVED: (_echo, State.CHALLENGE_REPLIED, State.CHALLENGE_REPLIED),
        State.STARTING_TLS: (_start_tls, State.RECEIVING_KEY_IN_TLS, State.RECEIVING_KEY_IN_TLS),
        State.REQUESTING_VERSION: (_ask_version, State.READING_VERSION_STRING, State.SET_HOST),
        State.SET_HOST: (_ask_for_host, State.HOST_SET, State.REQUESTING_ID),
        State.REQUESTING_ID: (_ask_for_id, State.READING_ID, State.REQUESTING_KEY),
        State.REQUESTING_KEY: (_ask_for_key, State.RECEIVING_KEY, State.IDLE),
    }

    # What the lond says.

    def _opened(self, line: bytes) -> State:
        if self._auth_mode is AuthMode.SSL and line == b"ok:ssl":
            return State.STARTING_TLS
        if self._key_file is not None and line == b"ok:local":
            return State.TAKING_KEY_FILE
        if not _CHALLENGE.fullmatch(line):
            raise HandshakeError(f"no challenge but {quoted(line)}")
        if not self._auth_modes.insecure:
            raise HandshakeError(
                "it is an old lond with no safe way in, and loncAllowInsecure is 0"
            )
        if self._auth_mode is AuthMode.LOCAL and self._auth_modes.certificates is not None:
            raise HandshakeError("that lond takes no key files")  # it may know TLS
        self._auth_mode = AuthMode.INSECURE
        self._drop_key_file()
        self._challenge = line
        return State.CHALLENGE_RECEIVED

    def _through_tls(self, tls: TLSPhase, data: bytes) -> tuple[bytes, bytes]:
        """Return what to send, and what has come behind TLS."""
        try:
            said = tls.receive(data)
        except TLSError as error:
            raise HandshakeError(str(error), error.farewell) from None
        if tls.line is not None and self.key is None:
            if not _KEY.fullmatch(tls.line):
                raise HandshakeError(f"no key but {len(tls.line)} bytes of something else")
            self.key = bytes.fromhex(tls.line.decode())
            said += self._go(State.REQUESTING_VERSION)
        plain = tls.rest()
        if plain:
            self._tls = None
        return said, plain

    def _accepted(self, line: bytes) -> State:
        if line != b"ok":
            raise HandshakeError(f"our answer to the challenge was met with {quoted(line)}")
        return State.REQUESTING_VERSION

    def _version(self, line: bytes) -> State:
        if line == _UNKNOWN:
            self._traits.knows_version, self._traits.version = False, ""
            return State.SET_HOST
        if _BUILD_KEY.fullmatch(line):
            # One of the first releases takes whatever comes third for ``ekey``.
            self._early_key = line
        self._traits.version = _number_in(line)
        return State.SET_HOST

    def _host_set(self, line: bytes) -> State:
        if line == _UNKNOWN:
            self._traits.knows_sethost = False
        elif line != b"ok":
            if not self._others:
                raise HandshakeError(f"that lond is not {self.lond_id}: it says {quoted(line)}")
            self.unserved.append(self.lond_id)
            self.lond_id = self._others.pop(0)
            return State.SET_HOST
        else:
            self._traits.knows_sethost, self._traits.only = True, ""
        return State.REQUESTING_ID

    def _id_told(self, line: bytes) -> State:
        told = line.rstrip(b"\r").decode("ascii", "replace")
        wanted = [self.lond_id, *self._others]
        if told not in wanted:
            raise OtherLondError(
                f"that lond knows no sethost, and the id that it gives is {quoted(line)}: "
                f"requests for {', '.join(wanted)} are not sent to it"
            )
        self.lond_id = self._traits.only = told
        return State.REQUESTING_KEY

    def _build_key(self, line: bytes) -> State:
        if line == _UNKNOWN and self._early_key:
            line = self._early_key
        if not _BUILD_KEY.fullmatch(line):
            # Not shown: it may be a good key with something wrong at its end.
            raise HandshakeError(f"no key but {len(line)} bytes of something else")
        self.key = session_key(self.lond_id, self._own_id, line)
        return State.IDLE

    #: The states in which a line is awaited: what takes it, and tells the state after that.
    _TAKES: dict[State, Callable[[Handshake, bytes], State]] = {
        State.INITIALIZED: _opened,
        State.CHALLENGE_REPLIED: _accepted,
        State.READING_VERSION_STRING: _version,
        State.HOST_SET: _host_set,
        State.READING_ID: _id_told,
        State.RECEIVING_KEY: _build_key,
    }


def _number_in(line: bytes) -> str:
    """Return the number in a lond's version, and the line as it is where there is none."""
    if revision := _REVISION.search(line):
        line = revision[1] or line
    if found := _NUMBER[0].search(line) or _NUMBER[1].search(line):
        return found[0].decode()
    return quoted(line.strip(), 40)[1:-1]
