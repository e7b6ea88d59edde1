"""
Test lonc's guarantees: ``make soak``, or ``python -m reliability.soak --help``.

Each guarantee has a run of its own, with a lonc, its londs and its clients. The exit status is 1 if
one was broken. ``docs/reliability.rst`` contains the table of a long run.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from random import Random

import attrs

from lonc.delayed.sending import UNPROVEN
from reliability.lond import Chances
from reliability.world import World

FAULTS = Chances(
    close_before=0.002, close_after=0.002, stall=0.0005, slow=0.01, split=0.02, refuse=0.02
)

#: Answers that may be wrong after an extra line of a lond.
DOUBT = 64

#: Seconds until a host is served again after its lond is back: the longest interval between probes
#: of a host that was down for some seconds, and a reserve for a busy machine.
BACK = 16.0

#: Seconds within which a busy connection certainly reaches the number of answers for a check.
NOTICED = 4.0

_ROW = "{:<66} {:<42} {:<46} {}"


@attrs.frozen
class Result:
    """
    The result of a run.

    :ivar run: describes it.
    :ivar figure: its result.
    :ivar kept: whether the guarantee was kept.
    """

    run: str
    figure: str
    kept: bool


def _told(world: World, *names: str) -> str:
    return ", ".join(f"{world.outcomes[name]:,} {name}" for name in names)


async def requests(world: World, size: int) -> Result:
    """No answer reaches another client, and every client gets an answer."""
    for lond in world.londs:
        lond.chances = FAULTS
    await world.start()
    asked = 5000 * size
    await world.clients(40, iter(range(asked)))
    bad = world.outcomes["wrong"] + world.outcomes["hangs"] + world.outcomes["closed"]
    figure = _told(world, "wrong", "hangs", "closed", "con_lost")
    return Result(f"{asked:,} requests, 40 clients, londs that fail", figure, bad == 0)


async def extra_lines(world: World, size: int) -> Result:
    """An extra line affects at most 64 answers."""
    await world.start()
    worst = 0
    lines = 5 * size
    for lond in world.londs:
        lond.chances = Chances(slow=1.0)  # more clients than connections, which are never idle
    async with world.asking(90):
        for _ in range(lines):
            before = world.outcomes["wrong"]
            lond = world.random.choice(world.londs)
            lond.extra = 1
            await asyncio.sleep(NOTICED)
            worst = max(worst, world.outcomes["wrong"] - before)
    figure = f"at most {worst} wrong answers per line"
    return Result(f"{lines} extra lines, 90 clients", figure, worst <= DOUBT)


async def delayed(world: World, size: int) -> Result:
    """No delayed request is lost, whenever lonc is killed and londs go."""
    await world.start()
    number = kills = 0
    nonces = set()
    for _ in range(size):
        for _ in range(40):
            number += 1
            nonce = b"%016x" % world.random.getrandbits(64)
            nonces.add(nonce)
            world.delay(world.random.choice(world.londs), nonce, number)
        await asyncio.sleep(world.random.uniform(0.5, 4.0))
        await world.kill()
        kills += 1
        lond = world.random.choice(world.londs)
        await lond.stop()
        await world.start()
        await asyncio.sleep(0.3)
        await lond.start()
    limit = time.monotonic() + 120
    while world.delayed() and time.monotonic() < limit:
        await asyncio.sleep(0.2)
    done = sum((lond.done for lond in world.londs), start=type(world.londs[0].done)())
    lost = sum(not done[nonce] for nonce in nonces)
    twice = sum(done[nonce] > 1 for nonce in nonces)
    left = world.delayed()
    figure = f"{lost} lost, {left} left, {twice} sent twice"
    run = f"{len(nonces):,} delayed requests, {kills} crashes"
    return Result(
        run, figure, lost == left == 0 and twice <= kills * len(world.londs) * (UNPROVEN + 1)
    )


async def flaps(world: World, size: int) -> Result:
    """A host is served again by itself when its lond is back."""
    await world.start()
    slowest = 0.0
    for _ in range(size):
        lond = world.random.choice(world.londs)
        async with world.asking(10):
            await lond.stop()
            await asyncio.sleep(world.random.uniform(0.5, 5.0))
            await lond.start()
            back = time.monotonic()
            while not await world.answers(lond) and time.monotonic() < back + 2 * BACK:
                await asyncio.sleep(0.05)
            slowest = max(slowest, time.monotonic() - back)
    bad = world.outcomes["wrong"] + world.outcomes["hangs"] + world.outcomes["closed"]
    figure = f"back after at most {slowest:.1f} s; " + _told(world, "wrong", "hangs")
    return Result(f"{size} londs down and back", figure, slowest <= BACK and bad == 0)


async def reloads(world: World, size: int) -> Result:
    """HUP, USR1 and USR2 affect no client."""
    await world.start()
    signals = 50 * size
    async with world.asking(40):
        for _ in range(signals):
            await asyncio.sleep(0.1)
            world.signal(world.random.choice([signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]))
    names = ("wrong", "hangs", "closed", "con_lost", "no lonc")
    bad = sum(world.outcomes[name] for name in names)
    run = f"{world.outcomes.total():,} requests, {signals} signals"
    return Result(run, _told(world, *names), bad == 0)


async def restarts(world: World, size: int) -> Result:
    """When lonc stops, every request gets an answer or con_lost."""
    await world.start()
    for lond in world.londs:
        lond.chances = Chances(slow=0.5)
    ends = []
    async with world.asking(40):
        for _ in range(5 * size):
            await asyncio.sleep(world.random.uniform(0.1, 1.0))
            ends.append(await world.stop())
            await world.start()
    names = ("wrong", "hangs", "closed")
    bad = sum(world.outcomes[name] for name in names) + sum(map(abs, ends))
    run = f"{world.outcomes.total():,} requests, {len(ends)} restarts"
    return Result(run, _told(world, *names, "con_lost"), bad == 0)


async def kept_sockets(world: World, size: int) -> Result:
    """A restart under a manager that keeps sockets refuses nobody."""
    world.keep_sockets()
    world.reconnects = 1.0  # like lonnet
    await world.start()
    ends = []
    async with world.asking(40):
        for _ in range(20 * size):
            await asyncio.sleep(world.random.uniform(0.1, 0.5))
            ends.append(await world.stop())
            await world.start()
    names = ("wrong", "hangs", "closed", "con_lost", "no lonc")
    bad = sum(world.outcomes[name] for name in names) + sum(map(abs, ends))
    run = f"{world.outcomes.total():,} requests, {len(ends)} restarts"
    return Result(run, _told(world, *names, "con_lost in flight"), bad == 0)


async def take_overs(world: World, size: int) -> Result:
    """A process that takes over refuses nobody, and sends nothing twice."""
    world.reconnects = 1.0  # like lonnet
    await world.start()
    ends = []
    nonces = set()
    async with world.asking(40):
        for number in range(20 * size):
            await asyncio.sleep(world.random.uniform(0.1, 0.5))
            nonce = b"%016x" % world.random.getrandbits(64)
            nonces.add(nonce)
            world.delay(world.random.choice(world.londs), nonce, number)
            ends.append(await world.take_over())
    limit = time.monotonic() + 60
    while world.delayed() and time.monotonic() < limit:
        await asyncio.sleep(0.2)
    done = sum((lond.done for lond in world.londs), start=type(world.londs[0].done)())
    wrong = sum(done[nonce] != 1 for nonce in nonces)
    names = ("wrong", "hangs", "closed", "con_lost", "no lonc")
    bad = sum(world.outcomes[name] for name in names) + sum(map(abs, ends)) + wrong
    run = f"{world.outcomes.total():,} requests, {len(ends)} processes"
    figure = f"{_told(world, *names)}, {wrong} not sent once"
    return Result(run, figure, bad == 0)


#: The runs by name.
PROMISES: dict[str, Callable[[World, int], Awaitable[Result]]] = {
    "requests": requests,
    "extra-lines": extra_lines,
    "delayed": delayed,
    "flaps": flaps,
    "reloads": reloads,
    "restarts": restarts,
    "kept-sockets": kept_sockets,
    "take-overs": take_overs,
}


async def _keep(name: str, size: int, seed: int) -> Result:
    with tempfile.TemporaryDirectory(prefix="lonc-soak-") as folder:
        world = World(folder, 3, Random(seed))
        for lond in world.londs:
            await lond.start()
        try:
            return await PROMISES[name](world, size)
        finally:
            await world.close()


def main(arguments: list[str]) -> int:
    """Run the chosen tests and print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="reliability.soak", description=__doc__)
    parser.add_argument("--size", type=int, default=1, metavar="N", help="amount of work (1)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of random numbers (1)")
    parser.add_argument(
        "--only", choices=PROMISES, action="append", help="run only this; repeatable"
    )
    options = parser.parse_args(arguments)
    if options.size < 1:
        parser.error("--size begins at 1")
    print(f"size {options.size}, seed {options.seed}")
    print(_ROW.format("promise", "run", "figure", ""))
    broken = 0
    for name in options.only or PROMISES:
        result = asyncio.run(_keep(name, options.size, options.seed))
        broken += not result.kept
        promise = (PROMISES[name].__doc__ or "").rstrip(".")
        mark = "kept" if result.kept else "BROKEN"
        print(_ROW.format(promise, result.run, result.figure, mark), flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
