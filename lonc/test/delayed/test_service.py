"""Delayed requests: when they are sent, and what becomes of them."""

from __future__ import annotations

import errno
import os
import shutil
import time
from functools import partial

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, formatEvent

from lonc.delayed.sending import LAST_PAUSE, TRY_AGAIN
from lonc.delayed.spool import Spool
from lonc.delayed.states import READ_BACK
from lonc.test.fixtures.delayed import FIRST, OTHER, SECOND, DelayedCase, Host, SlowDisk, write
from lonc.wire.request import Cause


class SendingTests(DelayedCase):
    """
    Requests that are sent and answered.

    :cvar noted: the line of the permanent log about the first request.
    """

    noted = "S:l1:put:a:b=\\xff\u00e4"

    def test_order(self) -> None:
        """S13: requests are sent one at a time, in the order of their names, and then deleted."""
        self.put(SECOND, b"put:2\n")
        self.put(FIRST, b"put:1\n")
        self.start()
        self.assertEqual(self.l1.asked, [b"put:1\n"])
        self.assertEqual(self.on_disk(), [FIRST, SECOND])
        self.l1.answer()
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:2\n"])
        self.assertEqual(self.on_disk(), [SECOND])
        self.l1.answer()
        self.assertEqual(self.on_disk(), [])
        self.assertEqual(self.in_kept(), {})

    def test_logs(self) -> None:
        """
        F9, S15: once a request is answered, the permanent log names its host and its content; the
        log has a SUCCESS line with the file and the command, without the content.
        """
        self.put(FIRST, b"put:a:b=\xff\xc3\xa4\n")
        self.start()
        self.assertEqual((self.perm, self.events), ([], []))
        self.l1.answer()
        self.assertEqual(self.perm, [self.noted])
        (event,) = self.events
        self.assertEqual(formatEvent(event), f"l1: delayed request sent: {FIRST} (put)")
        self.assertEqual((event["host_id"], event["success"]), ("l1", True))

    def test_encrypted(self) -> None:
        """The content of encrypted requests is in no log."""
        self.put(FIRST, b"encrypt:passwd:dom:user:secret\n")
        self.put(SECOND, b"sethost:l1:encrypt:passwd:dom:user:secret\n")
        self.start()
        self.l1.answer()
        self.l1.answer(b"refused\n")
        self.assertEqual(self.perm, ["S:l1:encrypt:passwd", "S:l1:encrypt:passwd"])
        self.assertNotIn("secret", " ".join(self.logged()))

    def test_found_while_running(self) -> None:
        """F6: a new request is sent within 5 s, whenever it is stored."""
        self.service.startService()
        for tenth in range(10):
            self.clock.advance(0.1)
            self.put(FIRST, b"put:%d\n" % tenth)
            for _ in range(49):
                self.clock.advance(0.1)
            self.assertEqual(self.l1.asked, [b"put:%d\n" % tenth])
            self.l1.asked.clear()
            self.l1.answer()

    def test_read_back(self) -> None:
        """A file stays for more than 2 s: if lonnet did not find it, it would report a failure."""
        self.service.startService()
        self.clock.advance(0.999)
        path = self.put(FIRST)
        for _ in range(25):
            self.clock.advance(0.1)
            self.assertEqual((self.l1.asked, os.path.exists(path)), ([], True))
        self.assertEqual(READ_BACK, 2.5)

    def test_taken_away_in_flight(self) -> None:
        """A request whose file is deleted while it is being sent still delays the next one."""
        self.put(FIRST)
        self.start()
        self.take_away(FIRST)
        self.tick(2)
        self.put(SECOND)
        self.tick(10)
        self.assertEqual(len(self.l1.asked), 1)
        self.l1.answer()
        self.tick(1)
        self.assertEqual(len(self.l1.asked), 2)

    def test_earlier_one(self) -> None:
        """
        A request that is found later but has an earlier name is next; none is sent twice, however
        often it is found.
        """
        self.put(SECOND, b"put:2\n")
        self.start()
        self.put(FIRST, b"put:1\n")
        self.tick(100)
        self.service.retry("l1")
        self.l1.answer()
        self.l1.answer()
        self.tick(5)
        self.assertEqual(self.l1.asked, [b"put:2\n", b"put:1\n"])
        self.assertEqual(self.on_disk(), [])

    def test_counts(self) -> None:
        """S16: the number of requests of each host is known, and the time of the oldest."""
        self.assertEqual(self.service.counts, {})
        for name in [FIRST, SECOND, OTHER]:
            self.put(name)
        self.start()
        self.assertEqual(self.service.counts, {"l1": 2, "l2": 1})
        self.assertEqual(self.service.oldest, dict.fromkeys(("l1", "l2"), 1062000000.0))
        self.l2.answer()
        self.tick(1)
        self.assertEqual(self.service.counts, {"l1": 2})

    def test_changed_while_sent(self) -> None:
        """F7: if a file is written to after it was read, the whole file is sent again."""
        self.put(FIRST, b"put:1")
        self.start()
        path = self.put(FIRST, b"put:1234\n")
        self.l1.answer()
        self.tick(1)
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:1234\n"])
        self.l1.answer()
        self.assertFalse(os.path.lexists(path))

    def test_taken_away(self) -> None:
        """A file that somebody deletes at any time is no error."""
        self.put(FIRST)
        self.start()
        self.take_away(FIRST)
        self.l1.answer()
        self.put(FIRST)
        self.steps.faults["open request"] = lambda: self.take_away(FIRST)
        self.tick(5)
        self.assertEqual(len(self.l1.asked), 1)
        self.assertEqual([line for line in self.logged() if "sent" not in line], [])


