"""The processes of a measurement: lond behind, lonc or the C relay between, the load in front."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = os.path.join(HERE, "bin")

#: Host i is called h<i> and has the i-th address from this one. All hosts of a table share one
#: port, so each needs an address of its own; on Linux all of 127.0.0.0/8 is there without asking.
FIRST_ADDRESS = "127.0.1.1"
OWN_ID = "bench"

START_LIMIT = 60.0  #: seconds from exec to the last socket listening
STOP_LIMIT = 20.0  #: seconds from SIGTERM to the end; lonc gives what is in flight 5 s
POLL = 0.002  #: seconds between two looks at what has started


class BenchmarkError(Exception):
    """The measurement cannot go on. The message is one line for a person."""


@dataclass(frozen=True)
class Cores:
    """
    Where the processes run: the relay on one core, the load and its lond on another.

    :ivar alone: whether they run there before all else, by real-time priority.
    """

    relay: int
    load: int
    alone: bool

    @classmethod
    def pick(cls, *, alone: bool) -> Cores:
        """
        Take two cores that this process may use, and that are not one core's two threads.

        :param alone: whether to ask for real-time priority; the system may refuse it.
        """
        available = sorted(os.sched_getaffinity(0))
        first = available[0]
        others = [core for core in available if core not in _siblings(first)]
        return cls(first, others[0] if others else available[-1], alone and _may_run_alone())

    def __str__(self) -> str:
        where = f"relay on core {self.relay}, load and lond on core {self.load}"
        if self.relay == self.load:
            where = f"one core for everything ({self.relay}): only CPU per request can be compared"
        how = "before all others (real-time priority)" if self.alone else "among others"
        return f"{where}, {how}"

    @contextmanager
    def pinned(self, core: int) -> Iterator[None]:
        """Run what is started inside on one core, alone if it may: a child inherits both."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        if self.alone:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        try:
            yield
        finally:
            if self.alone:
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            os.sched_setaffinity(0, before)


