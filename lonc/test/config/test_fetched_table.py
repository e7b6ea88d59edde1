"""Which tables from elsewhere are believed."""

from __future__ import annotations

from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from lonc.config.table_fetcher import Downloaded, FetchError, check_table
from lonc.test.fixtures.doubles import some_settings
from lonc.test.fixtures.properties import given, settings, st

#: A table as it comes from a server.
ROWS = [f"h{number}:d:library:h{number}.test:10.0.0.{number}" for number in range(1, 9)]

SETTINGS = some_settings("/f")


def text(*rows: str) -> bytes:
    """Return the lines of a table."""
    return "".join(f"{row}\n" for row in rows).encode()


class CheckTests(SynchronousTestCase):
    """What is believed of what a server sends."""

    def refused(
        self, sent: bytes, known: int = 0, last: int | None = None, certain: bool = True
    ) -> str:
        """Return why a text is no table."""
        error = str(
            self.assertRaises(
                FetchError, check_table, Downloaded(sent, certain), SETTINGS, known, last
            )
        )
        self.assertTrue(error.isprintable() and len(error) < 400, error)
        return error

    def test_table(self) -> None:
        """A table is one with comments, odd bytes and some lines that nobody understands, too."""
        sent = b"# \xfc\n\n" + text(*ROWS[:3]) + b"\xff\xfe nonsense\n" + b"^evil.test\n"
        table = check_table(Downloaded(sent), SETTINGS, 0)
        self.assertEqual(list(table.hosts), ["h1", "h2", "h3"])

    def test_error_page(self) -> None:
        """An error page is none."""
        page = b"<!DOCTYPE html>\n<html><title>404: Not Found</title>\n</html>\n"
        self.assertIn("there is no host that can be used", self.refused(page))

    def test_empty(self) -> None:
        """Nothing, nothing but comments, and nothing but servers is none."""
        for sent in (b"", b"\n" * 100, b"# no hosts today\n", b"^other.test\n"):
            self.assertIn("no host", self.refused(sent))

    def test_hardly_a_table(self) -> None:
        """A text in which most lines are no hosts is none, though a few look like it."""
        sent = text(*ROWS[:3], *["<p>nonsense"] * 4)
        self.assertIn("4 of its lines cannot be understood, and only 3 can", self.refused(sent))
        check_table(Downloaded(text(*ROWS[:3], *["nonsense"] * 3)), SETTINGS, 0)

    def test_much_shorter(self) -> None:
        """A table with fewer than half of the hosts that are known is refused, with half not."""
        message = "it has 3 hosts, fewer than half of the 7 that are known"
        self.assertEqual(self.refused(text(*ROWS[:3]), known=7), message)
        self.assertEqual(len(check_table(Downloaded(text(*ROWS[:3])), SETTINGS, known=6).hosts), 3)

    def test_much_longer(self) -> None:
        """A table grows by a factor or a hundred; the first one is compared with none."""

        def rows(count: int) -> bytes:
            return text(*[f"h{n}:d:access:h.test" for n in range(count)])

        message = (
            "it has 401 hosts, and the last one had 100: more growth than loncTableGrowth allows"
        )
        self.assertEqual(self.refused(rows(401), 100, 100), message)
        self.assertIn("more growth", self.refused(rows(106), 5, 5))
        for count, last in ((400, 100), (105, 5), (2000, None)):
            self.assertEqual(
                len(check_table(Downloaded(rows(count)), SETTINGS, 0, last).hosts), count
            )

    def test_length_not_told(self) -> None:
        """Without a length it ends with a line and has nine tenths of the last hosts."""
        refused = partial(self.refused, certain=False)
        self.assertIn("it ends within a line", refused(text(*ROWS)[:-1]))
        self.assertIn("it has 8 hosts where the last one had 9", refused(text(*ROWS), last=9))
        for last in (None, 8):
            sent = Downloaded(text(*ROWS), certain=False)
            self.assertEqual(len(check_table(sent, SETTINGS, 0, last).hosts), 8)

    def test_same_host_many_times(self) -> None:
        """A host that is there many times counts once."""
        self.refused(text(*[ROWS[0]] * 10), known=4)

    def test_ids(self) -> None:
        """Ids that could leave the folder, or are too long for a socket, are no hosts."""
        rows = [f"{name}:d:library:h.test:10.0.0.1" for name in ("../x", "..", "a/b", "x" * 101)]
        self.refused(text(*rows))

    @settings(derandomize=True, deadline=None, max_examples=300)
    @given(st.binary(max_size=300), st.integers(0, 3))
    def test_any_bytes(self, sent: bytes, known: int) -> None:
        """Whatever is sent is a table, or is refused in a line for a person."""
        try:
            check_table(Downloaded(text(*ROWS[:2]) + sent), SETTINGS, known)
        except FetchError as error:
            self.assertTrue(str(error).isprintable(), str(error))
