"""How a step's rows differ from their table's contract, for the run's record and its diff file.

Pure. Only a few short samples of the values are kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.writes.bad_rows import NAME_CHARS, shown

MAX_SAMPLES = 3
MAX_COLUMNS = 50
"""Most unknown columns listed by name: a source whose column names are data must not fill the run's record."""


@dataclass(slots=True)
class _Retyped:
    expected: str
    found: dict[str, int] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Drift:
    """Collects the drift of one table. ``as_json`` is empty if rows and contract agree."""

    table: str
    _added: dict[str, dict[str, Any]] = field(default_factory=dict)
    _missing: set[str] = field(default_factory=set)
    _retyped: dict[str, _Retyped] = field(default_factory=dict)

    def add(self, name: str, kind: str, policy: str, values: Iterable[Any]) -> None:
        """Record a column that the contract does not have, the policy applied to it, and samples of its values."""
        if name not in self._added and len(self._added) >= MAX_COLUMNS:
            return
        entry = self._added.setdefault(name, {"name": name[:NAME_CHARS], "type": kind, "policy": policy, "samples": []})
        entry["type"] = entry["type"] or kind
        _sample(entry["samples"], values)

    def retype(self, name: str, expected: str, found: str, values: Iterable[Any], count: int) -> None:
        """Record ``count`` values of another type than the contract's."""
        entry = self._retyped.setdefault(name, _Retyped(expected))
        entry.found[found] = entry.found.get(found, 0) + count
        _sample(entry.samples, values)

    def miss(self, names: Iterable[str]) -> None:
        """Record columns of the contract that no row had."""
        self._missing.update(names)

    def as_json(self) -> Mapping[str, Any]:
        """Return ``table``, ``added``, ``missing`` and ``retyped``; an empty mapping if there is no drift."""
        if not (self._added or self._missing or self._retyped):
            return {}
        retyped = [
            {"name": name, "expected": entry.expected, "found": entry.found, "samples": entry.samples}
            for name, entry in sorted(self._retyped.items())
        ]
        added = [self._added[name] for name in sorted(self._added)]
        return {"table": self.table, "added": added, "missing": sorted(self._missing), "retyped": retyped}


def in_words(drift: Mapping[str, Any]) -> str:
    """Return the result of ``as_json`` as part of a sentence: which columns are new, missing or of another type."""
    parts = {
        "new": [f"{c['name']} ({c['policy']})" for c in drift["added"]],
        "missing": drift["missing"],
        "of other types": [f"{c['name']} ({' or '.join(c['found'])}, not {c['expected']})" for c in drift["retyped"]],
    }
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


def _sample(samples: list[str], values: Iterable[Any]) -> None:
    for value in values:
        if len(samples) >= MAX_SAMPLES:
            return
        text = shown(value)
        if value is not None and text not in samples:
            samples.append(text)
