"""Delayed requests with a key: they are sealed, and otherwise fare as they do without."""

from __future__ import annotations

import errno
import os
import shutil

import attrs
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from lonc.control.errors import ReloadFailed
from lonc.delayed.names import SEALED, SEALING
from lonc.delayed.people import UnknownRequest
from lonc.delayed.sealer import TRY_AGAIN
from lonc.delayed.sealing import Key, key_of, make_key_file, seal, unseal
from lonc.delayed.sending import TRY_AGAIN as CLEARED_AGAIN
from lonc.disk.threads import PLACES, Disk
from lonc.test.delayed import test_service as test_delayed
from lonc.test.fixtures.delayed import (
    FIRST,
    OTHER,
    SECOND,
    DelayedCase,
    Host,
    Proofs,
    SlowDisk,
    mode,
    read,
    write,
)
from lonc.test.fixtures.options import TapTestCase
from lonc.wire.request import Cause

SECRET = b"passwd:msu:alice:secret\n"
UNKNOWN = "1062000000.4711.put.gone"


# What test_delayed observes without a key is so with one.


class SendingTests(test_delayed.SendingTests):
    """The way of a delayed request that is answered."""

    with_key = True
    noted = "S:l1:put"

    def test_changed_while_sent(self) -> None:
        """F7: what is written to a file while its request is being sent is another request."""
        self.put(FIRST, b"put:1\n")
        self.start()
        self.put(FIRST, b"put:1234\n")
        self.tick(4)
        self.l1.answer()
        self.tick(4)
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:1234\n"])
        self.l1.answer()
        self.assertEqual(self.on_disk(), [])


class UnfinishedTests(test_delayed.UnfinishedTests):
    """F7: files that are still being written."""

    with_key = True


class KeptTests(test_delayed.KeptTests):
    """F8: requests that are set aside."""

    with_key = True

    def test_empty(self) -> None:
        """An empty file is kept with the reason, once it has been empty for some seconds."""
        self.service.startService()
        self.put(FIRST, b"")
        self.tick(4)
        self.assertEqual(self.on_disk(), [FIRST])
        self.tick(3)
        self.assertEqual(self.in_kept(), {FIRST: b"", FIRST + ".reason": b"it is empty\n"})


class FailureTests(test_delayed.FailureTests):
    """Requests that get no answer."""

    with_key = True

    def test_dead(self) -> None:
        """While the host is DEAD each file is opened once, to seal it."""
        self.l1.alive = False
        self.put_many(20)
        self.start()
        self.tick(100)
        self.assertEqual(self.steps.taken.count("open request"), 20)
        self.assertEqual(self.l1.asked, [])
        self.assertEqual(self.logged(), [])
        self.assertEqual(self.service.counts, {"l1": 20})


class TableTests(test_delayed.TableTests):
    """Hosts that come and go."""

    with_key = True


class FolderTests(test_delayed.FolderTests):
    """The folder itself, and settings that change."""

    with_key = True


# What is only so with a key.


class SealedCase(DelayedCase):
    """A folder, two hosts, and the service with a key."""

    with_key = True

    def setUp(self) -> None:
        super().setUp()
        self.key = self.key_of("key")

    def key_of(self, name: str) -> Key:
        """Return a key by the name of its file."""
        key = key_of(self.settings_with_key(name))
        assert key is not None
        return key

    def put_sealed(self, name: str, line: bytes = SECRET, key: bytes | None = None) -> str:
        """Write a sealed request; return its path."""
        os.makedirs(os.path.join(self.settings.delayed_dir, "sealed"), exist_ok=True)
        return self.put(f"sealed/{name}{SEALED}", seal(key or self.key, name, line))

    def files(self, *folders: str) -> dict[str, bytes]:
        """Return the files with delayed requests by their names, or those of one folder."""
        found: dict[str, bytes] = {}
        for folder in folders or ("", "sealed"):
            path = os.path.join(self.settings.delayed_dir, folder)
            for name in os.listdir(path) if os.path.isdir(path) else ():
                if not os.path.isdir(os.path.join(path, name)):
                    self.assertNotIn(name, found)
                    found[name] = read(os.path.join(path, name))
        return dict(sorted(found.items()))

    def opened(self, folder: str = "sealed") -> dict[str, bytes]:
        """Return what is in the files of a folder, all of which are sealed."""
        return {name: unseal(self.key, name, data) for name, data in self.files(folder).items()}


