"""What a sabotage is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sabotage:
    """``old`` stands in the file exactly once; with ``new`` in its place, something that must hold does not."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()
    """What pytest runs for it alone: for code that neither the simulation nor the quick tests know of."""
