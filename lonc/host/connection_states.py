"""
The states of a connection to a lond, and the failures that may end it.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class ConnectionState(IntEnum):
    """
    The state of a connection. ``ConnectionPool.move`` changes it, except the two transitions of
    each request, from ``IDLE`` to ``BUSY`` and back, which ``Machine`` makes itself.

    ================  =============================  ===========================================
    State             Event                          New state
    ================  =============================  ===========================================
    ``CONNECTING``    the socket is connected        ``HANDSHAKING``
    ``HANDSHAKING``   the handshake is complete      ``IDLE``, or ``PROVING`` if in doubt
    ``IDLE``          it gets a request              ``BUSY``, or ``INTRODUCING`` if its lond has
                                                     not yet accepted ``sethost`` for the host
    ``INTRODUCING``   the lond answers ``ok``        ``BUSY``: the request is sent
    ``INTRODUCING``   any other answer               ``IDLE``: the host is not served
    ``BUSY``          the answer arrives             ``IDLE``, or ``BUSY`` with a waiting request
    ``BUSY``          it is time for a check         ``PROVING``: ``ping`` is sent
    ``PROVING``       the right answer arrives       ``IDLE``
    ``BUSY``          it may not be used again       ``RETIRING``
    ``RETIRING``      the answer arrives             ``CLOSED``
    any other         it may not be used again       ``CLOSED``; an unsent request goes elsewhere
    any               it breaks, or takes too long   ``CLOSED``
    ================  =============================  ===========================================
    """

    CONNECTING = 0  #: looking up the address, or connecting
    HANDSHAKING = 1  #: connected, but not ready
    IDLE = 2  #: ready, without an outstanding request
    INTRODUCING = 3  #: ``sethost`` is outstanding; the request follows
    BUSY = 4  #: a request is outstanding
    PROVING = 5  #: a ``ping`` of ours is outstanding
    RETIRING = 6  #: a request is outstanding; closed after its answer
    CLOSED = 7  #: ended; never used again


class Trouble(Enum):
    """
    Why a connection ended.

    Each counts once against the host's retries (row F5), except `NO_FILES`, which is not the host's
    fault.
    """

    LOOK_UP = "look-up failed"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    NO_FILES = "not made"
    TIMEOUT = "timed out"
    HANDSHAKE = "bad handshake"
    OTHER_LOND = "leads to another lond"
    BROKEN = "broke"
