"""Finds GenAI providers: each module of ``common/processors/genai/providers/`` is one, and its name is the key."""

import pkgutil
from functools import cache
from importlib import import_module
from typing import Annotated

from pydantic import AfterValidator

from common.platform.errors import ConfigError, nearest
from common.processors.genai import providers
from common.processors.genai.provider import GenaiProvider


@cache
def provider_keys() -> tuple[str, ...]:
    """Return the keys of all providers, sorted. Reads the package's folder and imports no provider."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(providers.__path__)))


@cache
def genai_provider(key: str) -> GenaiProvider:
    """Import a provider's module and return what it declares.

    Raises ConfigError that suggests the nearest name. Imports on first use: a cold start must not pay for all of them.
    """
    try:
        module = import_module(f"common.processors.genai.providers.{known_key(key)}")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    provider: GenaiProvider = module.PROVIDER
    return provider


def known_key(key: str) -> str:
    """Return ``key`` if a provider has it. Raises ValueError that suggests the nearest one."""
    keys = provider_keys()
    if key not in keys:
        # At most 80 characters: the key may come from a request, and must not flood the log.
        raise ValueError(f"no GenAI provider is named {key[:80]!r}.{nearest(key, keys)} Known: {', '.join(keys)}.")
    return key


ProviderKey = Annotated[str, AfterValidator(known_key)]
"""A provider's key in YAML. Not an enum: each new provider's module would change the JSON schema for editors."""
