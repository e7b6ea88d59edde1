"""
Measure lonc against the least a relay can do: ``make bench``, or ``python -m benchmarks.run``.

``docs/performance.rst`` says how to read what it prints. The exit status is 1 when an answer was
wrong, a request failed or something did not start; no speed makes it anything but 0.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from itertools import groupby

from benchmarks import report
from benchmarks.measures import (
    SILENT_REPLY,
    Bench,
    Figure,
    Plan,
    Rates,
    Throughput,
    slow_figure,
    throughputs,
)
from benchmarks.processes import (
    BenchmarkError,
    Cores,
    Workshop,
    build_programs,
    default_lonc_command,
    install,
)

#: Measurements with nothing to take turns with, by name: what is read by those who read.
SILENT_READERS = {"silent-readers": 32, "silent-readers-1mb": SILENT_REPLY}
QUICK = {row.name for row in throughputs() if row.quick} | {
    "footprint",
    "help",
    "silent-readers",
}
NAMES = [*(row.name for row in throughputs()), "footprint", "help", *SILENT_READERS]


class Run:
    """One run of the benchmark: takes the measurements chosen, prints, remembers."""

    def __init__(
        self, bench: Bench, workshop: Workshop, plan: Plan, chosen: set[str], against: str
    ) -> None:
        self.rates: list[Rates] = []
        self.figures: list[Figure] = []
        self._bench = bench
        self._workshop = workshop
        self._plan = plan
        self._chosen = chosen
        self._against = against

    def everything(self) -> None:
        """Take them all; where one cannot go on, the next still does."""
        rows = [row for row in throughputs() if row.name in self._chosen]
        if rows:
            print(report.RATES_HEAD, end="", flush=True)
        for _, group in groupby(rows, lambda row: (row.load.hosts, row.delay_us)):
            self._throughput(list(group))
        if "footprint" in self._chosen:
            self._attempt("footprint", lambda: self.figures.extend(self._bench.footprint()))
        if "help" in self._chosen:
            self._attempt("help", lambda: self.figures.extend(self._bench.command_help()))
        for name in SILENT_READERS:
            if name in self._chosen:
                self._silent_readers(name)
        if self.figures:
            print(report.FIGURES_HEAD, end="")
            for figure in self.figures:
                print(report.figure_lines(figure, self._against), end="", flush=True)

    def _throughput(self, rows: list[Throughput]) -> None:
        self._attempt(rows[0].name, lambda: self._bench.throughput(rows, self._add_rates))

    def _add_rates(self, rates: Rates) -> None:
        self.rates.append(rates)
        if rates.name == "slow-lond":
            self.figures.append(slow_figure(rates))
        print(report.rates_lines(rates, self._against), end="", flush=True)

    def _silent_readers(self, name: str) -> None:
        plan = Plan(1, 3 * self._plan.measured_ms, warm_up_ms=1000)
        reply = SILENT_READERS[name]
        self._attempt(
            name, lambda: self.figures.extend(self._bench.silent_readers(name, reply, plan))
        )

    def _attempt(self, name: str, measure: Callable[[], None]) -> None:
        try:
            measure()
        except BenchmarkError as error:
            self._bench.problems.append(f"{name}: {error}")
        finally:
            self._workshop.kill_all()


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute: the chief figures")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="this one, * and ? allowed; again for more"
    )
    parser.add_argument("--list", action="store_true", help="print the names and end")
    parser.add_argument("--json", metavar="FILE", help="write every round's figures there too")
    parser.add_argument("--rounds", type=int, metavar="N", help="of each (5; 3 with --quick)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a measured run (1)")
    parser.add_argument(
        "--lonc",
        metavar="COMMAND",
        help="what to run in lonc's place, with --config FILE behind it (twistd -n lonc)",
    )
    parser.add_argument(
        "--against", metavar="COMMIT", help="install this commit too, and measure it in turn"
    )
    parser.add_argument(
        "--shared", action="store_true", help="take no real-time priority on the cores"
    )
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = 3 if options.quick else 5
    if options.rounds < 1 or not 0.1 <= options.seconds <= 600:
        parser.error("--rounds begins at 1, --seconds goes from 0.1 to 600")
    options.chosen = {
        name
        for name in NAMES
        if any(fnmatchcase(name, pattern) for pattern in options.only or ["*"])
        and (not options.quick or options.only or name in QUICK)
    }
    if not options.chosen:
        parser.error(f"--only {' '.join(options.only)}: none of {', '.join(NAMES)}")
    return options


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return the exit status."""
    options = parse(arguments)
    if options.list:
        print(*NAMES, sep="\n")
        return 0
    began = time.monotonic()
    plan = Plan(options.rounds, round(1000 * options.seconds))
    cores = Cores.pick(alone=not options.shared)
    commands = {"lonc": shlex.split(options.lonc) if options.lonc else default_lonc_command()}
    against = ""
    try:
        if options.against:
            against, commands["before"] = install(options.against)
        build_programs()
    except BenchmarkError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    machine = report.machine_line(cores, plan)
    print(machine)
    with tempfile.TemporaryDirectory(prefix="lonc-bench-") as folder:
        workshop = Workshop(folder, cores)
        bench = Bench(workshop, plan, commands)
        run = Run(bench, workshop, plan, options.chosen, against)
        try:
            run.everything()
        except BenchmarkError as error:
            bench.problems.append(str(error))
    print("\n" + report.noise_line(run.rates), end="")
    print(f"{len(run.rates) + len(run.figures)} rows in {time.monotonic() - began:.0f} s")
    for problem in bench.problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(
                report.as_json(machine, run.rates, run.figures, bench.problems), file, indent=1
            )
    return 1 if bench.problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
