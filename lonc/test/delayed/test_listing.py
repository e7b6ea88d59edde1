# trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""Delayed requests and those that are kept, as people see them."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from lonc.delayed.listing import Listing, UnknownRequest
from lonc.delayed.sealing import SEALED, seal

NOW = 1_700_000_600.0
KEY = bytes(range(32))
FIRST = "1700000000.4711.put.l1"
SECOND = "1700000300.4711.put.l2"


class ListingTests(SynchronousTestCase):
    """A folder with requests of each kind."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.makedirs(os.path.join(self.folder, "kept"))
        self.listing = Listing(self.folder, KEY, lambda: NOW)

    def put(self, file: str, content: bytes) -> None:
        """Write a file."""
        with open(os.path.join(self.folder, file), "wb") as opened:
            opened.write(content)

    def there(self) -> list[str]:
        """Return the paths of all files."""
        return sorted(
            os.path.relpath(os.path.join(folder, file), self.folder)
            for folder, _, files in os.walk(self.folder)
            for file in files
        )

    def refused(self, file: str) -> str:
        """Return why a file cannot be looked into, dropped or sent again."""
        for act in (self.listing.drop, self.listing.requeue):
            self.assertRaises(UnknownRequest, act, file)
        return str(self.assertRaises(UnknownRequest, self.listing.show, file, 10))

    def test_rows(self) -> None:
        """What they are, for whom, how old; in the clear, sealed, and kept with its answer."""
        self.put(FIRST, b"put:msu:alice:x=secret\n")
        self.put(SECOND + SEALED, seal(KEY, SECOND, b"encrypt:passwd:msu\n"))
        self.put("kept/" + SECOND + "~1", b"put:msu\n")
        self.put("kept/" + SECOND + "~1.answer", b"refused\n")
        self.put("other", b"x")
        rows = {row.file: row for row in self.listing.rows(None, {FIRST: (3, "timeout")})}
        self.assertEqual(set(rows), {FIRST, SECOND + SEALED, f"kept/{SECOND}~1"})
        first, second, kept = rows[FIRST], rows[SECOND + SEALED], rows[f"kept/{SECOND}~1"]
        self.assertEqual((first.host_id, first.command, first.age), ("l1", "put", 600.0))
        self.assertEqual((first.tries, first.last_answer, first.size), (3, "timeout", 23))
        self.assertEqual((second.command, second.kept), ("encrypt:passwd", False))
        self.assertEqual((kept.host_id, kept.last_answer, kept.kept), ("l2", "refused", True))
        self.assertEqual([row.file for row in self.listing.rows("l1", {})], [FIRST])

    def test_pages(self) -> None:
        """They are listed in the order of their names, behind one, and those kept at the end."""
        self.put(SECOND, b"put\n")
        self.put(FIRST, b"put\n")
        self.put("kept/" + FIRST, b"put\n")
        pages = [[row.file for row in self.listing.rows(None, {}, after)]
                 for after in ("", FIRST, SECOND, "kept/" + FIRST)]  # fmt: skip
        self.assertEqual(pages, [[FIRST, SECOND, f"kept/{FIRST}"], [SECOND, f"kept/{FIRST}"],
                                 [f"kept/{FIRST}"], []])  # fmt: skip

    def test_without_the_key(self) -> None:
        """A sealed one is there all the same."""
        self.put(SECOND + SEALED, seal(KEY, SECOND, b"put\n"))
        listing = Listing(self.folder, None, lambda: NOW)
        [row] = listing.rows(None, {})
        self.assertEqual((row.command, row.host_id), ("", "l2"))
        self.assertRaises(UnknownRequest, listing.show, row.file, 10)

    def test_no_folder(self) -> None:
        """Where nothing was ever kept there is no folder for it."""
        os.rmdir(os.path.join(self.folder, "kept"))
        self.assertEqual(self.listing.rows(None, {}), [])

    def test_show(self) -> None:
        """The content, or its beginning."""
        self.put(SECOND + SEALED, seal(KEY, SECOND, b"put:abc\n"))
        self.assertEqual(self.listing.show(SECOND + SEALED, 100), (b"put:abc\n", False))
        self.assertEqual(self.listing.show(SECOND + SEALED, 3), (b"put", True))

    def test_no_request(self) -> None:
        """What is no request in these folders cannot be reached."""
        self.put("other", b"x")
        os.symlink("/etc/passwd", os.path.join(self.folder, SECOND))
        for file in ("other", "../" + FIRST, "kept/../other", "/etc/passwd", "", "kept/", FIRST):
            self.refused(file)
        self.assertRaises(UnknownRequest, self.listing.show, SECOND, 10)

    def test_drop(self) -> None:
        """All of it goes: both forms, and the notes of one that is kept."""
        self.put(FIRST, b"x")
        self.put(FIRST + SEALED, b"x")
        self.listing.drop(FIRST)
        self.put("kept/" + FIRST, b"x")
        self.put("kept/" + FIRST + ".reason", b"x")
        self.listing.drop("kept/" + FIRST)
        self.assertEqual(self.there(), [])

    def test_requeue(self) -> None:
        """It has its own name again, which is the one that it was sealed under."""
        self.put(f"kept/{SECOND}~2{SEALED}", seal(KEY, SECOND, b"put\n"))
        self.put(f"kept/{SECOND}~2.answer{SEALED}", b"x")
        self.assertEqual(self.listing.requeue(f"kept/{SECOND}~2{SEALED}"), SECOND + SEALED)
        self.assertEqual(self.there(), [SECOND + SEALED])
        self.assertEqual(self.listing.show(SECOND + SEALED, 9), (b"put\n", False))

    def test_one_waits_already(self) -> None:
        """Nothing is overwritten."""
        self.put(FIRST, b"one\n")
        self.put("kept/" + FIRST, b"two\n")
        self.assertRaises(UnknownRequest, self.listing.requeue, "kept/" + FIRST)
        self.assertRaises(UnknownRequest, self.listing.requeue, FIRST)
        self.assertEqual(self.listing.show(FIRST, 9), (b"one\n", False))
