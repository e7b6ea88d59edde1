"""
TLS for a single line, on a connection that is plain before and after it (protocol, section 9).

This module is pure: bytes received go in, bytes to send come out. TLS usually ends without
``close_notify``, since both sides know when, and plain data follows. So records are passed to
OpenSSL one at a time, and it never gets a byte that does not belong to TLS.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

#: The result of `ssl.SSLObject.getpeercert`.
Certificate = Mapping[str, Any]

#: Bytes of the line sent inside TLS, with its newline: a key of 32 digits.
LINE: Final = 33

_HEADER: Final = 5  # bytes: type, version, length
_LONGEST: Final = _HEADER + 2**14 + 2048  # bytes of a record at most
_KINDS: Final = range(20, 24)
#: The record types that may follow the line: an alert (close_notify) and a late session ticket.
_BELATED: Final = (0x15, 0x17)

#: OpenSSL's codes for a certificate not signed by the authority.
_OTHER_AUTHORITY: Final = (2, 7, 18, 19, 20, 21, 30)
_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9


class TLSError(Exception):
    """
    TLS failed. The message is readable.

    :ivar farewell: bytes to send before disconnecting, which tell the other side the reason.
    """

    def __init__(self, message: str, farewell: bytes = b"") -> None:
        super().__init__(message)
        self.farewell = farewell


class TLSPhase:
    """
    Our end of TLS on a connection.

    The server sends one line inside TLS to the client; then TLS ends.

    :param context: for a client or a server.
    :param check: called with the other side's certificate, which is signed by our authority and
        within its validity period; raises TLSError to reject it.

    :ivar established: whether the TLS handshake is complete on this side.
    :ivar line: the line received inside TLS, without its newline; None until then.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        check: Callable[[Certificate], None] = lambda certificate: None,
    ) -> None:
        self._raw = bytearray()  # received, but not yet processed
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._is_server = context.protocol is ssl.PROTOCOL_TLS_SERVER
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=self._is_server)
        self._check = check
        self._inside = b""
        self._over = False
        self._closed = False  # the other side has sent close_notify
        self.established = False
        self.line: bytes | None = None

    def start(self) -> bytes:
        """Return the first bytes to send: none on the server's side."""
        self._advance()
        return self._outgoing.read()

    def receive(self, data: bytes) -> bytes:
        """
        Handle bytes, however they are split, and return what to send.

        :raises TLSError: TLS failed; the object is no longer usable.
        """
        self._raw += data
        while record := self._next_record():
            self._incoming.write(record)
            self._advance()
        return self._outgoing.read()

    def send(self, data: bytes) -> bytes:
        """
        Return the TLS records that carry this data to the client.

        :param data: the line with its newline, or a part of it.
        """
        self._tls.write(data)
        self._over = True
        return self._outgoing.read()

    def close(self) -> bytes:
        """Return close_notify. It is optional: some programs send it, londs do not."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._outgoing.read()

    def rest(self) -> bytes:
        """Remove and return the plain bytes received after TLS."""
        if not self._raw or self._awaits_record:
            return b""
        rest = bytes(self._raw)
        self._raw.clear()
        return rest

    @property
    def _awaits_record(self) -> bool:
        """Whether the received data belongs to TLS: no plain line begins like a record."""
        return not self._over or (not self._closed and self._raw[0] in _BELATED)

    def _next_record(self) -> bytes:
        raw = self._raw
        if not raw or not self._awaits_record:
            return b""
        if raw[0] not in _KINDS or raw[1:2].strip(b"\x03"):
            raise TLSError(f"expected TLS, got {raw[:40].decode('latin-1')!a}")
        if len(raw) < _HEADER:
            return b""
        size = _HEADER + int.from_bytes(raw[3:_HEADER])
        if size > _LONGEST:
            raise TLSError(f"expected TLS, got a record of {size} bytes")
        if len(raw) < size:
            return b""
        record = bytes(raw[:size])
        del raw[:size]
        return record

    def _advance(self) -> None:
        """Proceed as far as the received records allow."""
        try:
            if not self.established:
                self._tls.do_handshake()
                self._check(self._peer_certificate())
                self.established = True
            self._take(self._tls.read(2 * LINE))
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise TLSError(_words(error), self._outgoing.read()) from None

    def _peer_certificate(self) -> Certificate:
        try:
            return self._tls.getpeercert() or {}
        except (ValueError, OverflowError):  # of Python itself, if a name is wrongly encoded
            raise TLSError("the certificate shown cannot be read") from None

    def _take(self, data: bytes) -> None:
        """Handle data received inside TLS."""
        if not data:
            self._closed = True
            if not self._over:
                raise TLSError("the other side ended TLS too soon")
            return
        self._inside += data
        line, newline, surplus = self._inside.partition(b"\n")
        if self._is_server or surplus or len(line) >= LINE:
            raise TLSError("more than a key came inside TLS")
        if newline:
            self.line = line
            self._over = True


def _words(error: ssl.SSLError) -> str:
    """Return a readable text for an error of OpenSSL."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code == _EXPIRED:
            return "the certificate shown has expired"
        if error.verify_code == _NOT_YET_VALID:
            return "the certificate shown is not valid yet"
        if error.verify_code in _OTHER_AUTHORITY:
            return f"the certificate shown is not signed by our authority: {error.verify_message}"
        return f"the certificate shown cannot be used: {error.verify_message}"
    reason = (error.reason or str(error)).lower().replace("_", " ")
    if "alert" in reason:
        return f"the other side ended TLS: {reason.partition('alert')[2].strip()}"
    return f"TLS failed: {reason}"