class SealedTests(SealedCase):
    """What is sealed, and when."""

    def test_all(self) -> None:
        """Each request is sealed within seconds, also if its host is DEAD or not in the table."""
        self.l1.alive = False
        self.service.startService()
        names = [FIRST, SECOND, OTHER, UNKNOWN]
        for name in names:
            self.put(name, SECRET)
        self.tick(4)
        self.assertEqual(self.opened(), dict.fromkeys((n + SEALED for n in names), SECRET))
        self.assertEqual(self.service.counts, {"l1": 2, "l2": 1, "gone": 1})
        for name in names:
            self.assertEqual(
                mode(os.path.join(self.settings.delayed_dir, "sealed", name + SEALED)), 0o600
            )

    def test_while_one_is_sent(self) -> None:
        """A request is sealed while it is being sent; so are later ones, and new ones."""
        self.put(FIRST)
        self.put(SECOND)
        self.start()
        self.put("1062000002.4711.put.l1")
        self.tick(4)
        self.assertEqual(len(self.l1.asked), 1)
        self.assertEqual(len(self.opened()), 3)

    def test_found_sealed(self) -> None:
        """Requests that are found sealed, as after a restart, are sent at once and in order."""
        self.put_sealed(SECOND, b"put:2\n")
        self.put_sealed(FIRST, b"put:1\n")
        self.service.startService()
        self.l1.answer()
        self.l1.answer()
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:2\n"])
        self.assertEqual(self.files(), {})

    def test_unfinished(self) -> None:
        """F7: a growing file is not sealed; one without a newline is after some seconds."""
        self.l1.alive = False
        self.service.startService()
        text = b""
        for _ in range(8):
            text += b"x"
            self.put(FIRST, text)
            self.tick(1)
        self.assertEqual(self.files(), {FIRST: text})
        self.tick(3)
        self.assertEqual(self.opened(), {FIRST + SEALED: text})

    def test_blank(self) -> None:
        """F7: a file that contains only a newline is not sealed yet."""
        self.service.startService()
        self.put(FIRST, b"\n")
        self.tick(4)
        self.assertEqual(self.files(), {FIRST: b"\n"})
        self.put(FIRST, b"put:a:b\n")
        self.tick(1)
        self.assertEqual(self.l1.asked, [b"put:a:b\n"])

    def test_changed_while_it_is_sealed(self) -> None:
        """F7: if a file is written to while it is being sealed, the new content is one request."""

        def write_more() -> None:
            self.put(FIRST, b"put:1234\n")
            self.steps.faults.clear()

        self.steps.faults["look again"] = write_more
        self.put(FIRST, b"put:1\n")
        self.start()
        self.tick(4)
        self.assertEqual(self.l1.asked, [b"put:1234\n"])
        self.assertEqual(list(self.files()), [FIRST + SEALED])

    def test_two_of_a_name(self) -> None:
        """A new request with the name of a sealed one replaces nothing; all are sent in order."""
        self.l1.alive = False
        self.service.startService()
        for number in range(3):
            self.put(FIRST, b"put:%d\n" % number)
            self.tick(4)
        self.assertEqual(
            self.opened(),
            {f"{FIRST}{n}{SEALED}": b"put:%d\n" % i for i, n in enumerate(["", "~1", "~2"])},
        )
        self.l1.alive = True
        self.tick(1)
        for _ in range(3):
            self.l1.answer()
        self.assertEqual(self.l1.asked, [b"put:0\n", b"put:1\n", b"put:2\n"])
        self.assertEqual(self.files(), {})

    def test_changed_at_the_last_moment(self) -> None:
        """What is written to a file after its form was made is sent as well."""
        self.steps.faults["sync forms"] = lambda: self.put(FIRST, b"put:1234\n")
        self.put(FIRST, b"put:1\n")
        self.start()
        self.steps.faults.clear()
        self.tick(2)
        self.l1.answer()
        self.l1.answer()
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:1234\n"])
        self.assertEqual(self.files(), {})

    def test_nothing_else(self) -> None:
        """Files whose names are not those of delayed requests, and folders, are left alone."""
        os.mkdir(os.path.join(self.settings.delayed_dir, UNKNOWN))
        others = dict.fromkeys(["." + FIRST, "notes", FIRST + "~1"], b"x\n")
        for name, data in others.items():
            self.put(name, data)
        self.start()
        self.tick(10)
        self.assertEqual(self.files(), others)
        self.assertTrue(os.path.isdir(os.path.join(self.settings.delayed_dir, UNKNOWN)))

    def test_no_content_in_logs(self) -> None:
        """No log contains more of a request than its command."""
        self.put(FIRST, SECRET)
        self.put(SECOND, SECRET * 2)
        self.put(OTHER, SECRET)
        self.start()
        self.l1.answer()
        self.l2.answer(b"refused: secret\n")
        logged = " ".join([*self.logged(), *self.perm, *(str(event) for event in self.events)])
        self.assertEqual(self.in_kept()[SECOND + ".reason"], b"it contains more than one line\n")
        self.assertNotIn("secret", logged)
        self.assertNotIn("alice", logged)


