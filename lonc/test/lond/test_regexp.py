"""Regular expressions of strangers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lonc.lond.regexp import RegexpError, matching

KEYS = [b"apple", b"banana", b"cherry", b"a%3ab", b"%2fres%2fx"]


class MatchingTests(SynchronousTestCase):
    """Which keys are found."""

    def found(self, regexp: bytes) -> list[bytes]:
        """Return the matching keys, in their order."""
        found = matching(regexp, KEYS)
        return [key for key in KEYS if key in found]

    def test_expressions(self) -> None:
        """The usual elements are supported; an expression may match anywhere in a key."""
        for regexp, found in [
            (rb"an", [b"banana"]),
            (rb"^a", [b"apple", b"a%3ab"]),
            (rb"y$", [b"cherry"]),
            (rb"^(apple|cherry)$", [b"apple", b"cherry"]),
            (rb"^(?:b|c)", [b"banana", b"cherry"]),
            (rb"p+l", [b"apple"]),
            (rb"^.a.*a$", [b"banana"]),
            (rb"r{2}", [b"cherry"]),
            (rb"^c(xx)?h", [b"cherry"]),
            (rb"[x-z]", [b"cherry", b"%2fres%2fx"]),
            (rb"[]*+(|)]", []),
            (rb"\W", [b"a%3ab", b"%2fres%2fx"]),
            (rb"^\w+\(", []),
        ]:
            self.assertEqual(self.found(regexp), found, regexp)

    def test_escapes(self) -> None:
        """Expression and keys are unescaped first."""
        self.assertEqual(self.found(b"^a%3a"), [b"a%3ab"])
        self.assertEqual(self.found(b"/res/"), [b"%2fres%2fx"])

    def test_not_an_expression(self) -> None:
        """An invalid expression is an error."""
        for regexp in (b"(", b"[", b"*", b"a**", b"\\", b")", b"{2}", b"(" * 400 + b")" * 400):
            with self.assertRaises(RegexpError, msg=regexp):
                matching(regexp, KEYS)


class CostTests(SynchronousTestCase):
    """No expression blocks the process."""

    def refused(self, regexp: bytes, keys: list[bytes]) -> None:
        """Check that an expression is refused, and not tried: it would not end."""
        with self.assertRaises(RegexpError, msg=regexp):
            matching(regexp, keys)

    def test_catastrophes(self) -> None:
        """Expressions with exponential cost are refused."""
        key = b"a" * 200 + b"!"
        for regexp in (
            b"^(a+)+$",
            b"^(a|a)*$",
            b"^(a|aa)+$",
            b"^(a?){100}$",
            b"(x+x+)+y",
            b"^((a)*)*$",
            b"^(?:a*)*$",
            b"^(a*)*?$",
            b"^a*a*a*a*a*a*a*a*$",
            b"a?" * 100 + b"a" * 100 + b"$",
            b"^" + b"(a|a)" * 80 + b"$",
            rb"^(a*)\1\1\1b",
            b"^(?=(a+))a*b",
            b"(?P<x>a+)(?P=x)",
            b"(?i)a",
        ):
            self.refused(regexp, [key])

    def test_too_long(self) -> None:
        """An expression that is too long is refused."""
        self.refused(b"a" * 501, [b"a"])

    def test_many_keys(self) -> None:
        """The bound applies to all keys together."""
        keys = [b"%0200d" % n for n in range(1000)]
        self.assertEqual(len(matching(b"9$", keys)), 100)
        self.refused(b"^0*1*x", keys)

    def test_long_key(self) -> None:
        """That a match may begin anywhere is part of the cost."""
        self.refused(b"a*b", [b"a" * 20_000])

    def test_dearest_that_is_served(self) -> None:
        """The most expensive expressions that are allowed end in time."""
        self.assertEqual(matching(b"a*a*b", [b"a" * 213]), set())
        self.assertEqual(matching(b"(a|aa)" * 12 + b"b", [b"a" * 300]), set())
