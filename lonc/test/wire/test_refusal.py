# trial's assertions have no annotations:
# mypy: allow-untyped-calls
"""Which answers of a lond say no."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lonc.wire.refusal import refusal


class RefusalTests(SynchronousTestCase):
    """F8: a delayed request is kept when its answer says no."""

    def test_no(self) -> None:
        """F8: the network's words for no are recognised, with and without what follows them."""
        for answer, word in [
            (b"error:No such file\n", "error"),
            (b"error: 2 tie(GDBM) Failed while attempting put\n", "error"),
            (b"error\n", "error"),
            (b"Error: disk full\n", "error"),
            (b"refused\n", "refused"),
            (b"rejected\n", "rejected"),
            (b"unknown_cmd\n", "unknown_cmd"),
            (b"unknown_cmd", "unknown_cmd"),
            (b"auth_mode_error:krb4\n", "auth_mode_error"),
            (b"non_authorized: not yours\n", "non_authorized"),
            (b" refused\r\n", "refused"),
            (b"con_lost\n", "con_lost"),
        ]:
            self.assertEqual(refusal(answer), word, answer)

    def test_yes(self) -> None:
        """Values, numbers and nothing at all are answers, also when they begin like a no."""
        for answer in [
            b"ok\n",
            b"ok:refused\n",
            b"\n",
            b"",
            b"17\n",
            b"refused=1&error=2\n",
            b"error_rate=3\n",
            b"error=3&warning=4\n",
            b"error&warning\n",
            b"rejected_papers:4\n",
            b"\xff\xfe\n",
        ]:
            self.assertIsNone(refusal(answer), answer)
