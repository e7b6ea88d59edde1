"""
Host names to addresses, without blocking (row F12).
"""

from __future__ import annotations

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from zope.interface import implementer


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
