"""
What the daemon passes to every host: clock, network, name look-up, limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from random import Random

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from lonc.config.hosts import Host
from lonc.host.resolver import NameTrouble
from lonc.local.client_socket import ClientSocket
from lonc.local.limits import Clients
from lonc.local.protocol import RequestTaker
from lonc.report.recent import RequestLog
from lonc.transport.epoll_loop import Moment
from lonc.transport.network import Keeper, Network
from lonc.wire.handshake import AuthModes


@attrs.frozen
class HostDependencies:
    """
    Objects shared by all hosts.

    :ivar clock: the reactor's time.
    :ivar seconds: its time now; one method object for all hosts.
    :ivar network: listens and connects.
    :ivar look_up: a host name -> its addresses.
    :ivar name_trouble: a host name -> why it cannot be looked up, or None.
    :ivar random: for the jitter of probes.
    :ivar clients: the limits on clients.
    :ivar revived: called with the id of a host that is no longer DEAD.
    :ivar auth_modes: a host -> the authentication modes of its lond, according to the settings in
        force.
    :ivar enciphers: whether OpenSSL has the cipher for ``encrypt:`` requests.
    :ivar ids: a host -> the ids that its lond serves, according to the table in force.
    :ivar request_log: logs requests that take long, or are watched.
    :ivar connection_numbers: numbers the connections to londs.
    :ivar moment: the time of the events being handled, if the network provides it.
    :ivar keeper: keeps listening sockets open across a restart.
    """

    clock: IReactorTime
    network: Network
    look_up: Callable[[str], Deferred[list[str]]]
    random: Random
    clients: Clients
    revived: Callable[[str], None]
    name_trouble: Callable[[str], NameTrouble | None] = lambda target: None
    auth_modes: Callable[[Host], AuthModes] = lambda host: AuthModes()
    ids: Callable[[Host], Sequence[str]] = lambda host: (host.id,)
    enciphers: bool = True
    request_log: RequestLog = attrs.field(factory=RequestLog)
    connection_numbers: Iterator[int] = attrs.field(factory=lambda: count(1))
    moment: Moment = attrs.field(factory=Moment)
    keeper: Keeper = attrs.field(factory=Keeper)
    seconds: Callable[[], float] = attrs.field(init=False)

    @seconds.default
    def _clock_seconds(self) -> Callable[[], float]:
        return self.clock.seconds

    def socket_for(self, host: RequestTaker) -> ClientSocket:
        """Return a socket for the clients of a host, not yet open."""
        return ClientSocket(host, self.clients, self.network, self.keeper, self.clock)
