"""Who makes room when every place for a client is taken (row F3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lonc.local.protocol import ClientProtocol


class Places:
    """
    Who has the places at one moment, the silent ones in order.

    It takes milliseconds to see that of thousands, so one look has to do for the newcomers of the
    next moment: a flood of them would else be all that the loop is busy with.
    """

    def __init__(self, clients: Iterable[ClientProtocol]) -> None:
        staying = [client for client in clients if not client.leaving]
        self._held = Counter(client.program for client in staying)
        self._silent: dict[int, list[ClientProtocol]] = {}
        # The last one of each list has been silent for longest.
        silent = [client for client in staying if client.silent]
        for client in sorted(silent, key=lambda each: -each.quiet_since):
            self._silent.setdefault(client.program, []).append(client)

    def make_room(self, newcomer: ClientProtocol) -> ClientProtocol | None:
        """
        Return the client that makes room for a newcomer, None if nobody has to.

        It is the one that has been silent for longest, of the program with most places, or of the
        next where all of that one's have something to say; but never of a program with fewer
        places than the newcomer's own, for else one program could push out all others.
        """
        held, silent = self._held, self._silent
        held[newcomer.program] += 1
        while silent:
            program = max(silent, key=lambda each: (held[each], -silent[each][-1].quiet_since))
            if held[program] < held[newcomer.program]:
                break
            client = silent[program].pop()
            if not silent[program]:
                del silent[program]
            # It may have said something since, or gone.
            if client.silent and not client.unread:
                held[program] -= 1
                return client
        held[newcomer.program] -= 1
        return None