class CrashTests(SealedCase):
    """A crash while a request is sealed may leave the file, its sealed form, or both."""

    def test_sealing(self) -> None:
        """After a crash at any step the request is still on disk, and is sent once."""
        steps = 0
        while True:
            self.put(FIRST, SECRET)
            self.restart(alive=False)
            self.service.startService()
            self.tick(2)
            self.steps.crash_at = len(self.steps.taken) + steps
            self.tick(1)
            last_steps = self.steps.taken[-9:]
            crashed = len(self.steps.taken) == self.steps.crash_at
            there = self.files()
            self.assertTrue(
                there.get(FIRST) == SECRET
                or unseal(self.key, FIRST, there[FIRST + SEALED]) == SECRET,
                f"before step {steps}",
            )
            self.restart(alive=True)
            self.start()
            self.assertEqual(self.l1.asked, [SECRET], f"before step {steps}")
            self.assertEqual(list(self.files()), [FIRST + SEALED])
            self.l1.answer()
            self.tick(5)
            self.assertEqual((self.l1.asked, self.files()), ([SECRET], {}), f"step {steps}")
            if not crashed:
                break
            steps += 1
        self.assertEqual(
            last_steps,
            [
                "read request",
                "make form",
                "write form",
                "read request",
                "look again",
                "sync form",
                "name form",
                "sync forms",
                "remove plain",
            ],
        )

    def test_both_left(self) -> None:
        """If a crash has left both forms, the request is sent once, however soon it is answered."""
        for with_proof in (False, True):
            self.restart()
            self.put(FIRST, SECRET)
            self.put_sealed(FIRST)
            self.service.startService()
            proofs = Proofs()
            for _ in range(40):
                while self.l1.owes:
                    self.l1.answer(b"ok\n", proofs if with_proof else None)
                self.clock.advance(0.25)
            for proof in proofs.asked:
                proof.callback(True)
            self.tick(5)
            self.assertEqual((self.l1.asked, self.files()), ([SECRET], {}), f"{with_proof}")

    def test_both_cannot_be_deleted(self) -> None:
        """If the unsealed file cannot be deleted, the request is sent once, and both go later."""
        self.steps.fail("remove plain", errno.EROFS)
        self.steps.fail("remove request", errno.EROFS)
        self.put(FIRST, SECRET)
        self.start()
        self.tick(1)
        self.assertEqual(len(self.files()), 2)
        self.l1.answer()
        self.tick(10)
        self.steps.faults.clear()
        self.tick(int(CLEARED_AGAIN) + 1)
        self.assertEqual(self.l1.asked, [SECRET])
        self.assertEqual(self.files(), {})

    def test_both_are_refused(self) -> None:
        """If such a request is refused, it is set aside once."""
        self.steps.fail("remove plain", errno.EROFS)
        self.put(FIRST, SECRET)
        self.start()
        self.tick(1)
        self.steps.faults.clear()
        self.l1.answer(b"refused\n")
        self.tick(int(CLEARED_AGAIN) + 1)
        self.assertEqual(self.l1.asked, [SECRET])
        self.assertEqual(self.files(), {})
        self.assertEqual(self.in_kept(), {FIRST: SECRET, FIRST + ".answer": b"refused\n"})


class KeptSealedTests(SealedCase):
    """Requests that are set aside are sealed too."""

    def test_unusable(self) -> None:
        """A request that cannot be sent is kept sealed with the reason, however long it is."""
        lines = b"x" * (3 * 1024 * 1024) + b"\n"
        self.put(FIRST, lines)
        self.start()
        self.assertEqual(
            self.opened("kept"),
            {
                FIRST + SEALED: lines,
                f"{FIRST}.reason{SEALED}": b"it is longer than the limit of 100 bytes\n",
            },
        )

    def test_from_before(self) -> None:
        """What was set aside without a key is sealed at the start, including notes."""
        os.mkdir(self.settings.kept_dir)
        before = {
            FIRST: SECRET,
            FIRST + ".answer": b"refused",
            FIRST + "~1": b"x" * 1000,
            FIRST + "~1.reason": b"it is longer than the limit of 100 bytes\n",
        }
        for name, data in {**before, "notes": b"1\n"}.items():
            write(os.path.join(self.settings.kept_dir, name), data)
        self.service.startService()
        files = self.files("kept")
        self.assertEqual(files.pop("notes"), b"1\n")
        self.assertEqual(
            {name: unseal(self.key, name, data) for name, data in files.items()},
            {name + SEALED: data for name, data in before.items()},
        )

    def test_sent_again(self) -> None:
        """A sealed request in the folder of programs, as after requeueing, is moved and sent."""
        self.put(f"{FIRST}~1{SEALED}", seal(self.key, FIRST, SECRET))
        self.service.startService()
        self.tick(2)
        self.assertEqual(self.l1.asked, [])
        self.tick(1)
        self.assertEqual(self.l1.asked, [SECRET])
        self.assertEqual(self.opened(), {FIRST + SEALED: SECRET})


