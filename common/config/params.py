"""What a processor says about the ``config:`` of its step."""

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
"""With this in the place of ``{item}`` a ``config:`` is checked while its items are not known. Most are days."""

_NOT_JSON = "holds a value that JSON can't carry unchanged. Put decimals in quotes."


def params_findings(
    params_type: type[BaseModel], config: dict[str, Any], place: Location, *, configs: Path
) -> Iterator[Finding]:
    """Yield what a processor's params object to in a resolved ``config:``; ``place`` is where it hangs in the file."""
    try:
        dump_params(params_type, config, configs)
    except ValidationError as error:
        yield from findings_of(error, params_type, place)
    except ConfigError as error:
        yield place, str(error)


def mapped_findings(
    params_type: type[BaseModel], config: dict[str, Any], place: Location, *, configs: Path, dates: bool
) -> Iterator[Finding]:
    """Yield what is wrong with the ``config:`` of a step with ``map:``, resolved but for ``{item}``.

    It is checked with a day as the item. Where the items are not days, what that finds at a value with ``{item}`` in
    it is left out: only the run knows what will stand there. The run keeps such a config as it is, without its
    params' defaults, so it must be JSON data already; each item's attempt validates it with its item put in.
    """
    try:
        json.dumps(config)
    except TypeError:  # a Decimal: nothing else that YAML gives is foreign to JSON
        yield place, _NOT_JSON
    unsure = () if dates else tuple(inner for inner, text in strings(config, place) if ITEM.search(text))
    for location, message in params_findings(params_type, item_config(config, ITEM_STAND_IN), place, configs=configs):
        if not any(location[: len(inner)] == inner for inner in unsure):
            yield location, message


def read_params[P: BaseModel](params_type: type[P], config: Mapping[str, Any], configs: Path) -> P:
    """Validate a resolved ``config:``. A validator that reads a file finds its folder as ``info.context["configs"]``.

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