def _may_run_alone() -> bool:
    """Return whether the system gives real-time priority, and takes it back."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    except OSError:
        return False
    return True


def _siblings(core: int) -> set[int]:
    """Return the cores that are threads of the same piece of hardware, ``core`` included."""
    path = f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list"
    try:
        with open(path) as file:
            parts = [part.split("-") for part in file.read().strip().split(",")]
    except OSError:
        return {core}
    return {core}.union(*(range(int(part[0]), int(part[-1]) + 1) for part in parts))


class Child:
    """
    A process of ours.

    :ivar name: what to call it in messages.
    :ivar pid: its process id.
    :ivar started: when it was executed, in seconds of the monotonic clock.
    """

    def __init__(
        self, name: str, command: Sequence[str], cores: Cores, core: int, folder: str
    ) -> None:
        self.name = name
        self._output = os.path.join(folder, f"{name}.out")
        with open(self._output, "wb") as output, cores.pinned(core):
            self.started = time.monotonic()
            try:
                # A session of its own: Ctrl-C reaches the runner alone, which ends the others.
                self._process = subprocess.Popen(
                    command, cwd=folder, stdout=output, stderr=output, start_new_session=True
                )
            except OSError as error:
                raise BenchmarkError(f"{name}: {command[0]}: {error.strerror}") from None
        self.pid = self._process.pid

    def check(self) -> None:
        """
        Make sure that it still runs.

        :raises BenchmarkError: it has ended; with the last line it wrote.
        """
        status = self._process.poll()
        if status is not None:
            raise BenchmarkError(f"{self.name} ended with status {status}: {self.last_line()}")

    def last_line(self) -> str:
        """Return the last line it wrote, for an error message."""
        with open(self._output, "rb") as output:
            lines = output.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")

    def wait_until(self, condition: Callable[[], bool], what: str) -> float:
        """
        Wait, and return the seconds that passed since it was started.

        :param what: what is waited for, for the message.
        :raises BenchmarkError: it ended, or too much time passed.
        """
        while not condition():
            self.check()
            if time.monotonic() > self.started + START_LIMIT:
                raise BenchmarkError(
                    f"{self.name}: {what} not within {START_LIMIT:.0f} s: {self.last_line()}"
                )
            time.sleep(POLL)
        return time.monotonic() - self.started

    def stop(self) -> None:
        """
        End it.

        :raises BenchmarkError: it had ended before, or did not end in time and was killed.
        """
        self.check()
        self._process.terminate()
        try:
            status = self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BenchmarkError(f"{self.name} did not end within {STOP_LIMIT:.0f} s") from None
        if status not in (0, -signal.SIGTERM):
            raise BenchmarkError(f"{self.name} ended with status {status}: {self.last_line()}")

    def kill(self) -> None:
        """End it without ceremony, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def memory(self) -> Memory:
        """Return what it takes now."""
        rollup = _fields(f"/proc/{self.pid}/smaps_rollup")
        return Memory(
            rss=rollup["Rss"],
            pss=rollup["Pss"],
            uss=rollup["Private_Clean"] + rollup["Private_Dirty"],
            peak=_fields(f"/proc/{self.pid}/status")["VmHWM"],
        )

    def open_files(self) -> int:
        """Return how many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@dataclass(frozen=True)
class Memory:
    """
    A process's memory in MB of a million bytes.

    :ivar rss: all pages in memory; those shared with others count in full.
    :ivar pss: shared pages count by the number of processes that share them.
    :ivar uss: what would be free if it ended.
    :ivar peak: the most that ``rss`` has been.
    """

    rss: float
    pss: float
    uss: float
    peak: float


def _fields(path: str) -> dict[str, float]:
    """Return the ``name: number kB`` lines of a file under /proc, in MB."""
    found = {}
    with open(path) as file:
        for line in file:
            name, _, rest = line.partition(":")
            words = rest.split()
            if words[1:] == ["kB"]:
                found[name] = int(words[0]) * 1024 / 1e6
    return found


@dataclass(frozen=True)
class Server:
    """
    What stands between the load and lond: lonc or the C relay, with a lond of its own.

    :ivar sockets: the folder of its UNIX sockets.
    :ivar start_seconds: from exec to all its sockets listening.
    """

    child: Child
    lond: Child
    sockets: str
    start_seconds: float


class Workshop:
    """
    Starts processes in a folder of its own, and knows which have to be ended.

    :ivar cores: where they run.
    """

    def __init__(self, folder: str, cores: Cores) -> None:
        self.cores = cores
        self._folder = folder
        self._children: list[Child] = []
        self._started = 0

    def lond(self, hosts: int, delay_us: int = 0) -> tuple[Child, int]:
        """Start a lond for so many hosts; return it and its port."""
        port = _free_port()
        command = [os.path.join(PROGRAMS, "lond"), "-a", FIRST_ADDRESS, "-i", OWN_ID]
        command += ["-p", str(port), "-n", str(hosts), "-d", str(delay_us)]
        lond = self._start("lond", command, self.cores.load, self._new_folder("lond"))
        lond.wait_until(lambda: lond.last_line() == "ready", "was ready")
        return lond, port

    def lonc(self, command: Sequence[str], hosts: int, lond: Child, port: int) -> Server:
        """Start a lonc, by its command, with a table of so many hosts."""
        folder = self._new_folder("lonc")
        config = _write_configuration(folder, hosts, port)
        child = self._start("lonc", [*command, "--config", config], self.cores.relay, folder)
        return self._when_listening(child, lond, os.path.join(folder, "sock"), hosts)

    def relay(self, hosts: int, lond: Child, port: int) -> Server:
        """Start the C relay, which connects to all hosts before it listens."""
        folder = self._new_folder("relay")
        sockets = os.path.join(folder, "sock")
        os.mkdir(sockets)
        command = [os.path.join(PROGRAMS, "relay"), "-u", sockets, "-a", FIRST_ADDRESS]
        command += ["-p", str(port), "-n", str(hosts)]
        child = self._start("relay", command, self.cores.relay, folder)
        return self._when_listening(child, lond, sockets, hosts)

    def load(self, server: Server, options: Sequence[str]) -> tuple[dict[str, Any], str]:
        """Run the load generator; return its figures, and in a line what went wrong or ""."""
        command = [os.path.join(PROGRAMS, "load"), "-u", server.sockets, *options]
        command += ["-R", str(server.child.pid), "-L", str(server.lond.pid)]
        with self.cores.pinned(self.cores.load):
            done = subprocess.run(command, capture_output=True, text=True)
        server.child.check()
        server.lond.check()
        if not done.stdout:
            raise BenchmarkError(done.stderr.strip() or f"load ended with {done.returncode}")
        figures: dict[str, Any] = json.loads(done.stdout)
        trouble = done.stderr.strip()
        if done.returncode != 0 and not trouble:
            trouble = "not one answer in the measured time"
        return figures, trouble

    def run_time(self, *command: str) -> float:
        """Return how many seconds a command takes."""
        with self.cores.pinned(self.cores.relay):
            began = time.monotonic()
            _output(*command)
            return time.monotonic() - began

    def stop(self, *children: Child) -> None:
        """End children in this order."""
        for child in children:
            self._children.remove(child)
            child.stop()

    def kill_all(self) -> None:
        """End what is left, after an error."""
        while self._children:
            self._children.pop().kill()

    def _new_folder(self, name: str) -> str:
        self._started += 1
        folder = os.path.join(self._folder, f"{self._started}-{name}")
        os.mkdir(folder)
        return folder

    def _start(self, name: str, command: Sequence[str], core: int, folder: str) -> Child:
        child = Child(name, command, self.cores, core, folder)
        self._children.append(child)
        return child

    def _when_listening(self, child: Child, lond: Child, sockets: str, hosts: int) -> Server:
        with self.cores.pinned(self.cores.load):
            seconds = child.wait_until(
                lambda: _count_listening(sockets) == hosts, f"{hosts} sockets listening"
            )
        return Server(child, lond, sockets, seconds)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((FIRST_ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port


def _count_listening(sockets: str) -> int:
    """Count the hosts' sockets in a folder that listen, without disturbing who listens."""
    listening = "00010000"  # the kernel's __SO_ACCEPTCON among a socket's flags
    begin = f"{sockets}/h"
    with open("/proc/net/unix") as file:
        return sum(
            fields[7].startswith(begin) and fields[7][len(begin) :].isdigit()
            for fields in map(str.split, file)
            if len(fields) == 8 and fields[3] == listening
        )