class AuthenticityTests(SealedCase):
    """Sealed files that are not what lonc sealed."""

    def test_set_aside(self) -> None:
        """
        A file that was sealed with another key, changed, or renamed to another time or another host
        is set aside unchanged and not sent; the log says so.
        """
        changed = bytearray(seal(self.key, FIRST, SECRET))
        changed[-20] ^= 1
        other = seal(self.key_of("other"), FIRST, SECRET)
        os.mkdir(os.path.join(self.settings.delayed_dir, "sealed"))
        renamed = seal(self.key, FIRST, SECRET)
        for name, data in (
            (FIRST, other),
            (FIRST, bytes(changed)),
            (SECOND, renamed),
            (OTHER, renamed),
        ):
            self.put(f"sealed/{name}{SEALED}", data)
            self.restart()
            self.start()
            self.tick(5)
            self.assertEqual((self.l1.asked, self.l2.asked, self.files()), ([], [], {}))
            note = b"it was sealed with another key, or has been changed or renamed since\n"
            self.assertEqual(self.files("kept")[name + SEALED], data)
            self.assertEqual(self.in_kept()[name + ".reason"], note)
            (line,) = self.logged(LogLevel.warn)
            self.assertIn(f"{name} goes to", line)
            shutil.rmtree(self.settings.kept_dir)

    def test_beside_another(self) -> None:
        """An unsealed request with the name of such a file is sent."""
        self.put_sealed(FIRST, key=self.key_of("other"))
        self.put(FIRST, b"put:1\n")
        self.start()
        self.tick(5)
        self.l1.answer()
        self.assertEqual(self.l1.asked, [b"put:1\n"])
        self.assertEqual(self.files(), {})

    def test_order(self) -> None:
        """Such a file does not delay later requests."""
        self.put_sealed(FIRST, key=self.key_of("other"))
        self.put_sealed(SECOND)
        self.start()
        self.assertEqual(self.l1.asked, [SECRET])


