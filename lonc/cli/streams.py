"""
Standard output and error: no text causes an error, and none moves the cursor of a terminal.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from typing import TextIO

from lonc.wire.printable import printable


def _as_well_as_can_be(error: UnicodeError) -> tuple[bytes, int]:
    """Encode characters that the encoding lacks: surrogate escapes as bytes, others escaped."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    done = b"".join(
        bytes([ord(each) - 0xDC00])
        if 0xDC80 <= ord(each) <= 0xDCFF
        else each.encode("ascii", "backslashreplace")
        for each in text
    )
    return done, error.end


def prepare() -> None:
    """Make both streams accept any text; a closed one is replaced by the null device."""
    codecs.register_error("lonc", _as_well_as_can_be)
    sys.stdout = _prepared(sys.stdout)
    sys.stderr = _prepared(sys.stderr)


def _prepared(stream: TextIO | None) -> TextIO:
    if stream is None:
        return open(os.devnull, "w")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="lonc")
    return stream


def write(content: bytes) -> None:
    """Write external content: byte for byte, but escaped on a terminal."""
    if sys.stdout.isatty():
        lines = content.decode("utf-8", "surrogateescape").split("\n")
        sys.stdout.write("\n".join(map(printable, lines)))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
    sys.stdout.flush()


def report_error(message: str) -> None:
    """Write a line to standard error; write errors are ignored."""
    try:
        print(f"lonc: {printable(message)}", file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Discard buffered output, which Python would try to write again at exit."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
