"""Validation of a step's ``config:`` by its processor's params model."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from common.config.problems import Finding, Location, findings_of
from common.config.templates import strings
from common.domain.mapping import ITEM, item_config
from common.platform.errors import ConfigError

ITEM_STAND_IN = "2026-01-15"
"""Replaces ``{item}`` while a ``config:`` is checked before its items are known. Most items are days."""

_NOT_JSON = "holds a value that JSON can't carry unchanged. Put decimals in quotes."


def params_findings(
    params_type: type[BaseModel], config: dict[str, Any], place: Location, *, configs: Path
) -> Iterator[Finding]:
    """Yield the problems of a resolved ``config:``; ``place`` is its location in the file."""
    try:
        dump_params(params_type, config, configs)
    except ValidationError as error:
        yield from findings_of(error, params_type, place)
    except ConfigError as error:
        yield place, str(error)


def mapped_findings(
    params_type: type[BaseModel], config: dict[str, Any], place: Location, *, configs: Path, dates: bool
) -> Iterator[Finding]:
    """Yield the problems of the ``config:`` of a step with ``map:``, resolved except for ``{item}``.

    It is checked with a day as the item. If the items are not days, problems of values with ``{item}`` are ignored,
    because the items are known only in a run. The run stores such a config as it is, without its params' defaults, so
    it must be JSON data already; each item's attempt validates it with its item.
    """
    try:
        json.dumps(config)
    except TypeError:  # a Decimal: every other value of our YAML subset is JSON
        yield place, _NOT_JSON
    unsure = () if dates else tuple(inner for inner, text in strings(config, place) if ITEM.search(text))
    for location, message in params_findings(params_type, item_config(config, ITEM_STAND_IN), place, configs=configs):
        if not any(location[: len(inner)] == inner for inner in unsure):
            yield location, message


def read_params[P: BaseModel](params_type: type[P], config: Mapping[str, Any], configs: Path) -> P:
    """Validate a resolved ``config:``. A validator that reads a file gets its folder as ``info.context["configs"]``.

    Raises ValidationError.
    """
    return params_type.model_validate(dict(config), context={"configs": configs})


def dump_params(params_type: type[BaseModel], config: dict[str, Any], configs: Path) -> dict[str, Any]:
    """Validate a resolved ``config:`` and return it as plain JSON data, defaults included.

    The run keeps this and the step validates it again, so it must mean the same then. Raises ValidationError, or
    ConfigError where it would not, or where the params' own checks break.
    """
    try:
        params = read_params(params_type, config, configs)
        plain = params.model_dump(mode="json", by_alias=True)
        same = read_params(params_type, plain, configs) == params
    except ValidationError:
        raise
    except Exception as error:  # a processor's own validator: the text of its error may hold a value, so it is left out
        raise ConfigError(f"the processor's check of it broke down ({type(error).__name__}).") from error
    if not same:
        raise ConfigError(_NOT_JSON)
    return plain