class KeyTests(SealedCase):
    """Keys that come, change and go while lonc runs."""

    def without_key(self) -> None:
        """Take the key out of the settings."""
        self.service.reconfigure(attrs.evolve(self.settings, delayed_key_file=None))

    def test_gone(self) -> None:
        """
        Without a key, sealed requests stay. A problem says how many there are; it ends when the key
        is back, and begins again the next time.
        """
        self.put_sealed(FIRST)
        self.put_sealed(OTHER)
        self.without_key()
        self.start()
        self.tick(10)
        self.assertEqual((self.l1.asked, self.l2.asked), ([], []))
        self.assertEqual(len(self.files()), 2)
        self.assertEqual(self.service.counts, {"l1": 1, "l2": 1})
        self.put_sealed(SECOND)
        self.tick(5)
        self.hosts.clear()
        for _ in range(2):
            what = "3 sealed delayed requests, and no key is set (loncDelayedKeyFile)"
            self.assertEqual(self.wrong("delayed-locked"), [what])
            self.service.reconfigure(self.settings)
            self.tick(2)
            self.assertEqual(self.wrong("delayed-locked"), [])
            self.without_key()
            self.tick(2)

    def test_gone_others_go(self) -> None:
        """Without a key unsealed requests are sent, unless they may be one of the sealed."""
        self.put_sealed(FIRST)
        self.put(FIRST, SECRET)
        self.put(SECOND, b"put:2\n")
        self.without_key()
        self.start()
        self.l1.answer()
        self.tick(5)
        self.assertEqual(self.l1.asked, [b"put:2\n"])
        self.assertEqual(list(self.files()), [FIRST, FIRST + SEALED])

    def test_back(self) -> None:
        """When the key is back, each of them is sent once."""
        self.test_gone_others_go()
        self.service.reconfigure(self.settings)
        self.tick(4)
        self.l1.answer()
        self.assertEqual(self.l1.asked, [b"put:2\n", SECRET])
        self.assertEqual(self.files(), {})

    def test_comes(self) -> None:
        """With a new key, waiting requests are sealed, but not the one that is being sent."""
        self.without_key()
        self.put(FIRST, SECRET)
        self.put(SECOND, SECRET)
        self.start()
        self.service.reconfigure(self.settings)
        self.tick(5)
        self.assertEqual(list(self.files()), [FIRST, SECOND + SEALED])
        self.l1.answer()
        self.l1.answer()
        self.assertEqual(self.l1.asked, [SECRET, SECRET])
        self.assertEqual(self.files(), {})

    def test_comes_and_it_is_refused(self) -> None:
        """If the one that was being sent is refused, it is sealed when it is set aside."""
        self.without_key()
        self.put(FIRST, SECRET)
        self.start()
        self.service.reconfigure(self.settings)
        self.l1.answer(b"refused\n")
        self.tick(int(TRY_AGAIN) + 1)
        self.assertEqual(
            self.opened("kept"), {FIRST + SEALED: SECRET, f"{FIRST}.answer{SEALED}": b"refused\n"}
        )

    def test_gone_before_it_seals(self) -> None:
        """A request about to be sealed when the key is removed is sent, and stays unsealed."""
        os.mkdir(self.settings.kept_dir)
        self.put(FIRST, SECRET)
        self.service.startService()
        self.without_key()
        write(os.path.join(self.settings.kept_dir, SECOND), SECRET)
        self.tick(2 * int(TRY_AGAIN))
        self.assertEqual(self.l1.asked, [SECRET])
        self.assertEqual(list(self.files()), [FIRST])
        self.assertEqual(list(self.files("kept")), [SECOND])

    def test_gone_while_one_is_sent(self) -> None:
        """Sealed requests behind one that is being sent when the key is removed are not sent."""
        self.steps.fail("remove plain", errno.EROFS)
        self.put(FIRST, b"put:1\n")
        self.put(SECOND, b"put:2\n")
        self.start()
        self.tick(1)
        self.without_key()
        self.l1.answer()
        self.tick(int(CLEARED_AGAIN) + 1)
        self.assertEqual(self.l1.asked, [b"put:1\n"])
        self.assertEqual(list(self.files()), [SECOND, SECOND + SEALED])

    def test_bad(self) -> None:
        """F13: a new key that cannot be used is a problem, and the previous one stays in use."""
        self.start()
        self.service.reconfigure(attrs.evolve(self.settings, delayed_key_file="/nowhere"))
        self.put(FIRST, SECRET)
        self.l1.alive = False
        self.tick(4)
        self.assertEqual(self.opened(), {FIRST + SEALED: SECRET})
        self.assertIn("reload-failed", [each.kind for each in self.problems])
        (line,) = self.logged(LogLevel.error)
        self.assertEqual(
            line,
            "the previous key stays in use: loncDelayedKeyFile: /nowhere: No such file or"
            " directory",
        )

    def test_same_settings(self) -> None:
        """With the same settings object, as at USR2, the key file is not read again."""
        os.unlink(self.settings.delayed_key_file or "")
        self.service.reconfigure(self.settings)
        self.assertEqual(self.logged(), [])
        self.service.reconfigure(attrs.evolve(self.settings))
        self.assertEqual(len(self.logged()), 1)

    def test_other_content(self) -> None:
        """F13: at HUP the same key file with a new key is used."""
        self.l1.alive = False
        self.start()
        os.unlink(self.settings.delayed_key_file or "")
        self.key = self.key_of("key")
        self.service.reconfigure(attrs.evolve(self.settings))
        self.put(FIRST, SECRET)
        self.tick(4)
        self.assertEqual(self.opened(), {FIRST + SEALED: SECRET})