def _write_configuration(folder: str, hosts: int, port: int) -> str:
    """Write what lonc reads, with all settings at their defaults; return loncapa.conf's path."""
    tables, sockets, daemons, documents = (
        os.path.join(folder, name) for name in ("tab", "sock", "daemons", "html")
    )
    for path in (tables, sockets, daemons, documents):
        os.mkdir(path)
    os.mkdir(os.path.join(daemons, "logs"))
    os.mkdir(os.path.join(documents, "lon-status"))
    first = int.from_bytes(socket.inet_aton(FIRST_ADDRESS))
    with open(os.path.join(tables, "hosts.tab"), "w") as table:
        for i in range(hosts):
            address = socket.inet_ntoa((first + i).to_bytes(4))
            table.write(f"h{i}:bench:library:h{i}.bench.example:{address}\n")
    config = os.path.join(folder, "loncapa.conf")
    with open(config, "w") as file:
        for name, value in (
            ("lonHostID", OWN_ID),
            ("lonTabDir", tables),
            ("lonSockDir", sockets),
            ("lonDaemons", daemons),
            ("lonDocRoot", documents),
            ("londPort", port),
        ):
            file.write(f"PerlSetVar {name} {value}\n")
    return config


def default_lonc_command() -> list[str]:
    """Return the command of the lonc that is installed beside this Python."""
    return [os.path.join(os.path.dirname(sys.executable), "twistd"), "-n", "lonc"]


def default_command() -> str:
    """Return the command ``lonc`` that is installed beside this Python."""
    return os.path.join(os.path.dirname(sys.executable), "lonc")


def install(commit: str) -> tuple[str, list[str]]:
    """
    Install another commit, with what it depends on, into an environment of its own.

    It stays there for the next run.

    :param commit: as git knows it.
    :return: its short name, and the command of its lonc.
    :raises BenchmarkError: there is no such commit, or it cannot be installed.
    """
    name = _output("git", "-C", HERE, "rev-parse", "--short=7", f"{commit}^{{commit}}").strip()
    home = os.path.join(PROGRAMS, name)
    python = os.path.join(home, "venv", "bin", "python")
    if not os.path.exists(os.path.join(home, "installed")):
        shutil.rmtree(home, ignore_errors=True)
        os.makedirs(home)
        source = os.path.join(home, "source")
        _output("git", "-C", os.path.dirname(HERE), "archive", "-o", f"{source}.tar", name)
        shutil.unpack_archive(f"{source}.tar", source)
        venv.create(os.path.join(home, "venv"), with_pip=True)
        quiet = ("--quiet", "--disable-pip-version-check")
        _output(python, "-m", "pip", "install", *quiet, source)
        shutil.rmtree(source)
        with open(os.path.join(home, "installed"), "w"):
            pass
    return name, [os.path.join(os.path.dirname(python), "twistd"), "-n", "lonc"]


def _output(*command: str) -> str:
    """Return what a command prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise BenchmarkError(f"{command[0]}: {error.strerror}") from None
    if done.returncode != 0:
        last = [*done.stderr.strip().splitlines(), f"status {done.returncode}"][-2:][0]
        raise BenchmarkError(f"{' '.join(command)}: {last}")
    return done.stdout


def build_programs() -> None:
    """
    Build the C programs, and compile this lonc as pip does for one that it installs.

    :raises BenchmarkError: it did not work, with the compiler's first line.
    """
    try:
        done = subprocess.run(["make", "-s", "-C", HERE], capture_output=True, text=True)
    except OSError as error:
        raise BenchmarkError(f"make: {error.strerror}") from None
    if done.returncode != 0:
        raise BenchmarkError(f"cannot build: {done.stderr.strip().splitlines()[0]}")
    compileall.compile_dir(os.path.join(os.path.dirname(HERE), "lonc"), quiet=2)
