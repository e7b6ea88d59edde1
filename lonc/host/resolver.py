# Failure has few annotations:
# mypy: allow-untyped-calls
"""
Resolving host names without blocking (row F12), and caching the addresses.

The system's resolver does not return the TTL of an answer, so the lifetime is a setting. Names in
use are looked up again when it has expired, since a host that moves may leave its old connections
open.

The cache bridges failures of a name server:

* While look-ups fail or hang, the last addresses are used, for a time that is a setting.
* Only the answer that there is no such name ends their use for new connections.
* An address missing from an answer is gone only after `ANSWERS` such answers in a row: some name
  servers return only some of several addresses each time.

A look-up cannot be interrupted: one that hangs occupies its thread until the system gives up. So
each name is looked up only once at a time, and there are threads for many hanging look-ups.
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

#: Seconds for which a failure is cached: a name that does not exist is looked up at most once a
#: second, however many requests need it.
FAILURE_LIFETIME: Final = 1.0

#: Seconds after which a failed look-up is repeated even without a request for it, so that the end
#: of the problem is noticed.
RETRY: Final = 60.0

#: Seconds after which a look-up is reported as hanging; the system waits 5 s for each name server.
HANGS: Final = 10.0

#: Number of consecutive answers without an address after which it is gone.
ANSWERS: Final = 3

#: Maximum concurrent look-ups, each in a thread. With a hanging name server each takes tens of
#: seconds, and other names should not have to wait for them.
PLACES: Final = 128

#: Errors of `getaddrinfo` for a name without an address; all others may be temporary.
_NO_SUCH_NAME: Final = (socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY)

log = Logger()


class LookUpError(Exception):
    """A look-up failed. The readable message contains the reason."""


class NoSuchName(LookUpError):
    """A name definitely has no usable address."""


def addresses_of(name: str) -> list[str]:
    """
    Return the IPv4 and IPv6 addresses of a name. It blocks, so it must be called in a thread.

    Addresses that would be refused in the host table, such as 0.0.0.0, are omitted: they lead to
    this machine or nowhere.

    :raises NoSuchName: there is none.
    :raises LookUpError: the look-up failed.
    """
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise NoSuchName(f"not a host name: {error}") from None
    except OSError as error:
        certain = isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME
        raise (NoSuchName if certain else LookUpError)(error.strerror) from None
    families = (socket.AF_INET, socket.AF_INET6)
    addresses = [normal_address(str(at[0])) for family, *_, at in found if family in families]
    usable = [each for each in addresses if is_of_one_host(each)]
    if not usable:
        refused = f"{', '.join(dict.fromkeys(addresses))} is not the address of one host"
        raise NoSuchName(refused if addresses else "it has no IP address")
    return list(dict.fromkeys(usable))  # without duplicates, in the system's order


@attrs.frozen
class NameTrouble:
    """
    Why a name cannot be looked up.

    :ivar since: in seconds of the clock.
    :ivar why: the result of the last look-up, readable.
    """

    since: float
    why: str


class _Name:
    """
    The cache entry of a name.

    :ivar addresses: of the last valid answer; empty if there is no such name.
    :ivar answered: when that was, in seconds of the clock.
    :ivar missing: an address that is not gone -> the number of consecutive answers without it.
    :ivar failure: of the last look-up, None if it succeeded.
    :ivar failed_at: when that was, likewise.
    :ivar trouble: why it cannot be looked up; None if it can.
    :ivar renew_at: when it is due to be looked up again.
    :ivar begun: when the look-up in progress began, None without one.
    :ivar waiters: those waiting for a look-up.
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
        """Return a Deferred for the look-up in progress; it may be cancelled."""
        waiter = Deferred[list[str]](self._gone)
        self.waiters.append(waiter)
        return waiter

    def _gone(self, waiter: Deferred[list[str]]) -> None:
        if waiter in self.waiters:  # not while answers are being delivered
            self.waiters.remove(waiter)

    def tell(self) -> None:
        """Deliver the answer to all waiters."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if waiter.called:  # cancelled by a callback of an earlier one
                continue
            if self.failure is not None:
                waiter.errback(self.failure)
            else:
                waiter.callback(list(self.addresses))

    def note(self, addresses: list[str]) -> tuple[bool, Set[str]]:
        """Record an answer; return whether there are new addresses, and which are gone."""
        before = self.missing
        news = bool(before) and not before.keys() >= set(addresses)
        counts = {each: count + 1 for each, count in before.items()} | dict.fromkeys(addresses, 0)
        self.missing = {each: count for each, count in counts.items() if count < ANSWERS}
        self.addresses, self.failure, self.trouble = addresses, None, None
        return news, counts.keys() - self.missing.keys()

    def fail(self, now: float, why: str) -> None:
        """Record that it cannot be looked up."""
        self.trouble = NameTrouble(now if self.trouble is None else self.trouble.since, why)


class Names:
    """
    Looks up names and caches the answers.

    :param ask: looks up a name like :func:`addresses_of`, without a time limit.
    :param clock: the reactor's time.
    :param settings: contain the lifetime of answers, and its extension if look-ups fail.
    :param moved: called with a name in normal form and the addresses that it no longer has (maybe
        none), when it has got or lost addresses.
    :param places: the number of threads of `ask`; renewing leaves half of them to requests.
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
        """Apply new settings, effective from the next look-up on."""
        self._settings = settings

    def trouble(self, target: str) -> NameTrouble | None:
        """Return why a name cannot be looked up, None if it can or needs no look-up."""
        name = self._names.get(normal_target(target))
        return None if name is None else name.trouble

    def look_up(self, target: str) -> Deferred[list[str]]:
        """
        Return the IPv4 and IPv6 addresses of a host.

        As long as the cached ones may be used, they are returned immediately, even if a look-up is
        due. Otherwise concurrent calls for a name share one look-up; cancelling one of them does
        not affect the others.

        :param target: a name, or an address, which is returned unchanged.
        :return: fails with :exc:`NoSuchName` if there is none, and with :exc:`LookUpError` if the
            look-up failed. It may be cancelled; time limits are up to the caller.
        """
        if isIPAddress(target) or isIPv6Address(target):
            return succeed([target])
        target = normal_target(target)
        name = self._names.setdefault(target, _Name())
        now = self._seconds()
        if self._serves(name, now):
            if name.renew_at <= now and name.begun is None and self._looking < self._places:
                self._begin(target, name)  # otherwise renew() does it
            if name.addresses:  # the look-up may have ended immediately
                return succeed(list(name.addresses))
        if name.failure is not None and now < name.failed_at + FAILURE_LIFETIME:
            return fail(name.failure)
        waiter = name.wait()
        if name.begun is None:
            self._begin(target, name)
        return waiter

    def _serves(self, name: _Name, now: float) -> bool:
        """Return whether the cached addresses may be used."""
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
            # If an address is missing, check soon whether it is gone.
            name.renew_at = now + (lifetime / ANSWERS if any(name.missing.values()) else lifetime)
            if news or gone:
                # Before the waiters, whose work may have to be restarted.
                self._moved(target, gone)
        finally:
            name.tell()

    def renew(self, used: Set[str]) -> None:
        """
        Look up expired names again, a few at a time; called once a second.

        :param used: the names of all hosts; others are removed from the cache.
        """
        now = self._seconds()
        used = {normal_target(each) for each in used}
        # Half of the places are left for names that requests wait for.
        free = max(1, self._places // 2) - self._looking
        for target, name in list(self._names.items()):
            if name.begun is not None:
                # Kept while being looked up, lest it be looked up twice at a time.
                if now - name.begun >= HANGS:
                    name.fail(now, "the name server does not answer")
            elif target not in used:
                del self._names[target]
            elif name.renew_at <= now and free > 0:
                free -= 1
                self._begin(target, name)