class FailureToSealTests(SealedCase):
    """A disk on which requests cannot be sealed."""

    def test_full(self) -> None:
        """Requests that cannot be sealed are sent unsealed; that is a problem meanwhile."""
        self.steps.fail("write form", errno.ENOSPC)
        self.put(FIRST, SECRET)
        self.put(SECOND, SECRET)
        self.start()
        path = os.path.join(self.settings.delayed_dir, SECOND)
        what = f"delayed requests cannot be sealed, and stay in the clear: {path}: "
        self.assertEqual(self.wrong(), [f"{what}No space left on device"])
        self.l1.answer()
        self.l1.answer()
        self.assertEqual(self.l1.asked, [SECRET, SECRET])
        self.tick(1)
        self.assertEqual((self.files(), self.wrong()), ({}, []))

    def test_only_some(self) -> None:
        """If only some files cannot be sealed, that is one problem, which does not end."""
        self.l1.alive = self.l2.alive = False
        for name in (FIRST, OTHER, SECOND):
            self.put(name, SECRET)

        self.service.startService()
        self.tick(2)
        outcomes = iter([errno.ENOSPC, 0, errno.ENOSPC])

        def fail_at_times() -> None:
            if number := next(outcomes):
                raise OSError(number, "full")

        self.steps.faults["write form"] = fail_at_times
        self.tick(1)
        self.assertEqual(set(self.files()), {FIRST, OTHER + SEALED, SECOND})
        self.tick(5)
        self.assertEqual(len(self.wrong("delayed-unsealed")), 1)

    def test_tried_again(self) -> None:
        """At a DEAD host sealing is tried again later; if it succeeds the problem ends."""
        self.l1.alive = False
        for step in ["make form", "write form", "sync form", "name form", "sync forms"]:
            self.put(FIRST, SECRET)
            self.steps.fail(step, errno.ENOSPC)
            if not self.service.running:
                self.service.startService()
            opened = self.steps.taken.count("open request")
            self.tick(int(TRY_AGAIN) + 10)
            self.assertEqual(set(self.files()) - {FIRST + SEALED}, {FIRST}, step)
            self.assertLess(self.steps.taken.count("open request"), opened + 4, step)
            self.assertEqual(len(self.wrong("delayed-unsealed")), 1, step)
            self.steps.faults.clear()
            self.tick(int(TRY_AGAIN))
            self.assertEqual(self.opened(), {FIRST + SEALED: SECRET}, step)
            self.assertEqual(self.wrong(), [], step)
            self.take_away(FIRST)

    def test_sealed_while_sent(self) -> None:
        """A request that was sent unsealed is not sealed while it waits for its answer."""
        self.steps.fail("write form", errno.ENOSPC)
        self.put(FIRST, SECRET)
        self.start()
        self.steps.faults.clear()
        self.tick(2 * int(TRY_AGAIN))
        self.assertEqual(list(self.files()), [FIRST])
        self.l1.answer()
        self.tick(5)
        self.assertEqual((self.l1.asked, self.files()), ([SECRET], {}))

    def test_sealed_after_con_lost(self) -> None:
        """After con_lost it is sealed before it is sent again, if that is possible by then."""
        self.steps.fail("write form", errno.ENOSPC)
        self.put(FIRST, SECRET)
        self.start()
        self.steps.faults.clear()
        self.tick(int(TRY_AGAIN))
        self.l1.lose(Cause.TIMEOUT)
        self.tick(2)
        self.assertEqual(self.opened(), {FIRST + SEALED: SECRET})
        self.assertEqual(self.l1.asked, [SECRET, SECRET])

    def test_refused(self) -> None:
        """A request that could not be sealed and is refused is sealed when it is set aside."""
        self.steps.fail("write form", errno.ENOSPC)
        self.put(FIRST, SECRET)
        self.start()
        self.l1.answer(b"refused\n")
        self.assertEqual(list(self.files()), [FIRST])
        self.steps.faults.clear()
        self.tick(int(CLEARED_AGAIN) + 1)
        self.assertEqual(self.l1.asked, [SECRET])
        self.assertEqual(self.files(), {})
        self.assertEqual(
            self.opened("kept"), {FIRST + SEALED: SECRET, f"{FIRST}.answer{SEALED}": b"refused\n"}
        )

    def test_form_not_synced(self) -> None:
        """If the folder of the form cannot be synced, the request is sent once, as it is."""
        self.steps.fail("sync forms", errno.EIO)
        self.put(FIRST, SECRET)
        self.start()
        self.tick(2)
        self.assertEqual(self.files(), {FIRST: SECRET})
        self.l1.answer()
        self.tick(2)
        self.assertEqual(self.l1.asked, [SECRET])
        self.assertEqual(self.files(), {})

    def test_found_while_it_is_set_aside(self) -> None:
        """A scan that finds the form of a refused request while it is set aside changes nothing."""
        self.steps.fail("write form", errno.ENOSPC)
        self.put(FIRST, SECRET)
        self.start()
        self.steps.faults.clear()
        proofs = Proofs()
        self.l1.answer(b"refused\n", proofs)
        self.tick(1)

        def scan() -> None:
            del self.steps.faults["sync forms"]
            self.clock.advance(1.0)

        self.steps.faults["sync forms"] = scan
        proofs.asked.pop().callback(True)
        self.assertEqual(self.steps.faults, {})
        self.tick(5)
        self.assertEqual(self.l1.asked, [SECRET])
        self.assertEqual(self.in_kept(), {FIRST: SECRET, FIRST + ".answer": b"refused\n"})
        self.assertEqual(self.files(), {})

    def test_sealed_but_not_kept(self) -> None:
        """If it can then be sealed but not moved, it is not sent again, and moved later."""
        self.steps.fail("write form", errno.ENOSPC)
        self.put(FIRST, SECRET)
        self.start()
        self.steps.faults.clear()
        self.steps.fail("make note", errno.ENOSPC)
        self.l1.answer(b"refused\n")
        self.assertEqual(list(self.files()), [FIRST + SEALED])
        self.steps.faults.clear()
        self.tick(int(CLEARED_AGAIN) + 1)
        self.assertEqual((self.l1.asked, self.files()), ([SECRET], {}))
        self.assertEqual(self.in_kept()[FIRST + ".answer"], b"refused\n")

    def test_not_kept_at_once(self) -> None:
        """F8: whichever step of setting aside fails, it is done later, without sending again."""
        for step in ["make note", "sync note", "move request", "sync kept"]:
            self.put(FIRST, SECRET)
            self.start() if not self.service.running else self.tick(4)
            self.steps.fail(step, errno.ENOSPC)
            self.l1.answer(b"refused\n")
            self.tick(10)
            self.steps.faults.clear()
            self.tick(int(CLEARED_AGAIN) + 1)
            self.assertEqual(self.l1.asked, [SECRET], step)
            self.assertEqual(self.files(), {}, step)
            self.l1.asked.clear()


