"""What is measured, and how each figure comes about."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from statistics import median

from benchmarks.processes import BenchmarkError, Child, Server, Workshop, default_command

CONNECTIONS = 10  #: per host: lonc's default, and the C relay's
MANY_HOSTS = 500
FILES_NEEDED = MANY_HOSTS * (CONNECTIONS + 2) + 200  #: in lonc, and in its lond

SLOW_US = 1000  #: how long the slow lond takes, in microseconds
SLOW_LIMIT = CONNECTIONS * 1_000_000 // SLOW_US  #: requests per second it allows one host

CLIENTS_IN_ALL = 2000
SILENT_CLIENTS = 200
SILENT_REPLY = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a figure must reach and what it aims at. Marked in the report, never enforced."""

    must: float
    aim: float | None
    more_is_better: bool = False

    def met(self, value: float, limit: float) -> bool:
        """Tell whether ``value`` is as good as ``limit`` or better."""
        return value >= limit if self.more_is_better else value <= limit


@dataclass(frozen=True)
class Sample:
    """What the load generator counted in one run; its usage text says what each is."""

    requests: int
    rps: float
    mean_us: float
    p50_us: int
    p99_us: int
    p999_us: int
    relay_cpu_us: float
    relay_busy: float
    relay_waited: float
    load_core_busy: float
    served: int
    retries: int
    con_lost: int
    wrong: int
    broken: int
    refused: int
    unanswered: int
    silent_closed: int


@dataclass
class Rates:
    """
    A row of the first table: samples of lonc and of the relay, in turn, one of each a round.

    :ivar before: those of the commit that lonc is measured against, if it is.
    """

    name: str
    title: str
    limits: Limits | None
    lonc: list[Sample] = field(default_factory=list)
    before: list[Sample] = field(default_factory=list)
    relay: list[Sample] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """Return, per round, the relay's CPU per request divided by lonc's."""
        return per_round(self.relay, self.lonc)


def per_round(one: Sequence[Sample], other: Sequence[Sample]) -> list[float]:
    """Return, per round, the one's CPU per request divided by the other's."""
    return [
        each.relay_cpu_us / beside.relay_cpu_us
        for each, beside in zip(one, other, strict=True)
        if beside.relay_cpu_us > 0
    ]


@dataclass
class Figure:
    """A row of the second table: one value a round, of lonc and perhaps of the relay."""

    name: str
    title: str
    digits: int
    limits: Limits | None = None
    lonc: list[float] = field(default_factory=list)
    before: list[float] = field(default_factory=list)
    relay: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How long each measurement takes: rounds, and milliseconds of a run."""

    rounds: int
    measured_ms: int
    warm_up_ms: int = 300


@dataclass(frozen=True)
class Load:
    """
    What the clients do.

    :ivar request: bytes of a request, newline included, without ``encrypt:``.
    :ivar encrypt: requests begin with ``encrypt:``. The relay, which has no cipher, is then given
        plain requests that are as long as what lonc and lond exchange.
    """

    clients: int
    connect: bool = False
    hosts: int = 1
    request: int = 32
    reply: int = 32
    encrypt: bool = False
    silent: int = 0

    def options(self, plan: Plan) -> list[str]:
        """Return the load generator's options."""
        options = ["-n", self.hosts, "-c", self.clients, "-m", "c" if self.connect else "p"]
        options += ["-s", self.request, "-r", self.reply, "-z", self.silent, "-Z", SILENT_REPLY]
        options += [
            "-w",
            plan.warm_up_ms,
            "-d",
            plan.measured_ms,
            *(["-e"] if self.encrypt else []),
        ]
        return [str(option) for option in options]

    def for_relay(self) -> Load:
        """Return the load that makes the relay pass on as many bytes."""
        if not self.encrypt:
            return self
        return Load(
            self.clients,
            self.connect,
            self.hosts,
            request=_frame_size(self.request),
            reply=_frame_size(self.reply),
        )


