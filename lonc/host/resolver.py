# Failure has few annotations:
# mypy: allow-untyped-calls
"""
Host names to addresses, without blocking (row F12), and how long an answer is kept.

The system's resolver does not tell for how long an answer holds, so that is a setting. Names that
are in use are looked up again when their time is over, for a host that moves may leave its old
connections open.

A look-up cannot be interrupted: one that hangs keeps its thread until the system gives it up. So
no name is ever looked up twice at a time, and there are threads for many names that hang.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Set

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from lonc.config.settings import Settings

#: Seconds for which a failure is the answer to all who ask: a name that does not exist is asked for
#: once a second, however many requests want it.
FAILURE_LIFETIME = 1.0

log = Logger()


def addresses_of(name: str) -> list[str]:
    """
    Return the addresses of a name, IPv4 and IPv6. It blocks, and belongs into a thread.

    :raises twisted.internet.error.DNSLookupError: there is none.
    """
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DNSLookupError(f"no address is known for {name}: {error}") from None
    families = (socket.AF_INET, socket.AF_INET6)
    addresses = [str(at[0]) for family, _, _, _, at in found if family in families]
    if not addresses:
        raise DNSLookupError(f"no address is known for {name}")
    return list(dict.fromkeys(addresses))  # each once, in the system's order


class _Name:
    """
    What is known of a name.

    :ivar addresses: the last answer that had any.
    :ivar answer: the last answer, for as long as it counts.
    :ivar until: when that ends, in seconds of the clock.
    :ivar renew_at: when it is to be looked up again even if nobody asks.
    :ivar waiters: who waits for a look-up.
    :ivar looking: whether it is being looked up.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.answer: list[str] | Failure = []
        self.until = self.renew_at = float("-inf")
        self.waiters: list[Deferred[list[str]]] = []
        self.looking = False

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
            if isinstance(self.answer, Failure):
                waiter.errback(self.answer)
            else:
                waiter.callback(list(self.answer))


class Names:
    """
    Looks names up and keeps the answers for their time.

    :param ask: looks a name up, as :func:`addresses_of` does; it may answer as late as it likes.
    :param clock: the reactor's time.
    :param changed: called with a name once a look-up gave other addresses than the one before.
    :param places: names that are looked up at a time; others wait until one of them is through.
    :param lifetime: seconds for which an answer is kept.
    """

    def __init__(
        self,
        ask: Callable[[str], Deferred[list[str]]],
        clock: IReactorTime,
        lifetime: float,
        changed: Callable[[str], None],
        places: int,
    ) -> None:
        self._lifetime = lifetime
        self._ask = ask
        self._seconds = clock.seconds
        self._changed = changed
        self._places = places
        self._looking = 0
        self._names: dict[str, _Name] = {}

    def reconfigure(self, settings: Settings) -> None:
        """Take over new settings; what is known is kept for as long as it was to be."""
        self._lifetime = settings.name_lifetime

    def look_up(self, target: str) -> Deferred[list[str]]:
        """
        Return the addresses of a host, IPv4 and IPv6.

        All who ask for a name while it is being looked up wait for the same look-up; one of them
        may cancel without the others noticing. Where all places are taken what was known last
        serves, however old.

        :param target: a name, or an address, which is its own only address.
        :return: fails with :exc:`twisted.internet.error.DNSLookupError` when there is none. It may
            be cancelled; the time limit is the caller's.
        """
        if isIPAddress(target) or isIPv6Address(target):
            return succeed([target])
        name = self._names.setdefault(target, _Name())
        now = self._seconds()
        if now < name.until:
            kept = name.answer
            return fail(kept) if isinstance(kept, Failure) else succeed(list(kept))
        if name.addresses and self._looking >= self._places:
            return succeed(list(name.addresses))  # renew() sees to a new answer
        waiter = name.wait()
        if not name.looking:
            self._begin(target, name)
        return waiter

    def _begin(self, target: str, name: _Name) -> None:
        self._looking += 1
        name.looking = True
        looking = self._ask(target)
        looking.addBoth(self._answered, target, name)
        looking.addErrback(lambda failure: log.failure("a fault inside lonc", failure))

    def _answered(self, answer: list[str] | Failure, target: str, name: _Name) -> None:
        self._looking -= 1
        name.looking = False
        name.answer = answer
        now = self._seconds()
        # After a failure too: who needs the name before that asks, and has it looked up.
        name.renew_at = name.until = now + self._lifetime
        if isinstance(answer, Failure):
            answer.cleanFailure()
            name.until = now + FAILURE_LIFETIME
            name.tell()
            return
        before, name.addresses = name.addresses, answer
        try:
            if before and set(before) != set(answer):
                # Sooner than those who wait: what they wait for may have to begin anew.
                self._changed(target)
        finally:
            name.tell()

    def renew(self, used: Set[str]) -> None:
        """
        Look up again what is over its time, a few at a time; called once a second.

        :param used: the names of all hosts; what is known of others is forgotten.
        """
        now = self._seconds()
        # One that is being looked up is kept, or it could be looked up twice at a time.
        for target in [each for each in self._names if each not in used]:
            if not self._names[target].looking:
                del self._names[target]
        # Half of the places are left to names that somebody waits for.
        free = max(1, self._places // 2) - self._looking
        for target, name in list(self._names.items()):
            if free <= 0:
                break
            if name.renew_at <= now and not name.looking:
                free -= 1
                self._begin(target, name)