class BatchTests(SlowDisk, SealedCase):
    """Many requests, and disks that are slow or hang."""

    def begin(self) -> None:
        """Start, and let scans end until there is something to seal."""
        self.service.startService()
        for _ in range(3):
            self.finish_all()
            self.clock.advance(1.0)
        self.threads.finish()  # the scan

    def finish_all(self) -> None:
        """Let all disk calls return."""
        while self.threads.begun:
            self.threads.finish()

    def sealed(self) -> int:
        """Return the number of sealed files."""
        return sum(name.endswith(SEALED) for name in self.files())

    def test_one_at_a_time(self) -> None:
        """Files are sealed one after the other, each in a disk call of its own."""
        self.l1.alive = False
        self.put_many(3)
        self.begin()
        for expected in (1, 2, 3):
            self.assertEqual(len(self.threads.begun), 1)
            self.threads.finish()
            self.assertEqual(self.sealed(), expected)

    def take_a_while(self) -> None:
        """Let 0.2 s pass while a disk works."""
        self.clock.rightNow += 0.2

    def test_scans_go_on(self) -> None:
        """F6: new requests are found within a second even if many are being sealed."""
        self.l1.alive = False
        self.put_many(100)
        self.steps.faults["sync form"] = self.take_a_while
        self.begin()
        self.put(OTHER)
        scans = self.steps.taken.count("scan")
        self.finish_all()
        self.assertEqual(self.sealed(), 4)  # 0.8 s have passed
        self.clock.advance(1.0)
        self.threads.finish()
        self.assertEqual(self.steps.taken.count("scan"), scans + 1)
        self.assertEqual(self.service.counts["l2"], 1)

    def test_sending_goes_on(self) -> None:
        """The first request of each host is sealed and sent first."""
        self.put_many(100)
        self.put("1062009999.1.put.l2", b"put:2\n")
        self.begin()
        for _ in range(5):
            self.threads.finish()
        self.assertEqual((self.l1.asked, self.l2.asked), ([b"put:1\n"], [b"put:2\n"]))
        self.assertLess(self.sealed(), 5)

    def test_hangs(self) -> None:
        """If sealing a file hangs, that request waits, and the others are sent unsealed."""
        self.put(FIRST, b"put:1\n")
        self.begin()
        self.put(SECOND, b"put:2\n")
        self.put(OTHER, b"put:3\n")
        self.pass_time(10, hanging=1)
        (what,) = self.wrong("delayed-unsealed")
        self.assertRegex(what, "in the clear: .*: no answer from the disk after 10 s$")
        self.pass_time(2 * int(TRY_AGAIN), hanging=1)
        self.assertEqual((self.l1.asked, self.l2.asked), ([b"put:2\n"], [b"put:3\n"]))
        self.assertEqual(list(self.files()), [FIRST, OTHER, SECOND])
        self.l1.answer()
        self.l2.answer()
        self.pass_time(5)
        self.assertEqual(self.l1.asked, [b"put:2\n", b"put:1\n"])
        self.assertEqual(list(self.files()), [FIRST + SEALED])
        self.assertEqual(self.wrong(), [])

    def test_another_hangs(self) -> None:
        """A file for which another disk call hangs is not sealed meanwhile."""
        self.steps.fail("write form", errno.ENOSPC)
        self.put(FIRST, SECRET * 2)
        self.begin()
        self.threads.finish()  # to seal it
        self.threads.finish()  # to read it
        self.steps.faults.clear()
        self.pass_time(2 * int(TRY_AGAIN), hanging=1)  # to set it aside
        self.assertEqual(list(self.files()), [FIRST])
        self.pass_time(2)
        self.assertEqual(self.files(), {})
        self.assertEqual(len(self.opened("kept")), 2)

    def test_dropped(self) -> None:
        """A file being deleted is not sealed; one that is being sealed cannot be deleted."""
        self.l1.alive = False
        self.put(FIRST, SECRET)
        self.put(SECOND, SECRET)
        self.begin()
        refused = Deferred.fromCoroutine(self.service.drop(FIRST))
        self.failureResultOf(refused, UnknownRequest)
        dropped = Deferred.fromCoroutine(self.service.drop(SECOND))
        self.threads.finish()
        self.assertEqual((self.sealed(), len(self.threads.begun)), (1, 1))
        self.threads.finish()
        self.successResultOf(dropped)
        self.pass_time(5)
        self.assertEqual(list(self.files()), [FIRST + SEALED])

    def test_no_place(self) -> None:
        """If other disk calls hang, nothing is sealed, and sending does not wait for that."""
        hosts = [f"h{number}" for number in range(PLACES)]
        for host_id in hosts:
            self.hosts[host_id] = Host()
            self.put_sealed(f"1062000000.1.put.{host_id}")
        self.service.startService()
        self.threads.finish()
        self.assertEqual(len(self.threads.begun), PLACES)
        self.put(FIRST)
        self.tick(30)
        self.assertEqual(len(self.threads.begun), PLACES)
        self.assertEqual(len(self.logged(LogLevel.warn)), PLACES)
        self.finish_all()
        self.pass_time(5)
        self.assertEqual(len(self.l1.asked), 1)

    def test_key_changes(self) -> None:
        """F13: sealing that has begun uses the key with which it began."""
        self.l1.alive = False
        self.put(FIRST, SECRET)
        self.begin()
        self.service.reconfigure(self.settings_with_key("other"))
        self.put(SECOND, SECRET)
        self.pass_time(5)
        other = self.key_of("other")
        self.assertEqual(
            [
                unseal(key, name, data)
                for (name, data), key in zip(self.files().items(), [self.key, other], strict=True)
            ],
            [SECRET, SECRET],
        )

    def test_key_removed(self) -> None:
        """A request for which a disk call hung while the key was removed is sent unsealed."""
        self.steps.fail("write form", errno.ENOSPC)
        path = self.put(FIRST, b"put:1\n")
        self.begin()
        self.threads.finish()  # to seal it
        self.threads.finish()  # to read it
        self.l1.answer()  # the call to delete it hangs
        write(path, b"put:1234\n")
        self.service.reconfigure(attrs.evolve(self.settings, delayed_key_file=None))
        self.pass_time(8, hanging=1)  # until the folder counts as unchanged
        self.pass_time(5)
        self.assertEqual(self.l1.asked, [b"put:1\n", b"put:1234\n"])
        self.assertEqual(self.files(), {FIRST: b"put:1234\n"})

    def test_slow_and_kept_in_clear(self) -> None:
        """What was set aside and cannot be sealed stays a problem while a slow disk is searched."""
        kept = os.path.join(self.settings.kept_dir, FIRST)
        os.makedirs(kept + SEALING)  # in the way
        write(kept, SECRET)
        self.service.startService()
        told = []
        for _ in range(3 * int(TRY_AGAIN)):
            self.clock.advance(1.0)
            if self.threads.begun:
                self.threads.finish()  # so each call takes a second
            told.append(len(self.wrong("delayed-unsealed")))
        self.assertNotIn(0, told[told.index(1) :])

    def test_stop(self) -> None:
        """stopService waits for the file that is being sealed, and no other is begun."""
        self.l1.alive = False
        self.put_many(3)
        self.begin()
        stopped = self.service.stopService()
        self.assertNoResult(stopped)
        self.threads.finish()
        self.successResultOf(stopped)
        self.assertEqual(self.threads.begun, [])

    def test_fault(self) -> None:
        """S19: an unexpected error while sealing is logged, and the request is sent."""
        self.put(FIRST, SECRET)

        def fault() -> None:
            raise ZeroDivisionError

        self.steps.faults["make form"] = fault
        self.begin()
        self.threads.finish()
        self.finish_all()
        self.assertEqual(self.l1.asked, [SECRET])
        self.assertEqual(len(self.logged(LogLevel.critical)), 1)


class ReloadTests(TapTestCase):
    """The daemon with a key file that cannot be used."""

    def test_reload(self) -> None:
        """F13: at HUP nothing is changed, and one line says why."""
        key = self.path("key")
        make_key_file(key)
        config = self.configured(f"PerlSetVar loncDelayedKeyFile {key}")
        daemon = self.made("lonc", "--config", config)
        os.chmod(key, 0o640)
        daemon._reloader._disk = Disk(Clock(), execute, lambda: 10.0)
        failure = self.failureResultOf(daemon.reload(), ReloadFailed)
        self.assertEqual(
            str(failure.value),
            f"nothing is changed: loncDelayedKeyFile: {key}: its mode is 0640, so others have"
            " access to it: make it 0600",
        )
