# Failure has few annotations:
# mypy: allow-untyped-calls
"""
Host names to addresses, without blocking (row F12), and how long an answer is kept.

The system's resolver does not tell for how long an answer holds, so that is a setting. Names that
are in use are looked up again when their time is over, for a host that moves may leave its old
connections open.
"""

from __future__ import annotations

from collections.abc import Callable, Set

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

#: Seconds for which a failure is the answer to all who ask: a name that does not exist is asked for
#: once a second, however many requests want it.
FAILURE_LIFETIME = 1.0

#: Seconds after which a look-up without an answer is given up and begun anew.
LOOK_UP_LIMIT = 60.0

#: Names that are looked up again at a time; fewer than the reactor's ten threads, so that a
#: resolver that hangs does not keep new connections from being made.
RENEWALS = 4

log = Logger()


@implementer(IResolutionReceiver)
class _Answers:
    """Gathers the addresses of one name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: list[str] = []
        # Cancelling it tells nobody: Twisted's own resolver cannot give a look-up up.
        self.outcome: Deferred[list[str]] = Deferred()

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, IPv4Address | IPv6Address) and address.host not in self._found:
            self._found.append(address.host)

    def resolutionComplete(self) -> None:
        if self.outcome.called:
            return
        if self._found:
            self.outcome.callback(self._found)
        else:
            self.outcome.errback(DNSLookupError(f"no address is known for {self._name}"))


def look_up(resolver: IHostnameResolver, target: str) -> Deferred[list[str]]:
    """
    Return the addresses of a host, IPv4 and IPv6.

    :param resolver: the reactor's ``nameResolver``.
    :param target: a name, or an address, which is its own only address.
    :return: fails with :exc:`twisted.internet.error.DNSLookupError` when there is none. It may be
        cancelled; the time limit is the caller's.
    """
    if isIPAddress(target) or isIPv6Address(target):
        return succeed([target])
    answers = _Answers(target)
    resolver.resolveHostName(answers, target)
    return answers.outcome


class _Name:
    """
    What is known of a name.

    :ivar addresses: the last answer that had any.
    :ivar answer: the last answer, for as long as it counts.
    :ivar until: when that ends, in seconds of the clock.
    :ivar renew_at: when it is to be looked up again even if nobody asks.
    :ivar waiters: who waits for a look-up.
    :ivar looking: the look-up under way, begun at ``began``.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.answer: list[str] | Failure = []
        self.until = self.renew_at = self.began = float("-inf")
        self.waiters: list[Deferred[list[str]]] = []
        self.looking: Deferred[list[str]] | None = None

    def under_way(self, now: float) -> bool:
        """Whether it is being looked up; one without an answer is given up in the end."""
        return self.looking is not None and now < self.began + LOOK_UP_LIMIT

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

    :param ask: looks a name up, as :func:`look_up` does; it may answer as late as it likes.
    :param clock: the reactor's time.
    :param changed: called with a name once a look-up gave other addresses than the one before.
    :ivar lifetime: seconds for which an answer is kept.
    """

    def __init__(
        self,
        ask: Callable[[str], Deferred[list[str]]],
        clock: IReactorTime,
        lifetime: float,
        changed: Callable[[str], None],
    ) -> None:
        self.lifetime = lifetime
        self._ask = ask
        self._seconds = clock.seconds
        self._changed = changed
        self._names: dict[str, _Name] = {}

    def look_up(self, target: str) -> Deferred[list[str]]:
        """
        Return the addresses of a host; otherwise as :func:`look_up`.

        All who ask for a name while it is being looked up wait for the same look-up; one of them
        may cancel without the others noticing.
        """
        if isIPAddress(target) or isIPv6Address(target):
            return succeed([target])
        name = self._names.setdefault(target, _Name())
        now = self._seconds()
        if now < name.until:
            kept = name.answer
            return fail(kept) if isinstance(kept, Failure) else succeed(list(kept))
        waiter = name.wait()
        if not name.under_way(now):
            self._begin(target, name)
        return waiter

    def _begin(self, target: str, name: _Name) -> None:
        name.began = self._seconds()
        name.looking = looking = self._ask(target)
        looking.addBoth(self._answered, target, name, looking)
        looking.addErrback(lambda failure: log.failure("a fault inside lonc", failure))

    def _answered(
        self, answer: list[str] | Failure, target: str, name: _Name, looking: Deferred[list[str]]
    ) -> None:
        if name.looking is not looking:
            return  # it was given up
        name.looking = None
        name.answer = answer
        now = self._seconds()
        # After a failure too: who needs the name before that asks, and has it looked up.
        name.renew_at = name.until = now + self.lifetime
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
        for target in [each for each in self._names if each not in used]:
            del self._names[target]
        free = RENEWALS - sum(name.under_way(now) for name in self._names.values())
        for target, name in list(self._names.items()):
            if free > 0 and name.renew_at <= now and not name.under_way(now):
                free -= 1
                self._begin(target, name)
