"""Output: tables for people, progress while a run works, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

STYLES = {
    "completed": "green",
    "held": "green",
    "succeeded": "green",
    "failed": "red",
    "ERROR": "red",
    "cancelled": "yellow",
    "skipped": "yellow",
    "omitted": "yellow",
    "unchecked": "yellow",
    "cancelling": "yellow",
    "stopping": "yellow",
    "suspended": "cyan",
    "retrying": "yellow",
    "WARNING": "yellow",
    "running": "cyan",
}
PIPED_WIDTH = 160
"""Width if the output is not a terminal: rich would assume 80 columns and fold most tables."""


def console() -> Console:
    """Return a console on the current standard output, which tests replace."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False, soft_wrap=False)


def as_json(data: Any) -> None:
    """Print data as JSON. Decimals become text: a JSON number would be read as a float."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")


def number(value: Decimal | None) -> str:
    """Return a number without an exponent and without trailing zeros."""
    if value is None:
        return ""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Iterable[str] = ()) -> None:
    """Print a table; the columns ``numbers`` are aligned right. Known states are coloured."""
    shown = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    right = set(numbers)
    for name in columns:
        # Folded, never cut: run ids and errors must be complete to be copied.
        shown.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        cells = ["" if cell is None else str(cell) for cell in row]
        shown.add_row(*(f"[{STYLES[cell]}]{cell}[/]" if cell in STYLES else _plain(cell) for cell in cells))
    console().print(shown)


def run_table(run: dict[str, Any]) -> None:
    """Print a run and its steps: status, attempts, rows, seconds; then errors and warnings in full."""
    dates = run["start_date"] if run["start_date"] == run["end_date"] else f"{run['start_date']}..{run['end_date']}"
    rows = [
        (s["step_id"], s["ps_type"], s["status"], f"{s['attempt']}/{s['max_attempts']}", s["rows"], s["seconds"])
        for s in run["steps"]
    ]
    attempts = sum(s["attempt"] for s in run["steps"])
    rows.append(("run", run["run_id"], run["status"], attempts, run["rows"], run["seconds"]))
    columns = ("step", "processor", "status", "attempts", "rows", "seconds")
    table(f"{run['org_slug']} {run['pipeline']}  {dates}", columns, rows, ("attempts", "rows", "seconds"))
    out = console()
    if run["error"]:
        out.print(f"[red]error[/] {_plain(run['error'])}")
    elif not run["ended_at"]:
        if (queue := run["queue"]) and queue["place"]:
            out.print(f"Place {queue['place']} of {queue['of']} in the queue of {run['org_slug']}.")
        out.print(f"{run['reason']}, since {run['since']}, until {run['until']} at most")
    for step in run["steps"]:
        if step["status"] in ("waiting", "queued", "retrying", "suspended") and not run["ended_at"]:
            out.print(f"{step['step_id']}: {_plain(step['reason'])}, until {step['until'] or 'they have'}")
        for warning in step["warnings"]:
            out.print(f"[yellow]warning[/] {step['step_id']}: {_plain(warning)}")


def log_line(line: dict[str, Any]) -> str:
    """Return one line of a log as text."""
    step = f"{line['step_id']}#{line['attempt']}" if line["step_id"] else "run"
    return f"{line['at']} {line['severity']:<8} {step:<20} {line['message']}"


class RunProgress:
    """Shows a run at work: a line for each change of a step, and a bar below them on a terminal."""

    def __init__(self, title: str) -> None:
        self._seen: dict[str, tuple[str, int]] = {}
        self._out = console()
        self._bar: Progress | None = None
        if self._out.is_terminal:
            parts = TextColumn(title), BarColumn(), TextColumn("{task.completed:.0f}/{task.total} steps")
            self._bar = Progress(*parts, TimeElapsedColumn(), console=self._out, transient=True)
            self._task = self._bar.add_task(title, total=1)
            self._bar.start()

    def see(self, run: dict[str, Any]) -> None:
        """Print the steps that changed since the last call."""
        for step in run["steps"]:
            state = step["status"], step["attempt"]
            # Not while it waits: a wide pipeline would print all its steps at once, before anything has happened.
            if self._seen.get(step["step_id"]) != state and step["status"] != "waiting":
                self._seen[step["step_id"]] = state
                style = STYLES.get(step["status"], "white")
                attempt = f" (attempt {step['attempt']})" if step["attempt"] > 1 else ""
                line = f"  {step['step_id']:<12} [{style}]{step['status']:<10}[/]{attempt} {_plain(step['reason'])}"
                self._out.print(line)
        if self._bar is not None:
            done = sum(1 for s in run["steps"] if s["ended_at"])
            self._bar.update(self._task, total=len(run["steps"]) or 1, completed=done)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()


def _plain(text: Any) -> str:
    """Escape brackets, which rich would read as markup: messages and names come from elsewhere."""
    return str(text).replace("[", "\\[")
