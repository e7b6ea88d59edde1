"""
Text that came from others, made harmless for people: in a line of a log, and on a terminal.

This module is pure: it imports nothing of lonc.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""
    Write as ``\n``, ``\x1b`` what would end a line, move a cursor, change colours, turn text round.

    A byte that was no UTF-8 (one of ``surrogateescape``'s) becomes ``\xff`` as well.
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
    Return the beginning of a text in quotes, in ASCII: some letters look like others.

    :param most: characters of it; three dots stand for the rest.
    """
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    return ascii(text if len(text) <= most else text[: most - 3] + "...")
