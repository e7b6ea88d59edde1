"""
Writes text to a terminal, a pipe or the journal without ever blocking.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import threading
from collections import deque
from typing import Final, TextIO

#: Bytes that are buffered for a slow reader; further lines are dropped. This is about 8,000 log
#: lines, more than are written in one iteration of the event loop, so an active reader misses none.
ROOM: Final = 1_048_576

#: Seconds for writing buffered lines when the process ends.
LAST: Final = 1.0

#: Seconds after which the thread ends if there are no lines: in a process with one thread only,
#: each system call on a descriptor costs the kernel less.
LINGER: Final = 1.0


class TextOutput:
    """
    Writes lines to a stream without waiting for its reader.

    A thread, which is there while there are lines, blocks instead: O_NONBLOCK would also affect the
    shell from which the descriptor was inherited, and all others that share it. Lines that do not
    fit into the buffer are dropped and counted, and the count is written once there is room again.
    Characters that the stream cannot encode are escaped.

    :param stream: only its descriptor is used, not its buffer.
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
                self._begin()
            self._changed.notify_all()

    def _begin(self) -> None:
        """Start the thread; if that is impossible, the next line tries again."""
        thread = threading.Thread(target=self._work, name="lonc text", daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread
            atexit.register(self.wait, LAST)

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
                if not self._changed.wait_for(lambda: self._waiting, LINGER):
                    self._thread = None
                    atexit.unregister(self.wait)
                    return
                data = self._waiting[0]
            with contextlib.suppress(
                OSError
            ):  # there is no reader; the line is also in the log file
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
            except BlockingIOError:  # another process has made it non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
