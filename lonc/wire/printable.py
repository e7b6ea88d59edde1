"""
Making text from others safe for log lines and terminals.

This module is pure: it imports nothing of lonc.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""
    Escape unprintable characters as ``\n``, ``\x1b``: line ends, terminal and bidi control codes.

    A byte that was not UTF-8 (``surrogateescape``) becomes ``\xff`` as well.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def quoted(text: str | bytes, most: int = 60) -> str:
    """
    Return the beginning of a text in quotes, in ASCII, since some letters look alike.

    :param most: maximum characters; a longer text is cut off with three dots.
    """
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    return ascii(text if len(text) <= most else text[: most - 3] + "...")