def _frame_size(line: int) -> int:
    """Return the bytes of ``enc:<length>:<hex>`` and a newline, for a line of so many bytes."""
    length = line - 1
    return len(f"enc:{length}:") + 16 * (length // 8 + 1) + 1


@dataclass(frozen=True)
class Throughput:
    """A measurement of requests per second and of CPU per request."""

    name: str
    title: str
    load: Load
    delay_us: int = 0
    limits: Limits | None = None
    quick: bool = False


def throughputs() -> list[Throughput]:
    """Return the rows of the first table, those with the same processes beside each other."""
    found = []
    for mode, words, limits in (
        ("persistent", "persistent", Limits(0.62, 0.72, more_is_better=True)),
        ("connect", "per request", Limits(0.62, 0.70, more_is_better=True)),
    ):
        connect = mode == "connect"
        for size in (32, 4096):
            for clients in (1, 10, 50, 500):
                chief = size == 32 and clients == 50
                found.append(
                    Throughput(
                        f"{mode}-{size}b-{clients}",
                        f"{words}, {size:,} B, {clients} client{'s' * (clients > 1)}",
                        Load(clients, connect, reply=size),
                        limits=limits if chief else None,
                        quick=chief,
                    )
                )
        found.append(
            Throughput(
                f"{mode}-encrypted-50",
                f"{words}, 32 B encrypted, 50 clients",
                Load(50, connect, encrypt=True),
                limits=Limits(0.45, None, more_is_better=True),
            )
        )
    for mode, words in (("persistent", "persistent"), ("connect", "per request")):
        found.append(
            Throughput(
                f"{mode}-{MANY_HOSTS}-hosts",
                f"{MANY_HOSTS} hosts, {words}, 32 B, {MANY_HOSTS} clients",
                Load(MANY_HOSTS, mode == "connect", hosts=MANY_HOSTS),
                limits=Limits(0.50, None, more_is_better=True),
            )
        )
    found.append(
        Throughput(
            "slow-lond",
            f"{SLOW_US / 1000:.0f} ms lond, persistent, 32 B, 50 clients",
            Load(50),
            delay_us=SLOW_US,
            quick=True,
        )
    )
    return found


class Bench:
    """
    Takes measurements.

    :param commands: what runs lonc, by ``lonc`` and, where it is measured against another,
        ``before``.
    :ivar problems: a line for each wrong answer, error or failed start.
    """

    def __init__(
        self, workshop: Workshop, plan: Plan, commands: Mapping[str, Sequence[str]]
    ) -> None:
        self.problems: list[str] = []
        self._workshop = workshop
        self._plan = plan
        self._starts: dict[str, Callable[[int, Child, int], Server]] = {
            name: partial(workshop.lonc, command) for name, command in commands.items()
        } | {"relay": workshop.relay}

    def throughput(self, rows: list[Throughput], report: Callable[[Rates], None]) -> None:
        """Measure rows that have the number of hosts and lond's delay in common."""
        hosts, delay_us = rows[0].load.hosts, rows[0].delay_us
        _check_files(hosts)
        servers = {
            name: start(hosts, *self._workshop.lond(hosts, delay_us))
            for name, start in self._starts.items()
        }
        for row in rows:
            rates = Rates(row.name, row.title, row.limits)
            for _ in range(self._plan.rounds):
                for name, server in servers.items():
                    load = row.load.for_relay() if name == "relay" else row.load
                    getattr(rates, name).append(self._sample(row.name, server, load))
            report(rates)
        for server in servers.values():
            self._stop(server)

    def footprint(self) -> list[Figure]:
        """Measure start-up and memory with many hosts, all of whose connections are open."""
        _check_files(MANY_HOSTS)
        start = Figure(
            "start", f"{MANY_HOSTS} hosts: exec to all sockets listening, s", 3, Limits(0.5, None)
        )
        sizes = {
            "rss": Figure(
                "rss",
                f"{MANY_HOSTS} hosts x {CONNECTIONS} connections: RSS, MB",
                1,
                Limits(58.0, None),
            ),
            "pss": Figure("pss", "  of it PSS, MB", 1),
            "uss": Figure("uss", "  of it USS, MB", 1, Limits(47.0, None)),
        }
        for _ in range(self._plan.rounds):
            for name, begin in self._starts.items():
                # lond takes its time, so that the ten requests to a host are open at once.
                lond, port = self._workshop.lond(MANY_HOSTS, delay_us=20_000)
                listeners = lond.open_files()
                server = begin(MANY_HOSTS, lond, port)
                with self._workshop.cores.pinned(self._workshop.cores.load):
                    _open_all_connections(server, lond, listeners)
                memory = server.child.memory()
                getattr(start, name).append(server.start_seconds)
                for size, figure in sizes.items():
                    getattr(figure, name).append(getattr(memory, size))
                self._stop(server)
        return [start, *sizes.values()]

    def command_help(self) -> list[Figure]:
        """Measure how long the command takes to say what it can do: what its imports cost."""
        figure = Figure("help", "lonc --help, s", 3, Limits(0.15, None))
        for _ in range(self._plan.rounds):
            figure.lonc.append(self._workshop.run_time(default_command(), "--help"))
        return [figure]

    def silent_readers(self, name: str, reply: int, plan: Plan) -> list[Figure]:
        """Measure memory, and what the others get, while some clients never read their answers."""
        server = self._starts["lonc"](1, *self._workshop.lond(1))
        load = Load(CLIENTS_IN_ALL, reply=reply, silent=SILENT_CLIENTS)
        sample = self._sample(name, server, load, plan)
        peak = server.child.memory().peak
        self._stop(server)
        readers = CLIENTS_IN_ALL - SILENT_CLIENTS
        answers = "1 MB" if reply == SILENT_REPLY else f"{reply} B"
        return [
            Figure(
                f"{name}-peak",
                f"{SILENT_CLIENTS} clients never read 1 MB, {readers:,} read {answers}: peak, MB",
                1,
                Limits(150.0, None),
                [peak],
            ),
            Figure(f"{name}-rps", "  requests per second of those who read", 0, None, [sample.rps]),
            Figure(f"{name}-p99", "  their p99, ms", 1, None, [sample.p99_us / 1000]),
            Figure(f"{name}-served", f"  clients served, of {readers:,}", 0, None, [sample.served]),
            Figure(
                f"{name}-closed",
                f"  silent clients given up, of {SILENT_CLIENTS}",
                0,
                None,
                [sample.silent_closed],
            ),
        ]

    def _sample(self, name: str, server: Server, load: Load, plan: Plan | None = None) -> Sample:
        figures, trouble = self._workshop.load(server, load.options(plan or self._plan))
        known = {each.name for each in fields(Sample)}
        if set(figures) != known:
            raise BenchmarkError(f"load said {sorted(figures)}, not {sorted(known)}")
        if trouble:
            counts = ", ".join(
                f"{figures[what]} {what}"
                for what in ("wrong", "con_lost", "broken", "refused", "unanswered")
                if figures[what]
            )
            self.problems.append(f"{name}: {server.child.name}: {trouble} ({counts})")
        return Sample(**figures)

    def _stop(self, server: Server) -> None:
        self._workshop.stop(server.child, server.lond)


def slow_figure(rates: Rates) -> Figure:
    """Return how much of what ten connections to a slow lond allow was reached."""
    of_limit = {
        name: [100 * sample.rps / SLOW_LIMIT for sample in getattr(rates, name)]
        for name in ("lonc", "before", "relay")
    }
    return Figure(
        "slow-lond-share",
        f"lond takes {SLOW_US / 1000:.0f} ms: % of {SLOW_LIMIT:,} req/s",
        1,
        # What the machine takes to wake a process is missing from both.
        Limits(median(of_limit["relay"]) - 3.0, None, more_is_better=True),
        **of_limit,
    )


def _check_files(hosts: int) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hosts == MANY_HOSTS and limit < FILES_NEEDED:
        raise BenchmarkError(
            f"{MANY_HOSTS} hosts need {FILES_NEEDED:,} open files; the hard limit is {limit:,}"
        )


def _open_all_connections(server: Server, lond: Child, listeners: int) -> None:
    """
    Ask every host so many things at once that all its connections are made.

    :param listeners: open files of lond before the first connection.
    :raises BenchmarkError: an answer is wrong, or lond does not see all connections.
    """
    wanted = MANY_HOSTS * CONNECTIONS
    for _ in range(5):
        for first in range(0, MANY_HOSTS, 50):
            _ask_at_once(server.sockets, range(first, first + 50))
        opened = lond.open_files() - listeners
        if opened >= wanted:
            return
    raise BenchmarkError(f"{server.child.name} opened {opened:,} connections, not {wanted:,}")


def _ask_at_once(sockets: str, hosts: range) -> None:
    asked: list[tuple[socket.socket, bytes]] = []
    try:
        for host in hosts:
            for number in range(CONNECTIONS):
                client = socket.socket(socket.AF_UNIX)
                client.settimeout(20.0)
                asked.append((client, f"r{host}.32.{number}.".encode().ljust(31, b"q") + b"\n"))
                client.connect(os.path.join(sockets, f"h{host}"))
        for client, request in asked:
            client.sendall(request)
        for client, request in asked:
            answer = client.recv(len(request), socket.MSG_WAITALL)
            if answer != request:
                raise BenchmarkError(f"{request!r} was answered {answer!r}")
    except OSError as error:
        raise BenchmarkError(f"{sockets}: {error}") from None
    finally:
        for client, _ in asked:
            client.close()
