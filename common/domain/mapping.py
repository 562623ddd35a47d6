"""Fills an item of a map into its step's ``config:``."""

import json
import re
from collections.abc import Mapping
from typing import Any

ITEM = re.compile(r"\$?\{item\}")


def item_config(config: Mapping[str, Any], item: Any) -> dict[str, Any]:
    """Return a copy of a config with ``{item}`` and ``${item}`` replaced in all strings of its nested dicts and lists.

    A string that is exactly the template becomes the item itself, with its JSON type; in a longer string the item's
    text is inserted (as JSON, unless it is a string). Inserted text is not scanned for templates.
    """
    return {key: _filled(value, item) for key, value in config.items()}


def _filled(value: Any, item: Any) -> Any:
    match value:
        case str() if ITEM.fullmatch(value):
            return item
        case str():
            return ITEM.sub(lambda _: item if isinstance(item, str) else json.dumps(item, ensure_ascii=False), value)
        case Mapping():
            return item_config(value, item)
        case list() | tuple():
            return [_filled(part, item) for part in value]
    return value
