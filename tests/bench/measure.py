"""What the benchmark reports, and how each figure is derived from what was timed."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

COLUMNS = (
    ("name", "", "{}"),
    ("runs", "runs", "{}"),
    ("runs_per_s", "runs/s", "{:.1f}"),
    ("p50_ms", "p50 ms", "{:.1f}"),
    ("p99_ms", "p99 ms", "{:.1f}"),
    ("cpu_s_per_1000_steps", "CPU s/1000 steps", "{:.2f}"),
)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest measured value that `percent` of all do not exceed. Never interpolates."""
    if not ordered:
        raise ValueError("no percentile of nothing measured")
    if not 0 < percent <= 100:
        raise ValueError(f"percent must be over 0 and at most 100, not {percent}")
    return ordered[math.ceil(percent * len(ordered) / 100) - 1]


@dataclass(frozen=True)
class Result:
    """One measured stretch of work.

    `latencies_ms` holds one figure per run, submission to completion, kept sorted; `cpu_s` is what every process
    that the work needed spent, databases included.
    """

    name: str
    runs: int
    steps_per_run: int
    seconds: float
    latencies_ms: tuple[float, ...]
    cpu_s: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "latencies_ms", tuple(sorted(self.latencies_ms)))

    @property
    def runs_per_s(self) -> float:
        return self.runs / self.seconds

    @property
    def p50_ms(self) -> float:
        return percentile(self.latencies_ms, 50)

    @property
    def p99_ms(self) -> float:
        return percentile(self.latencies_ms, 99)

    @property
    def cpu_s_per_1000_steps(self) -> float:
        return self.cpu_s * 1000 / (self.runs * self.steps_per_run)

    def as_dict(self) -> dict[str, Any]:
        """The figures without the single latencies."""
        return {
            "name": self.name,
            "runs": self.runs,
            "steps_per_run": self.steps_per_run,
            "seconds": self.seconds,
            "runs_per_s": self.runs_per_s,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "cpu_s": self.cpu_s,
            "cpu_s_per_1000_steps": self.cpu_s_per_1000_steps,
        }


def table(results: Iterable[Result]) -> str:
    """Plain text: names to the left, figures to the right."""
    rows = [[heading for _, heading, _ in COLUMNS]]
    for result in results:
        figures = result.as_dict()
        rows.append([form.format(figures[key]) for key, _, form in COLUMNS])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


def to_json(results: Iterable[Result]) -> str:
    return json.dumps([result.as_dict() for result in results], indent=2)
