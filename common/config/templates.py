"""``{name}`` and ``${name}`` in ``config:`` blocks, from a fixed list of names (FR-PIP-006). Never an evaluator.

Both spellings mean the same. A brace that does not enclose an identifier is text. Inserted values are not scanned
again, so a value can't inject another template.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from common.config.problems import Finding, Location
from common.platform.errors import nearest

NAMES: tuple[str, ...] = (
    "org_slug",
    "project_id",
    "org_dataset",
    "start_date",
    "end_date",
    "credential_id",
    "pipeline_id",
    "run_id",
)
"""FR-PIP-006, and ``end_date``: a run covers a range of days, so its last day is needed as often as its first."""

ITEM = "item"
"""Only in a step with ``map:``. It is replaced for each item when the run reaches the step."""

TEMPLATE = re.compile(r"\$?\{([^\W\d]\w*)\}")


def unresolved(value: Any, known: Collection[str]) -> Iterator[Finding]:
    """Yield each template that is not among the ``known`` names, and each key with a template, which is not allowed."""
    for location, text in strings(value):
        for name in TEMPLATE.findall(text):
            if name not in known:
                yield location, _message(name, known)
    for location in _keys_with_templates(value):
        yield location, "a key can't have a template, only a value can."


def substitute(value: Any, variables: Mapping[str, str]) -> Any:
    """Return a copy of nested dicts and lists with the templates in all strings replaced, each exactly once.

    Unknown templates stay as they are; ``unresolved`` reports them.
    """
    if isinstance(value, str):
        return TEMPLATE.sub(lambda match: variables.get(match[1], match[0]), value)
    if isinstance(value, dict):
        return {key: substitute(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, variables) for item in value]
    return value


def strings(value: Any, location: Location = ()) -> Iterator[tuple[Location, str]]:
    """Yield every string value inside nested dicts and lists, with its location."""
    if isinstance(value, str):
        yield location, value
    for key, item in _items(value):
        yield from strings(item, (*location, key))


def _keys_with_templates(value: Any, location: Location = ()) -> Iterator[Location]:
    for key, item in _items(value):
        if isinstance(key, str) and TEMPLATE.search(key):
            yield (*location, key)
        yield from _keys_with_templates(item, (*location, key))


def _items(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _message(name: str, known: Collection[str]) -> str:
    shown = name[:80]
    if name == ITEM:
        return "template {item} has a value only in a step with map. Add map, or write the value itself."
    if name in NAMES:
        return f"template {{{shown}}} has no value here."
    return f"no template variable is named {shown!r}.{nearest(name, known)} Known: {', '.join(NAMES)}."
