"""
The session key and the encrypted frames (protocol, sections 3 and 4; row S7).

This module is pure: it imports nothing of lonc, and both sides of the exchange use it.

The cipher is IDEA in ECB mode, because that is what every lond supports. It conceals a text, but
does not detect changes.
"""

from __future__ import annotations

from binascii import hexlify, unhexlify
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.algorithms import IDEA
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.modes import ECB

_BLOCK: Final = 8  # bytes
#: Padding (spaces, at least one) for a text whose last block has so many bytes.
_PADDING: Final = [b" " * (_BLOCK - size) for size in range(_BLOCK)]
_KEY_TEXT: Final = 32  # hex digits of the 16 bytes of a key
#: Digits of a length: more than any line limit needs, few enough for a fast `int`.
_LENGTH_DIGITS: Final = 10


def _size(length: int) -> tuple[int, int]:
    """Return the length of a text, and the number of hex digits that it takes with its padding."""
    return length, 2 * (length - length % _BLOCK + _BLOCK)


#: What is before the hex digits of usual texts, by their lengths.
_HEADS: Final = [b"enc:%d:" % length for length in range(256)]

#: What `_size` returns for these, by the head without its last colon: to work it out would take
#: longer than the rest.
_SIZES: Final = {head[:-1]: _size(length) for length, head in enumerate(_HEADS)}

#: Letters past F become digits, ten at a time: G..P and then Q..Z.
_HEXISH: Final = bytes.maketrans(b"GHIJKLMNOPQRSTUVWXYZ", b"01234567890123456789")


class FrameError(Exception):
    """An invalid ``enc:`` frame; the message does not contain its content."""


def session_key(lond_id: str, lonc_id: str, buildkey: bytes) -> bytes:
    """
    Derive the key of one connection (protocol, section 3).

    :param lond_id: the host id of the lond.
    :param lonc_id: the caller's own host id.
    :param buildkey: the lond's answer to ``ekey``, without its newline.
    :return: 16 bytes.
    """
    # bytes.upper() changes ASCII only, as the protocol demands.
    names = (lond_id + lonc_id).encode().upper().translate(_HEXISH)
    text = ((names + buildkey) * 3)[:_KEY_TEXT].ljust(_KEY_TEXT, b"0")
    digits = bytes(_hex_value(character) for character in text)
    return bytes(high << 4 | low for high, low in zip(digits[::2], digits[1::2], strict=True))


def _hex_value(character: int) -> int:
    """Read a character as Perl's ``pack "H"`` does, which accepts any character."""
    return (character + 9 if chr(character).isalpha() and character < 128 else character) & 15


def has_idea() -> bool:
    """Return whether OpenSSL has the cipher: some systems build it without."""
    try:
        SessionCipher(bytes(16))
    except FrameError:
        return False
    return True


class SessionCipher:
    """
    Encrypts and decrypts the texts of one connection (protocol, section 4).

    :param key: 16 bytes.
    :raises FrameError: OpenSSL has no IDEA.
    """

    __slots__ = ("_decrypt_blocks", "_encrypt_blocks")

    def __init__(self, key: bytes) -> None:
        cipher = Cipher(IDEA(key), ECB())
        # ECB has no state between blocks, so one context serves all frames.
        try:
            self._encrypt_blocks = cipher.encryptor().update
            self._decrypt_blocks = cipher.decryptor().update
        except UnsupportedAlgorithm:
            raise FrameError("OpenSSL has no IDEA") from None

    def encrypt(self, text: bytes) -> bytes:
        """Frame a text (without its newline) as ``enc:<length>:<hex>``, without a newline."""
        length = len(text)
        encrypt = self._encrypt_blocks  # looked up apart: it is no method, and is found faster so
        blocks = encrypt(text + _PADDING[length % _BLOCK])
        head = _HEADS[length] if length < len(_HEADS) else b"enc:%d:" % length
        return head + hexlify(blocks)

    def decrypt(self, frame: bytes) -> bytes:
        """
        Read a frame without its newline.

        For a text of whole blocks, the block of spaces that the protocol appends may be missing;
        any other number of blocks is an error.

        :raises FrameError: not a valid frame.
        """
        head, _, encrypted = frame.rpartition(b":")
        length, full = _SIZES.get(head) or _size_after(head)
        if len(encrypted) != full and (length % _BLOCK or len(encrypted) != 2 * length):
            raise FrameError(
                f"a text of {length} bytes takes {full} hex digits, not {len(encrypted)}"
            )
        try:
            blocks = unhexlify(encrypted)
        except ValueError:
            raise FrameError("its text is not in hex digits") from None
        decrypt = self._decrypt_blocks
        return decrypt(blocks)[:length]


def _size_after(head: bytes) -> tuple[int, int]:
    """Return what `_size` returns for the length in the head of any frame."""
    prefix, colon, digits = head.partition(b":")
    if prefix != b"enc" or not colon:
        raise FrameError("not of the form enc:<length>:<hex>")
    if not digits.isdigit() or len(digits) > _LENGTH_DIGITS:
        raise FrameError("its length is not a number, or too large a one")
    return _size(int(digits))
