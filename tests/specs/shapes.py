"""What remains of an answer when its values are taken away: names and types. Recordings hold shapes, not data."""

import json
from typing import Any
from xml.etree import ElementTree

from infra.local.sandbox.exchange import Answer


def shape(answer: Answer) -> list[str]:
    """Return the paths of an answer's body, each with its type, in order; lists count as one element."""
    content, kind = answer.content(), answer.headers.get("content-type", "application/json")
    if "xml" in kind:
        return sorted(set(_xml(ElementTree.fromstring(content.removeprefix(b"\xef\xbb\xbf")), "")))
    if "json" in kind:
        return sorted(set(_json(json.loads(content or b"null"), "")))
    return ["bytes"]


def _json(value: Any, path: str) -> list[str]:
    if isinstance(value, dict):
        return [f"{path}: object"] + [found for k, v in value.items() for found in _json(v, f"{path}.{k}")]
    if isinstance(value, list):
        return [f"{path}: list"] + [found for inner in value for found in _json(inner, f"{path}[]")]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [f"{path}: {'number' if is_number else type(value).__name__}"]


def _xml(element: ElementTree.Element, path: str) -> list[str]:
    here = f"{path}/{element.tag}" + "".join(f"@{name}" for name in sorted(element.attrib))
    return [here] + [found for inner in element for found in _xml(inner, here)]
