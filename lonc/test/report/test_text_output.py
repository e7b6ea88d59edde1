"""Text on a stream that perhaps nobody reads."""

from __future__ import annotations

import io
import os
import select
import threading

from twisted.trial.unittest import SynchronousTestCase

from lonc.report import text_output
from lonc.report.text_output import TextOutput

#: Bytes that a pipe holds, and more than that.
PIPE = 65536

#: Seconds for a thread to write what has room; it takes some microseconds.
LONG = 60.0


class TextOutputTests(SynchronousTestCase):
    """A pipe that the test reads or not."""

    def setUp(self) -> None:
        self.reading, writing = os.pipe()
        self.stream = open(writing, "w", encoding="ascii")  # noqa: SIM115
        self.addCleanup(self.close)
        self.output = TextOutput(self.stream)

    def close(self) -> None:
        """Let the thread end its write, and close both ends."""
        if self.reading >= 0:
            os.close(self.reading)
        self.output.wait(LONG)
        self.stream.close()

    def read_all(self, output: TextOutput) -> list[str]:
        """Return all that is written, line by line."""
        said = bytearray()

        def read() -> None:
            while not said.endswith(b"\0"):
                said.extend(os.read(self.reading, PIPE))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        self.assertTrue(output.wait(LONG))
        select.select((), (self.stream,), (), LONG)
        os.write(self.stream.fileno(), b"\0")
        reader.join(LONG)
        return said[:-1].decode().splitlines()

    def test_read(self) -> None:
        """Lines are written in order; characters that cannot be encoded are escaped."""
        for text in ("one", "zwölf\udcff", "three"):
            self.output.show(text)
        self.assertEqual(self.read_all(self.output), ["one", "zw\\xf6lf\\udcff", "three"])

    def test_nobody_reads(self) -> None:
        """
        While nobody reads, nothing waits. A later reader finds complete lines in order, and the
        number of those missing.
        """
        self.patch(text_output, "ROOM", PIPE)
        lines = [f"{number:0>99}" for number in range(2_000)]
        for line in lines:
            self.output.show(line)
        self.assertFalse(self.output.wait(0.0))
        read = self.read_all(self.output)
        whole = [line for line in read if line.isdecimal()]
        missing = [int(line.split()[-1]) for line in read if "lines left out:" in line]
        self.assertEqual(whole, sorted({*whole} & {*lines}))
        self.assertEqual(len(whole) + sum(missing), len(lines))
        self.assertGreater(sum(missing), 0)
        self.output.show("and now")
        self.assertEqual(self.read_all(self.output), ["and now"])

    def test_told_in_between(self) -> None:
        """The count is where the lines are missing, before the next one."""
        self.patch(text_output, "ROOM", 10)
        self.output._thread = self.output  # type: ignore[assignment]
        self.output.show("a")
        self.output.show("much too long")
        self.output.show("b")
        self.assertEqual(
            b"".join(self.output._waiting), b"a\nlonc: nobody read this: lines left out: 1\nb\n"
        )
        self.output._waiting.clear()

    def test_not_blocking(self) -> None:
        """A non-blocking descriptor loses nothing, and remains non-blocking."""
        os.set_blocking(self.stream.fileno(), False)
        lines = [f"{number:0>99}" for number in range(2_000)]
        for line in lines:
            self.output.show(line)
        self.assertEqual(self.read_all(self.output), lines)
        self.assertFalse(os.get_blocking(self.stream.fileno()))

    def test_reader_gone(self) -> None:
        """Without a reader, the lines are dropped."""
        os.close(self.reading)
        self.reading = -1
        self.output.show("x")
        self.assertTrue(self.output.wait(LONG))

    def test_thread_ends(self) -> None:
        """Where there are no lines for a while there is no thread either, until the next one."""
        self.patch(text_output, "LINGER", 0.0)
        for text in ("one", "two"):
            self.output.show(text)
            thread = self.output._thread
            self.assertTrue(self.output.wait(LONG))
            if thread is not None:  # it may have ended already
                thread.join(LONG)
            self.assertIsNone(self.output._thread)
            self.assertEqual(os.read(self.reading, PIPE), text.encode() + b"\n")

    def test_no_thread(self) -> None:
        """Where no thread can be started, lines wait for the next one."""

        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch = self.patch(threading.Thread, "start", start)
        self.output.show("one")
        patch.restore()
        self.assertFalse(self.output.wait(0.0))
        self.output.show("two")
        self.assertEqual(self.read_all(self.output), ["one", "two"])

    def test_no_descriptor(self) -> None:
        """A stream in memory is refused."""
        self.assertRaises(OSError, TextOutput, io.StringIO())
