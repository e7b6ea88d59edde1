"""
What a connection to a lond is about, and what may end it.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class ConnectionState(IntEnum):
    """
    What a connection is about. ``ConnectionPool.move`` changes it; the two moves that each request
    brings, from ``IDLE`` to ``BUSY`` and back, ``Machine`` makes itself.

    ================  =============================  ===========================================
    In the state      when                           it comes to
    ================  =============================  ===========================================
    ``CONNECTING``    the socket is connected        ``HANDSHAKING``
    ``HANDSHAKING``   the handshake is complete      ``IDLE``, or ``PROVING`` in doubt
    ``IDLE``          it gets a request              ``BUSY``; ``INTRODUCING`` if its lond has
                                                     not yet said ok to the name of the host
    ``INTRODUCING``   the lond says ok               ``BUSY``: the request is sent
    ``INTRODUCING``   it says anything else          ``IDLE``: the host is not served
    ``BUSY``          the answer comes               ``IDLE``, or ``BUSY`` with who waits next
    ``BUSY``          it has answered often enough   ``PROVING``: it is asked ``ping``
    ``PROVING``       the right answer comes         ``IDLE``
    ``BUSY``          it may not be used again       ``RETIRING``
    ``RETIRING``      the answer comes               ``CLOSED``
    any other         it may not be used again       ``CLOSED``; what it was to send goes elsewhere
    any               it breaks, or takes too long   ``CLOSED``
    ================  =============================  ===========================================
    """

    CONNECTING = 0  #: its address is looked up, or it is being connected
    HANDSHAKING = 1  #: connected, not yet ready
    IDLE = 2  #: ready, and owes nothing
    INTRODUCING = 3  #: its lond is asked whether it serves the host of a request; then that is sent
    BUSY = 4  #: owes the answer to a request
    PROVING = 5  #: owes the answer to a ``ping`` of ours
    RETIRING = 6  #: owes the answer to a request, and is closed after that
    CLOSED = 7  #: ended; never used again


class Trouble(Enum):
    """
    What ended a connection.

    Each counts once against the host's retries (row F5), but for `NO_FILES`: that is no fault of
    the host's.
    """

    LOOK_UP = "look-up failed"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    NO_FILES = "not made"
    TIMEOUT = "timed out"
    HANDSHAKE = "bad handshake"
    OTHER_LOND = "leads to another lond"
    BROKEN = "broke"
