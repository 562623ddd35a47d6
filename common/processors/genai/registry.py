"""Finds GenAI providers: each module of ``common/processors/genai/providers/`` is one, by its name."""

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
    """Return the keys of all providers that have a module."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(providers.__path__)))


@cache
def genai_provider(key: str) -> GenaiProvider:
    """Return what a provider's module declares, or raise ConfigError that names the nearest provider."""
    try:
        module = import_module(f"common.processors.genai.providers.{known_key(key)}")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    provider: GenaiProvider = module.PROVIDER
    return provider


def known_key(key: str) -> str:
    """Return the key of a provider that has a module, or raise ValueError that names the nearest one."""
    keys = provider_keys()
    if key not in keys:
        raise ValueError(f"no GenAI provider is named {key[:80]!r}.{nearest(key, keys)} Known: {', '.join(keys)}.")
    return key


ProviderKey = Annotated[str, AfterValidator(known_key)]
"""In a YAML file. Not an enum: the schema for editors would have to be written anew for each provider's module."""
