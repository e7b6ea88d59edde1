"""
Text for people on a terminal, a pipe or the journal, written without ever blocking.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import threading
from collections import deque
from typing import Final, TextIO

#: Bytes that wait for a reader; further lines are dropped. This is some 8,000 lines of the log,
#: more than one turn of the event loop writes: who reads misses none.
ROOM: Final = 1_048_576

#: Seconds to write what still waits when the process ends.
LAST: Final = 1.0


class TextOutput:
    """
    Writes lines to a stream without waiting for its reader.

    A thread blocks instead: setting O_NONBLOCK would also affect the shell that we inherited the
    descriptor from, and everybody else who shares it. Lines for which there is no room are dropped
    and counted, and the count is written once there is room again. Characters that the stream
    cannot encode are escaped.

    :param stream: its descriptor is written to, not its buffer.
    :raises OSError: it has no descriptor.
    """

    def __init__(self, stream: TextIO) -> None:
        self._descriptor = stream.fileno()
        self._encoding = stream.encoding or "utf-8"
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def show(self, text: str) -> None:
        """Write a text and a newline, now or as soon as possible; never raises."""
        data = f"{text}\n".encode(self._encoding, "backslashreplace")
        with self._changed:
            if self._size + len(data) > ROOM:
                self._dropped += 1
                return
            self._tell_dropped()
            self._put(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="lonc text", daemon=True)
                self._thread.start()
                atexit.register(self.wait, LAST)
            self._changed.notify_all()

    def _put(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)

    def _tell_dropped(self) -> None:
        if self._dropped:
            self._put(f"lonc: nobody read this: lines left out: {self._dropped}\n".encode())
            self._dropped = 0

    def wait(self, seconds: float) -> bool:
        """Wait until everything is written; return whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                data = self._waiting[0]
            with contextlib.suppress(OSError):  # the reader has gone: the log file has it
                self._write(data)
            with self._changed:
                self._waiting.popleft()
                self._size -= len(data)
                if not self._waiting:
                    self._tell_dropped()
                self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody else has made it non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
