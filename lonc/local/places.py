"""Which client makes room when every place for one is taken (row F3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lonc.local.protocol import ClientProtocol


def longest_silent(
    newcomer: ClientProtocol, clients: Iterable[ClientProtocol]
) -> ClientProtocol | None:
    """
    Return the client that makes room for a newcomer, None if nobody has to.

    It is the one that has been silent for longest, of the program with most places, or of the next
    where all of that one's have something to say; but never of a program with fewer places than
    the newcomer's own, for else one program could push out all others.
    """
    staying = [client for client in clients if not client.leaving]
    places = Counter(client.program for client in staying)
    own = places[newcomer.program]
    silent = [
        client
        for client in staying
        if client.silent and client is not newcomer and places[client.program] >= own
    ]
    silent.sort(key=lambda client: (-places[client.program], client.quiet_since))
    return next((client for client in silent if not client.unread), None)