class UnfinishedTests(DelayedCase):
    """F7: files that are still being written."""

    def test_no_newline(self) -> None:
        """
        F7: a file without a newline is sent within 5 s after it has been unchanged for 2 s, also if
        its time stamp is old, as after the clock was set.
        """
        self.service.startService()
        for name, asked in ((FIRST, self.l1.asked), (OTHER, self.l2.asked)):
            for text in [b"p", b"put", b"put:a", b"put:a:b"]:
                path = self.put(name, text)
                if name == OTHER:
                    os.utime(path, (1e9 + len(text), 1e9 + len(text)))
                self.tick(1)
                self.assertEqual(asked, [])
            self.tick(6)
            self.assertEqual(asked, [b"put:a:b\n"])

    def test_several_without_newline(self) -> None:
        """F7: several such files of a host are timed together."""
        self.put(FIRST, b"put:1")
        self.put(SECOND, b"put:2")
        self.start()
        self.tick(3)
        self.l1.answer()
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:2\n"])

    def test_completed(self) -> None:
        """F7: a file that gets its newline is sent at once."""
        self.service.startService()
        for _ in range(4):
            self.put(FIRST, b"p")
            self.tick(1)
            self.put(FIRST, b"put")
            self.tick(1)
        self.put(FIRST, b"put\n")
        self.tick(1)
        self.assertEqual(self.l1.asked, [b"put\n"])

    def test_order_is_kept(self) -> None:
        """F7: later requests of the same host wait for it, those of other hosts do not."""
        self.service.startService()
        self.put(SECOND, b"put:2\n")
        self.put(OTHER, b"put:3\n")
        for number in range(10):
            self.put(FIRST, b"x" * number)
            self.tick(1)
        self.assertEqual((self.l1.asked, self.l2.asked), ([], [b"put:3\n"]))
        self.put(FIRST, b"put:1\n")
        self.tick(1)
        self.l1.answer()
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:2\n"])


