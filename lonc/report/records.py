"""
What else lonc can be asked: its clients, requests that were slow, delayed requests, settings.

The same records travel over AMP, to the ``lonc`` command and to the page.
"""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class ClientStatus:
    """
    One open client connection.

    :ivar number: counts the connections since the start; the order of a listing.
    :ivar host_id: whose socket it is on.
    :ivar pid: of the program; 0 when the kernel does not tell.
    :ivar user: its user's name, or its number where there is none.
    :ivar since: when it connected, in Unix time.
    :ivar requests: how many it has asked.
    :ivar waits_for: ``lond`` for an answer, ``queue`` for a connection; empty when for nothing.
    :ivar waiting: for how long, in seconds.
    """

    number: int
    host_id: str
    pid: int
    user: str
    since: float
    requests: int
    waits_for: str = ""
    waiting: float = 0.0


@attrs.frozen(kw_only=True)
class ConnectionStatus:
    """
    One connection to a lond.

    :ivar number: counts the connections since the start; the order of a listing.
    :ivar host_id: whose lond it leads to; where several ids share it, the first one listed.
    :ivar state: ``connecting``, ``handshaking``, ``idle`` or ``busy``.
    :ivar since: when it was begun, in Unix time.
    :ivar seconds: how long it has been in its state.
    """

    number: int
    host_id: str
    state: str
    since: float
    seconds: float


@attrs.frozen(kw_only=True)
class RequestRecord:
    """
    A request that has ended.

    :ivar number: counts them since the start.
    :ivar when: when it ended, in Unix time.
    :ivar host_id: whom it was for.
    :ivar pid: of the client's program; 0 when not known, or when lonc itself asked.
    :ivar command: its command word, nothing else of it.
    :ivar size: bytes of the request.
    :ivar reply_size: bytes of the answer; 0 without one.
    :ivar queue: seconds it waited for a connection, of which some were spent on making one.
    :ivar connecting: seconds of these in which a connection for it was made.
    :ivar handshake: seconds of these in which that was taken through the handshake.
    :ivar lond: seconds until the lond had answered.
    :ivar outcome: ``answered``, or the cause of its ``con_lost``.
    :ivar contents: the request's line, where the owner asks for that; else empty.
    """

    number: int
    when: float
    host_id: str
    pid: int
    command: str
    size: int
    reply_size: int
    queue: float
    connecting: float
    handshake: float
    lond: float
    outcome: str
    contents: str = ""

    @property
    def total(self) -> float:
        """Seconds from the request to its end."""
        return self.queue + self.lond


@attrs.frozen(kw_only=True)
class DelayedStatus:
    """
    A delayed request on disk.

    :ivar file: its path in the folder of delayed requests; of one that is kept ``kept/<name>``.
    :ivar host_id: whom it is for; empty where the name does not tell.
    :ivar command: its command word; empty where it is sealed and the key is not there.
    :ivar age: seconds since it was stored.
    :ivar size: bytes on disk.
    :ivar tries: how often it was sent, or tried to be, since lonc started.
    :ivar last_answer: what the last try ended with: lond's answer, or why there was none.
    :ivar kept: whether it was set aside and is not tried any more.
    """

    file: str
    host_id: str
    command: str
    age: float
    size: int
    tries: int = 0
    last_answer: str = ""
    kept: bool = False


@attrs.frozen(kw_only=True)
class SettingStatus:
    """
    A setting in force.

    :ivar name: as it stands in ``loncapa.conf``.
    :ivar value: as it would be written there.
    :ivar unit: what it counts or names.
    :ivar source: ``default``, an option's name, or file and line.
    :ivar differs: what the file says now, where that is something else; empty where it is not.
    """

    name: str
    value: str
    unit: str
    source: str
    differs: str = ""
