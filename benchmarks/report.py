"""What was measured, as tables for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from statistics import median

from benchmarks.measures import Figure, Limits, Plan, Rates, Sample
from benchmarks.processes import Cores

_RATES = "{:<40} {:<5} {:>25} {:>7} {:>7} {:>19} {:>6} {:>16}  {}"
_FIGURES = "{:<63} {:>20} {:>20}  {}"

RATES_HEAD = (
    _RATES.format(
        "clients' connections, reply, clients",
        "",
        "requests/s (min-max)",
        "p50 µs",
        "p99 µs",
        "CPU µs/request",
        "busy",
        "CPU relay/lonc",
        "must, aim",
    )
    + "\n"
)
FIGURES_HEAD = "\n" + _FIGURES.format("", "lonc (min-max)", "relay (min-max)", "must, aim") + "\n"


def machine_line(cores: Cores, plan: Plan) -> str:
    """Return in two lines what was measured on, and how."""
    return (
        f"{_cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, Twisted {version('twisted')}\n"
        f"{cores}; {plan.rounds} rounds of {plan.measured_ms / 1000:g} s, lonc and relay in turn; "
        "medians\n"
    )


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def rates_lines(rates: Rates) -> str:
    """Return the two lines of a row of the first table."""
    ratios = rates.ratios()
    ratio = _range(ratios, 2)
    marks = _marks(rates.limits, median(ratios), 2) if ratios else ""
    lonc = _rates_line(rates.title, "lonc", rates.lonc, ratio, marks)
    return f"{lonc}\n{_rates_line('', 'relay', rates.relay, '', '')}\n"


def _rates_line(title: str, who: str, samples: Sequence[Sample], ratio: str, marks: str) -> str:
    busy = (
        f"{100 * median(sample.relay_busy for sample in samples):.0f}/"
        f"{100 * median(sample.load_core_busy for sample in samples):.0f}"
    )
    return _RATES.format(
        title,
        who,
        _range([sample.rps for sample in samples], 0),
        f"{median(sample.p50_us for sample in samples):,.0f}",
        f"{median(sample.p99_us for sample in samples):,.0f}",
        _range([sample.relay_cpu_us for sample in samples], 1),
        busy,
        ratio,
        marks,
    ).rstrip()


def noise_line(rows: Sequence[Rates]) -> str:
    """Return how much of the relay's core others had, which is what makes figures differ."""
    waited = [100 * sample.relay_waited for row in rows for sample in row.lonc + row.relay]
    if not waited:
        return ""
    return (
        f"lonc and the relay waited for their core {median(waited):.0f} % of the time (median of "
        f"{len(waited)} runs, {max(waited):.0f} % at most); 0 is a quiet machine\n"
    )


def figure_line(figure: Figure) -> str:
    """Return the line of a row of the second table."""
    marks = _marks(figure.limits, median(figure.lonc), figure.digits)
    lonc, relay = (_range(values, figure.digits) for values in (figure.lonc, figure.relay))
    return _FIGURES.format(figure.title, lonc, relay, marks).rstrip() + "\n"


def _range(values: Sequence[float], digits: int) -> str:
    """Return the median, and from where to where the values go where there is more than one."""
    if not values:
        return "-"
    middle, least, most = (
        f"{value:,.{digits}f}" for value in (median(values), min(values), max(values))
    )
    return middle if len(values) == 1 else f"{middle} ({least}-{most})"


def _marks(limits: Limits | None, value: float, digits: int) -> str:
    if limits is None:
        return ""
    return ", ".join(
        f"{limit:.{digits}f} {'met' if limits.met(value, limit) else 'missed'}"
        for limit in (limits.must, limits.aim)
        if limit is not None
    )


def as_json(
    machine: str, rows: Sequence[Rates], figures: Sequence[Figure], problems: Sequence[str]
) -> dict[str, object]:
    """Return everything that was measured, round by round."""
    return {
        "machine": machine.splitlines(),
        "rates": {row.name: asdict(row) | {"ratio": row.ratios()} for row in rows},
        "figures": {figure.name: asdict(figure) for figure in figures},
        "problems": list(problems),
    }