class KeptTests(DelayedCase):
    """F8: requests that are set aside."""

    def test_refused(self) -> None:
        """F8: a refused request is kept with its answer, and the log warns."""
        self.put(FIRST, b"put:1\n")
        self.put(SECOND, b"put:2\n")
        self.start()
        self.l1.answer(b"error: no such user: secret\n")
        self.assertEqual(self.on_disk(), [SECOND])
        self.assertEqual(
            self.in_kept(),
            {FIRST: b"put:1\n", FIRST + ".answer": b"error: no such user: secret\n"},
        )
        (line,) = self.logged(LogLevel.warn)
        self.assertIn(f"{FIRST} (put); the answer is error", line)
        self.assertNotIn("secret", line)
        self.assertEqual(self.l1.asked[1:], [b"put:2\n"])

    def test_unusable(self) -> None:
        """A request that cannot be sent is kept with the reason, and delays nothing."""
        self.put(FIRST, b"x" * 101 + b"\n")
        self.put(SECOND)
        self.start()
        self.assertEqual(self.l1.asked, [b"put:a:b\n"])
        reason = b"it is longer than the limit of 100 bytes\n"
        self.assertEqual(self.in_kept()[FIRST + ".reason"], reason)
        (line,) = self.logged(LogLevel.warn)
        self.assertIn("longer than the limit", line)
        self.assertIn(FIRST, line)

    def test_unreadable(self) -> None:
        """A file that cannot be read is kept with the reason."""
        self.put(FIRST)
        self.steps.fail("open request", errno.EACCES)
        self.start()
        reason = b"it cannot be read: Permission denied\n"
        self.assertEqual(self.in_kept(), {FIRST: b"put:a:b\n", FIRST + ".reason": reason})
        self.assertEqual(self.logged(LogLevel.critical), [])

    def test_empty(self) -> None:
        """An empty file is kept with the reason, once it has been empty for 2 s."""
        self.service.startService()
        self.put(FIRST, b"")
        self.tick(2)
        self.assertEqual(self.on_disk(), [FIRST])
        self.tick(2)
        self.assertEqual(self.in_kept(), {FIRST: b"", FIRST + ".reason": b"it is empty\n"})

    def test_hopeless(self) -> None:
        """A request that would fail each time is kept with the reason, and delays nothing."""
        reasons = {
            Cause.TOO_LONG: b"over the line limit",
            Cause.WRONG_HOST: b"for another host",
            Cause.CONTROL_BYTE: b"control byte",
        }
        names = self.put_many(len(reasons) + 1)
        self.start()
        for name, (cause, reason) in zip(names, reasons.items(), strict=False):
            self.l1.lose(cause)
            self.assertIn(reason, self.in_kept()[name + ".reason"])
        self.assertEqual((len(self.l1.asked), self.on_disk()), (len(names), names[-1:]))

    def test_cannot_be_moved(self) -> None:
        """One that cannot be set aside is a problem, delays nothing, and is moved later."""
        write(self.settings.kept_dir, b"in the way")
        self.put(FIRST, b"x" * 101 + b"\n")
        self.put(SECOND)
        self.start()
        self.l1.answer()
        self.tick(3 * int(TRY_AGAIN))
        self.assertEqual(self.on_disk(), [FIRST])
        self.assertEqual(
            [*self.wrong("delayed-not-cleared"), *self.wrong("delayed-folder")],
            [
                f"delayed requests cannot be cleared away: {FIRST}: Not a directory",
                f"{self.settings.kept_dir}: Not a directory",
            ],
        )
        self.assertEqual(len(self.logged(LogLevel.warn)), 1)
        os.unlink(self.settings.kept_dir)
        self.tick(int(TRY_AGAIN) + 1)
        self.assertEqual(self.on_disk(), [])
        self.assertIn(FIRST, self.in_kept())
        self.assertEqual(self.wrong(), [])

    def test_cannot_be_deleted(self) -> None:
        """One that cannot be deleted is not sent again, and is deleted when possible."""
        self.put(FIRST, b"put:1\n")
        self.put(SECOND, b"put:2\n")
        self.start()
        self.steps.fail("remove request", errno.EROFS)
        self.l1.answer()
        self.l1.answer()
        self.tick(2 * int(TRY_AGAIN))
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:2\n"])
        self.assertEqual(len(self.wrong("delayed-not-cleared")), 1)
        self.assertLessEqual(self.steps.taken.count("remove request"), 6)
        self.steps.faults.clear()
        self.tick(int(TRY_AGAIN) + 1)
        self.assertEqual(self.on_disk(), [])
        self.assertEqual((len(self.perm), self.wrong()), (2, []))

    def test_name_comes_again(self) -> None:
        """If somebody deletes it, a new file with its name is another request."""
        self.put(FIRST, b"put:1\n")
        self.put(SECOND, b"put:2\n")
        self.start()
        self.steps.fail("remove request", errno.EROFS)
        self.l1.answer()
        self.steps.faults.clear()
        self.take_away(FIRST)
        self.tick(1)
        self.put(FIRST, b"put:34\n")
        self.tick(4)
        self.l1.answer()
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:2\n", b"put:34\n"])
        self.assertEqual(self.logged(LogLevel.warn), [])

    def test_crash(self) -> None:
        """After a crash at any step a request is sent again, or was set aside."""
        for answer, steps in [(b"ok\n", 1), (b"refused\n", 8)]:
            for number in range(steps + 1):
                self.put(FIRST)
                self.restart()
                self.start()
                self.steps.crash_at = len(self.steps.taken) + number
                self.l1.answer(answer)
                crashed = any("log_failure" in event for event in self.events)
                self.assertEqual(crashed, number < steps)
                self.restart()
                self.start()
                if crashed:
                    kept = b"put:a:b\n" in self.in_kept().values()
                    self.assertTrue(kept or self.l1.asked == [b"put:a:b\n"], number)
                    self.assertEqual(FIRST in self.on_disk(), bool(self.l1.asked))
                shutil.rmtree(self.settings.kept_dir, ignore_errors=True)


