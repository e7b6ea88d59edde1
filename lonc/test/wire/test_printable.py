"""Text of others, for people."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from lonc.wire.printable import printable, quoted


class PrintableTests(SynchronousTestCase):
    """Text that is safe for terminals and logs."""

    def test_printable(self) -> None:
        """Letters are unchanged; control characters are escaped."""
        for text, shown in (
            ("Z\xfcrich", "Z\xfcrich"),
            ("a\nb\x1b[2J", r"a\nb\x1b[2J"),
            ("\u202egnp.exe", r"\u202egnp.exe"),
            (os.fsdecode(b"a\xff"), r"a\xff"),
            ("\ud800", r"\ud800"),
        ):
            self.assertEqual(printable(text), shown)

    def test_quoted(self) -> None:
        """The text is quoted, in ASCII, and cut off."""
        self.assertEqual(quoted("h\xf6st\n"), r"'h\xf6st\n'")
        self.assertEqual(quoted(b"h\xff"), r"'h\xff'")
        self.assertEqual(quoted("x" * 60), f"'{'x' * 60}'")
        self.assertEqual(quoted("x" * 61), f"'{'x' * 57}...'")
        self.assertEqual(quoted("abcdef", most=5), "'ab...'")
