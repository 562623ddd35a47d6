"""What a processor says about the ``config:`` of its step."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from common.config.problems import Finding, Location, findings_of
from common.config.templates import strings
from common.domain.mapping import ITEM, item_config
from common.platform.errors import ConfigError
from common.processors import registry
from common.processors.base import Params

ITEM_STAND_IN = "2026-01-15"
"""With this in the place of ``{item}`` a ``config:`` is checked while its items are not known. Most are days."""

_NOT_JSON = "holds a value that JSON can't carry unchanged. Put decimals in quotes."


def params_type_of(ps_type: str) -> type[Params]:
    """Return the params of a ``ps_type``, or raise ConfigError if nothing registers it, or its module is broken."""
    try:
        return registry.processor(ps_type).params_type
    except ConfigError:
        raise
    except Exception as error:  # a processor's module is code of its own: whatever fails in it must name the step
        module = f" of {error.name}" if isinstance(error, ImportError) and error.name else ""  # its text shows paths
        raise ConfigError(f"the processor {ps_type!r} can't be loaded ({type(error).__name__}{module}).") from error


def params_findings(params_type: type[Params], config: dict[str, Any], place: Location) -> Iterator[Finding]:
    """Yield what a processor's params object to in a resolved ``config:``; ``place`` is where it hangs in the file."""
    try:
        dump_params(params_type, config)
    except ValidationError as error:
        yield from findings_of(error, params_type, place)
    except ConfigError as error:
        yield place, str(error)


def mapped_findings(
    params_type: type[Params], config: dict[str, Any], place: Location, *, dates: bool
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
    for location, message in params_findings(params_type, item_config(config, ITEM_STAND_IN), place):
        if not any(location[: len(inner)] == inner for inner in unsure):
            yield location, message


def dump_params(params_type: type[Params], config: dict[str, Any]) -> dict[str, Any]:
    """Validate a resolved ``config:`` and return it as plain JSON data, defaults included.

    The run keeps this and the step validates it again, so it must mean the same then. Raises ValidationError, or
    ConfigError where it would not, or where the params' own checks break.
    """
    try:
        params = params_type.model_validate(config)
        plain = params.model_dump(mode="json", by_alias=True)
        same = params_type.model_validate(plain) == params
    except ValidationError:
        raise
    except Exception as error:  # a processor's own validator: the text of its error may hold a value, so it is left out
        raise ConfigError(f"the processor's check of it broke down ({type(error).__name__}).") from error
    if not same:
        raise ConfigError(_NOT_JSON)
    return plain