class FailureTests(DelayedCase):
    """Requests that get no answer."""

    def test_stays(self) -> None:
        """A request that gets con_lost stays, and the log says when it is tried again."""
        self.put(FIRST)
        self.put(SECOND)
        self.start()
        self.l1.lose(Cause.TIMEOUT)
        self.assertEqual(self.on_disk(), [FIRST, SECOND])
        (line,) = self.logged(LogLevel.info)
        self.assertRegex(line, rf"{FIRST} stays, next try in [01]\.\d s: timeout")
        rows = self.successResultOf(Deferred.fromCoroutine(self.service.listed("l1")))
        tries = [(row.tries, row.last_answer) for row in rows]
        self.assertEqual(tries, [(1, "timeout"), (0, "")])
        self.assertEqual(self.perm, [])

    def tries(self, count: int) -> list[float]:
        """Let requests fail; return the seconds from each failure to the next attempt."""
        pauses = []
        for _ in range(count):
            tried, since = len(self.l1.asked), self.clock.seconds()
            self.l1.lose()
            while len(self.l1.asked) == tried:
                self.tick(1)
            pauses.append(self.clock.seconds() - since)
        return pauses

    def test_pauses(self) -> None:
        """The pauses of an alive host double, with jitter, up to a limit."""
        self.put(FIRST)
        self.start()
        pauses = self.tries(9)
        for pause, most in zip(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
            self.assertTrue(0.8 * most <= pause <= most, pauses)
        self.assertGreater(len({*pauses[6:]}), 1, pauses)
        self.assertEqual(LAST_PAUSE, 60.0)

    def test_success(self) -> None:
        """A success ends the pauses."""
        self.put_many(3)
        self.start()
        self.tries(5)
        self.l1.answer()
        self.assertEqual(len(self.l1.asked), 7)
        self.assertEqual(self.tries(1), [1.0])

    def test_many_for_a_dead_host(self) -> None:
        """
        While nothing changes in the folder, nothing is done for the files of a DEAD host; sending
        goes on when it is back, or another file is stored.
        """
        self.put(FIRST, b"first\n")
        self.l1.alive = False
        self.service = self.make(spool=partial(Spool, now=lambda: time.time() + 100))
        self.start()
        self.tick(10)
        filled: list[str] = []
        patch = self.patch(self.service, "_fill", lambda queue, found: filled.append(queue.host_id))
        self.tick(10)
        self.assertEqual(filled, [])
        patch.restore()
        self.put(OTHER, b"other\n")
        self.tick(4)
        self.assertEqual(self.l2.asked, [b"other\n"])
        self.assertEqual(self.l1.asked, [])
        self.l1.alive = True
        self.tick(2)
        self.assertEqual(self.l1.asked, [b"first\n"])

    def test_dead(self) -> None:
        """For a DEAD host the folder is listed, and nothing else is done."""
        self.l1.alive = False
        self.put_many(20)
        self.start()
        self.tick(100)
        self.assertEqual(set(self.steps.taken), {"scan"})
        self.assertEqual(self.l1.asked, [])
        self.assertEqual(self.logged(), [])
        self.assertEqual(self.service.counts, {"l1": 20})

    def test_retry(self) -> None:
        """F4: when the host is back, or on request, its requests are sent at once."""
        self.put(FIRST)
        self.start()
        self.tries(6)
        self.l1.lose()
        self.l1.alive = False
        tried = len(self.l1.asked)
        self.tick(100)
        self.assertEqual(len(self.l1.asked), tried)
        self.l1.alive = True
        self.service.retry("l1")
        self.assertEqual(len(self.l1.asked), tried + 1)
        self.assertEqual(self.tries(1), [1.0])
        for host_id in ("l1", None):  # as when an administrator wants it
            self.tries(6)
            self.l1.lose()
            tried = len(self.l1.asked)
            self.service.retry(host_id)
            self.assertEqual(len(self.l1.asked), tried + 1)
        self.service.retry("nobody")

    def test_surprise(self) -> None:
        """S19: an unexpected error is logged; it delays no other host, and is tried again."""
        self.put(FIRST)
        self.put(OTHER)
        self.l1.broken = True
        self.start()
        self.assertEqual(len(self.l2.asked), 1)
        self.assertEqual(len(self.logged(LogLevel.critical)), 1)
        self.tick(100)
        self.assertLess(len(self.logged(LogLevel.critical)), 9)
        self.l1.broken = False
        self.tick(60)
        self.assertEqual(len(self.l1.asked), 1)

    def test_passing_error(self) -> None:
        """After a temporary error, such as too many open files, a request is tried again."""
        self.put(FIRST)
        self.steps.fail("open request", errno.EMFILE)
        self.start()
        self.assertEqual(self.on_disk(), [FIRST])
        self.steps.faults.clear()
        self.tick(5)
        self.assertEqual(len(self.l1.asked), 1)
        self.assertIn("Too many open files", self.logged(LogLevel.info)[0])


class TableTests(DelayedCase):
    """Hosts that are added to the table and removed from it."""

    def test_not_served_yet(self) -> None:
        """Requests for a host that its lond does not serve yet stay, and are tried again."""
        self.put(FIRST)
        self.start()
        self.l1.lose(Cause.NOT_SERVED)
        self.assertEqual((self.on_disk(), self.in_kept()), ([FIRST], {}))
        self.tick(2)
        self.assertEqual(self.l1.asked, [b"put:a:b\n"] * 2)

    def test_unknown(self) -> None:
        """
        Requests for a host that is not in the table stay. They are one problem of that host, which
        ends when they are gone.
        """
        names = self.put_many(5, "gone")
        self.put("1062000000.4711.put.a.l1")
        self.start()
        self.tick(10)
        self.assertEqual((self.l1.asked, len(self.on_disk())), ([], 6))
        what = "is not in the host table, and has {}"
        told = [what.format("1 delayed request"), what.format("5 delayed requests")]
        self.assertEqual(sorted(self.wrong("delayed-unknown")), told)
        for name in names:
            self.take_away(name)
        self.tick(2)
        self.assertEqual(self.wrong(), told[:1])

    def test_new_host(self) -> None:
        """When the host is added to the table its requests are sent."""
        self.put("1062000000.4711.put.new", b"put:1\n")
        self.start()
        self.hosts["new"] = new = Host()
        self.tick(4)
        self.assertEqual((new.asked, self.wrong()), ([b"put:1\n"], []))

    def test_host_gone(self) -> None:
        """When a host is removed from the table, its unanswered requests stay."""
        self.put(FIRST)
        self.put(SECOND)
        self.start()
        del self.hosts["l1"]
        self.l1.lose(Cause.CLOSED)
        self.tick(10)
        self.assertEqual(len(self.l1.asked), 1)
        self.assertEqual(self.on_disk(), [FIRST, SECOND])

    def test_address_changed(self) -> None:
        """F13: what a host has not answered is sent to the one that replaces it."""
        self.put(FIRST)
        self.start()
        self.hosts["l1"] = fresh = Host()
        self.l1.lose(Cause.CLOSED)
        self.tick(2)
        self.assertEqual(fresh.asked, [b"put:a:b\n"])


class FolderTests(DelayedCase):
    """The folder, and changed settings."""

    def test_missing(self) -> None:
        """A missing folder is created at the start, and again later."""
        os.rmdir(self.settings.delayed_dir)
        self.service.startService()
        self.assertTrue(os.path.isdir(self.settings.delayed_dir))
        os.rmdir(self.settings.delayed_dir)
        self.tick(1)
        self.put(FIRST)
        self.tick(4)
        self.assertEqual(len(self.l1.asked), 1)
        self.assertEqual(self.logged(LogLevel.error), [])

    def test_in_the_way(self) -> None:
        """A folder that cannot be read is a problem until it can be, and is then used."""
        os.rmdir(self.settings.delayed_dir)
        write(self.settings.delayed_dir, b"")
        self.start()
        self.tick(10)
        (what,) = self.wrong("delayed-folder")
        self.assertIn(f"{self.settings.delayed_dir}: Not a directory", what)
        os.unlink(self.settings.delayed_dir)
        self.tick(1)
        self.put(FIRST)
        self.tick(4)
        self.assertEqual((len(self.l1.asked), self.wrong()), (1, []))

    def test_cannot_be_written(self) -> None:
        """A folder that lonc may not write, and a full disk, are problems while it lasts."""
        self.start()
        disk = os.statvfs(self.settings.delayed_dir)
        full = os.statvfs_result([*disk[:4], 0, *disk[5:]])
        cannot = self.patch(os, "access", lambda path, mode, effective_ids: False)
        is_full = self.patch(os, "statvfs", lambda path: full)
        self.tick(1)
        folder = self.settings.delayed_dir
        self.assertEqual(self.wrong(), [f"{folder}: lonc may not read and write there"])
        cannot.restore()
        self.tick(1)
        self.assertEqual(self.wrong(), [f"the disk of {folder} is full"])
        is_full.restore()
        self.tick(1)
        self.assertEqual(self.wrong(), [])

    def test_limit_changes(self) -> None:
        """F13: a new limit on lines applies to requests that are read from then on."""
        self.service.startService()
        self.service.reconfigure(attrs.evolve(self.settings, max_line=5))
        self.put(FIRST)
        self.tick(4)
        self.assertIn(FIRST, self.in_kept())

    def test_folder_changes(self) -> None:
        """F13: a new folder is used at once; what was being sent ends in the old one."""
        old = self.put(FIRST, b"put:1\n")
        self.put(SECOND, b"put:2\n")
        self.start()
        root = os.path.join(self.settings.sock_dir, "new")
        os.mkdir(root)
        self.service.reconfigure(attrs.evolve(self.settings, sock_dir=root))
        self.l1.answer()
        self.assertFalse(os.path.lexists(old))
        self.tick(1)
        write(os.path.join(root, "delayed", FIRST), b"put:3\n")
        self.tick(4)
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:3\n"])
        self.assertEqual(self.service.counts, {"l1": 1})


class HangingDiskTests(SlowDisk):
    """A disk that does not answer."""

    def test_read_hangs(self) -> None:
        """If reading a file hangs, the log names it; it is sent later, and not read twice."""
        self.put(FIRST)
        self.service.startService()
        self.threads.finish()
        self.pass_time(9, hanging=1)
        self.assertEqual(self.logged(), [])
        self.pass_time(50, hanging=1)
        (line,) = self.logged(LogLevel.warn)
        self.assertIn(f"{FIRST}: no answer from the disk after 10 s", line)
        self.assertEqual(len(self.threads.begun), 1)
        self.assertEqual(self.l1.asked, [])
        self.pass_time(2, hanging=0)
        self.assertEqual(self.l1.asked, [b"put:a:b\n"])

    def test_others_go_on(self) -> None:
        """It delays its host until the time limit, and other hosts not at all."""
        self.put(FIRST)
        self.put(SECOND, b"put:2\n")
        self.put(OTHER, b"put:3\n")
        self.service.startService()
        self.threads.finish()
        self.pass_time(5, hanging=1)
        self.assertEqual((self.l1.asked, self.l2.asked), ([], [b"put:3\n"]))
        self.pass_time(6, hanging=1)
        self.assertEqual(self.l1.asked, [b"put:2\n"])

    def test_delete_hangs(self) -> None:
        """A request whose deletion hangs is not sent again."""
        self.put(FIRST)
        self.service.startService()
        self.pass_time(4, hanging=0)
        self.l1.answer()
        self.pass_time(60, hanging=1)
        self.assertEqual(self.on_disk(), [FIRST])
        self.assertEqual(len(self.logged(LogLevel.warn)), 1)
        self.pass_time(10, hanging=0)
        self.assertEqual(self.on_disk(), [])
        self.assertEqual(len(self.l1.asked), 1)

    def test_scan_hangs(self) -> None:
        """A scan that hangs is a problem, and no other begins before it returns."""
        self.service.startService()
        self.tick(100)
        self.assertEqual(len(self.threads.begun), 1)
        self.assertIn("no answer from the disk after 10 s", *self.wrong("delayed-folder"))
        self.threads.finish()
        self.put(FIRST)
        self.tick(1)
        self.threads.finish()
        self.assertEqual((self.service.counts, self.wrong()), ({"l1": 1}, []))

    def test_folder_changes(self) -> None:
        """F13: what a scan of the previous folder finds is discarded."""
        self.put(FIRST)
        self.service.startService()
        self.service.reconfigure(attrs.evolve(self.settings, sock_dir=self.mktemp()))
        self.threads.finish()
        self.assertEqual(self.service.counts, {})

    def test_stopped_while_reading(self) -> None:
        """A request that is being read when the service stops is not sent."""
        self.put(FIRST)
        self.service.startService()
        self.pass_time(2, hanging=0)
        self.clock.advance(1.0)
        self.threads.finish()
        self.assertEqual(len(self.threads.begun), 1)
        stopped = self.service.stopService()
        self.threads.finish()
        self.successResultOf(stopped)
        self.assertEqual(self.l1.asked, [])

    def test_stop(self) -> None:
        """A hanging disk does not prevent the service from stopping."""
        self.put(FIRST)
        self.service.startService()
        self.threads.finish()
        stopped = self.service.stopService()
        self.assertNoResult(stopped)
        self.tick(10)
        self.successResultOf(stopped)


class StoppingTests(DelayedCase):
    """Stopping the service."""

    def test_idle(self) -> None:
        """Without requests in flight it ends at once, and nothing is scanned any more."""
        self.put(FIRST)
        self.l1.alive = False
        self.start()
        self.successResultOf(self.service.stopService())
        self.l1.alive = True
        self.tick(10)
        self.service.retry("l1")
        self.assertEqual(set(self.steps.taken), {"scan"})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """A request in flight that gets con_lost stays on disk, and the next start sends it."""
        self.put(FIRST)
        self.start()
        stopped = self.service.stopService()
        self.assertNoResult(stopped)
        self.l1.lose(Cause.CLOSED)
        self.successResultOf(stopped)
        self.assertEqual(self.on_disk(), [FIRST])
        self.start()
        self.assertEqual(len(self.l1.asked), 2)

    def test_answered(self) -> None:
        """A request in flight that is still answered is deleted; no other is sent."""
        self.put(FIRST)
        self.put(SECOND)
        self.start()
        stopped = self.service.stopService()
        self.l1.answer()
        self.successResultOf(stopped)
        self.assertEqual(self.on_disk(), [SECOND])
        self.assertEqual(len(self.l1.asked), 1)
