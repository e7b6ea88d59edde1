"""A lond that does wrong by chance: it hangs up, stalls, splits its bytes, says a line too many."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from random import Random

import attrs

#: Seconds for which an answer is held back where a lond is slow.
SLOW = 0.02

#: Seconds between an answer and a line that nobody asked for: the next request has come by then.
APART = 0.002

#: Seconds, where it is not to come at all.
NEVER = 3600.0


@attrs.define
class Chances:
    """
    How often each fault happens, as a share of the requests.

    :ivar close_before: the lond hangs up, and has not done what was asked.
    :ivar close_after: it has done it, and hangs up.
    :ivar stall: it has done it, and never answers.
    :ivar slow: it answers after a while.
    :ivar split: each byte of the answer comes for itself.
    :ivar refuse: it hangs up on who connects; a share of the connections.
    """

    close_before: float = 0.0
    close_after: float = 0.0
    stall: float = 0.0
    slow: float = 0.0
    split: float = 0.0
    refuse: float = 0.0


class Lond:
    """
    One lond (protocol, section 2).

    It answers ``echo:<nonce>`` with ``<host id>:<nonce>``, and ``put:<nonce>`` with ``ok``.

    :ivar done: nonce -> how often it was put.
    :ivar extra: how many lines too many it shall still say, each in a packet of its own behind an
        answer.
    """

    def __init__(self, host_id: str, address: str, port: int, random: Random) -> None:
        self.host_id = host_id
        self.address = address
        self.port = port
        self.chances = Chances()
        self.done: Counter[bytes] = Counter()
        self.extra = 0
        self._random = random
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, self.address, self.port)

    async def stop(self) -> None:
        """Listen no more, and break every connection."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self._happens(self.chances.refuse):
                return
            await self._handshake(reader, writer)
            while line := await reader.readline():
                if not await self._answer(line, writer):
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the caller has gone, or the run is over
        finally:
            self._open.discard(writer)
            with contextlib.suppress(OSError):
                writer.close()

    async def _handshake(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = {b"init": b"1234567890", b"1234567890": b"ok", b"version": b"$Revision: 1.500 $"}
        while line := (await reader.readline()).strip():
            last = line == b"ekey"
            known = b"ok" if line.startswith(b"sethost") else answers.get(line, b"unknown_cmd")
            writer.write((b"0123456789ABCDEF" * 2 if last else known) + b"\n")
            if last:
                return

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; return whether the connection goes on."""
        chances = self.chances
        if self._happens(chances.close_before):
            return False
        word, _, nonce = line.strip().rpartition(b":")
        answer = self.host_id.encode()
        if word.startswith(b"put"):
            self.done[nonce] += 1
            answer = b"ok"
        elif nonce != b"ping":
            answer += b":" + nonce
        if self._happens(chances.close_after):
            return False
        if self._happens(chances.stall):
            await asyncio.sleep(NEVER)
        if self._happens(chances.slow):
            await asyncio.sleep(SLOW)
        if self._happens(chances.split):
            for byte in answer:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            answer = b""
        writer.write(answer + b"\n")
        if self.extra:
            self.extra -= 1
            await asyncio.sleep(APART)
            writer.write(b"nobody:asked\n")
        await writer.drain()
        return True

    def _happens(self, chance: float) -> bool:
        return chance > 0.0 and self._random.random() < chance
