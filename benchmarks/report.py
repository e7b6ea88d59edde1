"""What was measured, as tables for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from statistics import median

from benchmarks.measures import Figure, Limits, Plan, Rates, Sample, per_round
from benchmarks.processes import Cores

_RATES = "{:<40} {:<7} {:>25} {:>7} {:>7} {:>19} {:>6} {:>16}  {}"
_FIGURES = "{:<63} {:<7} {:>20}  {}"

#: Of the CPU time of another commit beside lonc's: no protection may make a request dearer.
AGAINST = Limits(1.0, None, more_is_better=True)

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
FIGURES_HEAD = "\n" + _FIGURES.format("", "", "(min-max)", "must, aim") + "\n"


def machine_line(cores: Cores, plan: Plan) -> str:
    """Return in two lines what was measured on, and how."""
    return (
        f"{_cpu_model()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, Twisted {version('twisted')}\n"
        f"{cores}; {plan.rounds} rounds of {plan.measured_ms / 1000:g} s, in turn; medians\n"
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


def rates_lines(rates: Rates, against: str) -> str:
    """
    Return the lines of a row of the first table.

    :param against: the name of the commit that lonc is measured against, if it is.
    """
    ratios, before = rates.ratios(), per_round(rates.relay, rates.before) if rates.before else []
    marks = _marks(rates.limits, median(ratios), 2) if ratios else ""
    lines = [_rates_line(rates.title, "lonc", rates.lonc, _range(ratios, 2), marks)]
    if rates.before:
        beside = per_round(rates.before, rates.lonc)
        marks = f"CPU {against}/lonc {_range(beside, 2)}: {_marks(AGAINST, median(beside), 2)}"
        lines.append(_rates_line("", against, rates.before, _range(before, 2), marks))
    return "\n".join([*lines, _rates_line("", "relay", rates.relay, "", "")]) + "\n"


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
    waited = [
        100 * sample.relay_waited for row in rows for sample in row.lonc + row.before + row.relay
    ]
    if not waited:
        return ""
    return (
        f"lonc and the relay waited for their core {median(waited):.0f} % of the time (median of "
        f"{len(waited)} runs, {max(waited):.0f} % at most); 0 is a quiet machine\n"
    )


def figure_lines(figure: Figure, against: str) -> str:
    """Return the lines of a row of the second table; see `rates_lines`."""
    marks = _marks(figure.limits, median(figure.lonc), figure.digits)
    found = [(figure.title, "lonc", figure.lonc, marks)]
    found += [
        ("", name, values, "")
        for name, values in ((against, figure.before), ("relay", figure.relay))
        if values
    ]
    return "".join(
        _FIGURES.format(title, name, _range(values, figure.digits), marks).rstrip() + "\n"
        for title, name, values, marks in found
    )


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
