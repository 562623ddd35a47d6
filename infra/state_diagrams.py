"""Draws docs/states.md from the tables of the state machine: ``python -m infra.state_diagrams`` (``make docs``)."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from common.domain.messages import Event
from common.domain.state import RUN_ACCEPTS, RUN_MOVES, STEP_ACCEPTS, STEP_MOVES
from common.platform.paths import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "states.md"

TEXT = """# States

Drawn from the tables at the top of [state.py](../common/domain/state.py) by `make docs`; a test fails when this page is
stale. An event that a status does not accept changes nothing: messages are repeated, delayed and reordered.

## A run

```mermaid
{run_moves}
```

| event | accepted while the run is |
| --- | --- |
{run_accepts}

## A step

```mermaid
{step_moves}
```

| event | accepted while the step is |
| --- | --- |
{step_accepts}
"""


def page() -> str:
    """Return the text of docs/states.md."""
    return TEXT.format(
        run_moves=_diagram(RUN_MOVES),
        run_accepts=_table(RUN_ACCEPTS),
        step_moves=_diagram(STEP_MOVES),
        step_accepts=_table(STEP_ACCEPTS),
    )


def _diagram[S: StrEnum](moves: Mapping[S, Iterable[S]]) -> str:
    order = list(moves)
    lines = ["stateDiagram-v2", f"  [*] --> {order[0]}"]
    for before, after in moves.items():
        lines += [f"  {before} --> {status}" for status in sorted(after, key=order.index)]
        if not after:
            lines.append(f"  {before} --> [*]")
    return "\n".join(lines)


def _table[S: StrEnum](accepts: Mapping[type[Event], Iterable[S]]) -> str:
    rows = []
    for event, statuses in accepts.items():
        order = list(type(next(iter(statuses))))
        rows.append(f"| `{event.__name__}` | {', '.join(sorted(statuses, key=order.index))} |")
    return "\n".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
