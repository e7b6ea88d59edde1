# Failure has few annotations:
# mypy: allow-untyped-calls
"""
Host names to addresses, without blocking (row F12), and how long an answer is kept.

The system's resolver does not tell for how long an answer holds, so that is a setting. Names that
are in use are looked up again when their time is over, for a host that moves may leave its old
connections open.

What is known of a name outlives a name server that is in trouble:

* While look-ups fail or hang, the addresses of the last answer serve, for a time that is a setting.
* An answer that there is no such name ends their use for new connections, and no other.
* An address that is missing from an answer is gone only after `ANSWERS` of them running: of several
  addresses a name server may give another one each time.

A look-up cannot be interrupted: one that hangs keeps its thread until the system gives it up. So
no name is ever looked up twice at a time, and there are threads for many names that hang.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Set
from typing import Final

import attrs
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from lonc.config.host_rows import is_of_one_host, normal_address
from lonc.config.hosts import normal_target
from lonc.config.settings import Settings
from lonc.report.events import Logger

#: Seconds for which a failure is the answer to all who ask: a name that does not exist is asked for
#: once a second, however many requests want it.
FAILURE_LIFETIME: Final = 1.0

#: Seconds until a name that could not be looked up is tried again though nobody asks, so that the
#: end of the trouble is noticed.
RETRY: Final = 60.0

#: Seconds after which a look-up is said to hang; the system asks each name server for 5 s.
HANGS: Final = 10.0

#: Answers running that an address has to be missing from until it is gone.
ANSWERS: Final = 3

#: Host names that are looked up at a time, each in a thread. A name server that hangs holds each
#: for tens of seconds; those who ask for other names shall not wait behind them.
PLACES: Final = 128

#: What `getaddrinfo` says of a name that has no address; all else may be over in a moment.
_NO_SUCH_NAME: Final = (socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY)

log = Logger()


class LookUpError(Exception):
    """The addresses of a name cannot be found out. The message says why, for a person."""


class NoSuchName(LookUpError):
    """A name has no address that can be used, and that is certain."""


def addresses_of(name: str) -> list[str]:
    """
    Return the addresses of a name, IPv4 and IPv6. It blocks, and belongs into a thread.

    Those that would be refused in the host table, such as 0.0.0.0, are left out: behind them is
    this machine, or nobody.

    :raises NoSuchName: there is none.
    :raises LookUpError: that cannot be found out now.
    """
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise NoSuchName(f"it is no host name: {error}") from None
    except OSError as error:
        certain = isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME
        raise (NoSuchName if certain else LookUpError)(error.strerror) from None
    families = (socket.AF_INET, socket.AF_INET6)
    addresses = [normal_address(str(at[0])) for family, *_, at in found if family in families]
    usable = [each for each in addresses if is_of_one_host(each)]
    if not usable:
        refused = f"{', '.join(dict.fromkeys(addresses))} is not the address of one host"
        raise NoSuchName(refused if addresses else "it has no IP address")
    return list(dict.fromkeys(usable))  # each once, in the system's order


@attrs.frozen
class NameTrouble:
    """
    Why a name cannot be looked up.

    :ivar since: since when that is so, in seconds of the clock.
    :ivar why: what the last look-up said, for a person.
    """

    since: float
    why: str


class _Name:
    """
    What is known of a name.

    :ivar addresses: of the last answer that counts; empty where there is no such name.
    :ivar answered: when that was, in seconds of the clock.
    :ivar missing: an address that is not gone -> from how many answers running it was missing.
    :ivar failure: of the last look-up, None where that had an answer.
    :ivar failed_at: when that was, likewise.
    :ivar trouble: why it cannot be looked up; None where it can.
    :ivar renew_at: when it is to be looked up again even if nobody asks.
    :ivar begun: when the look-up under way began, None without one.
    :ivar waiters: who waits for a look-up.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.missing: dict[str, int] = {}
        self.failure: Failure | None = None
        self.trouble: NameTrouble | None = None
        self.answered = self.failed_at = self.renew_at = float("-inf")
        self.begun: float | None = None
        self.waiters: list[Deferred[list[str]]] = []

    def wait(self) -> Deferred[list[str]]:
        """Return a Deferred for the answer to the look-up under way; it may be cancelled."""
        waiter = Deferred[list[str]](self._gone)
        self.waiters.append(waiter)
        return waiter

    def _gone(self, waiter: Deferred[list[str]]) -> None:
        if waiter in self.waiters:  # not while answers are given out
            self.waiters.remove(waiter)

    def tell(self) -> None:
        """Give the answer to all who wait."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if waiter.called:  # cancelled by what an earlier one did with the answer
                continue
            if self.failure is not None:
                waiter.errback(self.failure)
            else:
                waiter.callback(list(self.addresses))

    def note(self, addresses: list[str]) -> tuple[bool, Set[str]]:
        """Note an answer; return whether it has addresses that are new, and those that are gone."""
        before = self.missing
        news = bool(before) and not before.keys() >= set(addresses)
        counts = {each: count + 1 for each, count in before.items()} | dict.fromkeys(addresses, 0)
        self.missing = {each: count for each, count in counts.items() if count < ANSWERS}
        self.addresses, self.failure, self.trouble = addresses, None, None
        return news, counts.keys() - self.missing.keys()

    def fail(self, now: float, why: str) -> None:
        """Note that it cannot be looked up."""
        self.trouble = NameTrouble(now if self.trouble is None else self.trouble.since, why)


class Names:
    """
    Looks names up and keeps the answers for their time.

    :param ask: looks a name up, as :func:`addresses_of` does; it may answer as late as it likes.
    :param clock: the reactor's time.
    :param settings: for how long an answer is kept, and how much longer in times of trouble.
    :param moved: called with a name in its one spelling and addresses, when it has others that it
        did not have before, or these are its own no more.
    :param places: names that are looked up at a time; others wait until one of them is through.
    """

    def __init__(
        self,
        ask: Callable[[str], Deferred[list[str]]],
        clock: IReactorTime,
        settings: Settings,
        moved: Callable[[str, Set[str]], None],
        places: int = PLACES,
    ) -> None:
        self._settings = settings
        self._ask = ask
        self._seconds = clock.seconds
        self._moved = moved
        self._places = places
        self._looking = 0
        self._names: dict[str, _Name] = {}

    def reconfigure(self, settings: Settings) -> None:
        """Take over new settings, which count from the next look-up on."""
        self._settings = settings

    def trouble(self, target: str) -> NameTrouble | None:
        """Return why a name cannot be looked up, None where it can or needs no look-up."""
        name = self._names.get(normal_target(target))
        return None if name is None else name.trouble

    def look_up(self, target: str) -> Deferred[list[str]]:
        """
        Return the addresses of a host, IPv4 and IPv6.

        Nobody waits where the last ones may still be used, though a look-up may be due. All others
        who ask for a name while it is being looked up wait for the same look-up; one of them may
        cancel without the others noticing.

        :param target: a name, or an address, which is its own only address.
        :return: fails with :exc:`NoSuchName` when there is none, and with :exc:`LookUpError` when
            that cannot be found out. It may be cancelled; the time limit is the caller's.
        """
        if isIPAddress(target) or isIPv6Address(target):
            return succeed([target])
        target = normal_target(target)
        name = self._names.setdefault(target, _Name())
        now = self._seconds()
        if self._serves(name, now):
            if name.renew_at <= now and name.begun is None and self._looking < self._places:
                self._begin(target, name)  # else renew() sees to it
            if name.addresses:  # it may have been answered at once
                return succeed(list(name.addresses))
        if name.failure is not None and now < name.failed_at + FAILURE_LIFETIME:
            return fail(name.failure)
        waiter = name.wait()
        if name.begun is None:
            self._begin(target, name)
        return waiter

    def _serves(self, name: _Name, now: float) -> bool:
        """Whether the addresses of the last answer may be used."""
        until = name.answered + self._settings.name_lifetime + self._settings.name_grace
        return bool(name.addresses) and now < until

    def _begin(self, target: str, name: _Name) -> None:
        self._looking += 1
        name.begun = self._seconds()
        looking = self._ask(target)
        looking.addBoth(self._answered, target, name)
        looking.addErrback(lambda failure: log.failure("a fault inside lonc", failure))

    def _answered(self, answer: list[str] | Failure, target: str, name: _Name) -> None:
        self._looking -= 1
        name.begun = None
        now, lifetime = self._seconds(), self._settings.name_lifetime
        try:
            if isinstance(answer, Failure):
                answer.cleanFailure()
                name.failure, name.failed_at = answer, now
                name.renew_at = now + min(lifetime, RETRY)
                if answer.check(NoSuchName):
                    name.addresses = []
                name.fail(now, answer.getErrorMessage())
                return
            news, gone = name.note(answer)
            name.answered = now
            # Where an address is missing, it is soon known whether it is gone.
            name.renew_at = now + (lifetime / ANSWERS if any(name.missing.values()) else lifetime)
            if news or gone:
                # Sooner than those who wait: what they wait for may have to begin anew.
                self._moved(target, gone)
        finally:
            name.tell()

    def renew(self, used: Set[str]) -> None:
        """
        Look up again what is over its time, a few at a time; called once a second.

        :param used: the names of all hosts; what is known of others is forgotten.
        """
        now = self._seconds()
        used = {normal_target(each) for each in used}
        # Half of the places are left to names that somebody waits for.
        free = max(1, self._places // 2) - self._looking
        for target, name in list(self._names.items()):
            if name.begun is not None:
                # One that is being looked up is kept, or it could be looked up twice at a time.
                if now - name.begun >= HANGS:
                    name.fail(now, "the name server does not answer")
            elif target not in used:
                del self._names[target]
            elif name.renew_at <= now and free > 0:
                free -= 1
                self._begin(target, name)
