"""
Records of clients, connections, slow requests, delayed requests and settings.

AMP, the ``lonc`` command and the page use the same records.
"""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class ClientStatus:
    """
    One open client connection.

    :ivar number: serial number since the start; the order of a listing.
    :ivar host_id: the host whose socket it uses.
    :ivar pid: process id; 0 if unknown.
    :ivar user: name of its user, or the numeric id if that has no name.
    :ivar since: when it connected, in Unix time.
    :ivar requests: number of requests it has sent.
    :ivar waits_for: ``lond`` for an answer, ``queue`` for a connection; empty if for nothing.
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

    :ivar number: serial number since the start; the order of a listing.
    :ivar host_id: the host of its lond; if several ids share it, the first one listed.
    :ivar state: ``connecting``, ``handshaking``, ``idle`` or ``busy``.
    :ivar since: when it was opened, in Unix time.
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

    :ivar number: serial number since the start.
    :ivar when: when it ended, in Unix time.
    :ivar host_id: the host it was for.
    :ivar pid: process id of the client; 0 if unknown, or for requests of lonc itself.
    :ivar command: its command word only.
    :ivar size: bytes of the request.
    :ivar reply_size: bytes of the answer; 0 without one.
    :ivar queue: seconds it waited for a connection, including the next two.
    :ivar connecting: seconds of these spent on opening a connection for it.
    :ivar handshake: seconds of these spent on the handshake of that connection.
    :ivar lond: seconds until the lond had answered.
    :ivar outcome: ``answered``, or the cause of its ``con_lost``.
    :ivar contents: the request itself, if the owner wants it; otherwise empty.
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

    :ivar file: its path in the folder of delayed requests, such as ``kept/<name>``.
    :ivar host_id: the host it is for; empty if the name does not say.
    :ivar command: its command word; empty if it is sealed and there is no key.
    :ivar age: seconds since it was stored.
    :ivar size: bytes on disk.
    :ivar tries: attempts to send it since lonc started.
    :ivar last_answer: result of the last attempt: the lond's answer, or why there was none; or why
        it is not sent.
    :ivar kept: whether it was set aside and is no longer tried.
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

    :ivar name: its name in ``loncapa.conf``.
    :ivar value: as text.
    :ivar unit: unit or kind of the value.
    :ivar source: ``default``, the name of an option, or file and line.
    :ivar differs: the value now in the file if it differs, or that it is unusable; otherwise empty.
    """

    name: str
    value: str
    unit: str
    source: str
    differs: str = ""
