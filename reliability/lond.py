"""A lond with random faults: it disconnects, stalls, splits its output, sends extra lines."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from random import Random

import attrs

#: Delay of an answer of a slow lond, in seconds.
SLOW = 0.02

#: Seconds between an answer and an extra line: the next request has arrived by then.
APART = 0.002

#: Delay of an answer that is never sent, in seconds.
NEVER = 3600.0


@attrs.define
class Chances:
    """
    The frequency of each fault, as a fraction of the requests.

    :ivar close_before: the lond disconnects without executing the request.
    :ivar close_after: it executes the request and disconnects.
    :ivar stall: it executes the request, but never answers.
    :ivar slow: it answers with a delay.
    :ivar split: each byte of the answer is sent separately.
    :ivar refuse: it closes new connections; a fraction of the connections.
    """

    close_before: float = 0.0
    close_after: float = 0.0
    stall: float = 0.0
    slow: float = 0.0
    split: float = 0.0
    refuse: float = 0.0


class Lond:
    """
    A lond (protocol, section 2).

    It answers ``echo:<nonce>`` with ``<host id>:<nonce>``, and ``put:<nonce>`` with ``ok``.

    :ivar done: nonce -> number of times it was put.
    :ivar extra: number of extra lines to send, each in a separate packet after an answer.
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
        """Stop listening, and abort all connections."""
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
            pass  # the caller has disconnected, or the run has ended
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
        """Answer a request; return whether to keep the connection."""
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
