"""List prices of one unit of GenAI usage, from the offline library genai-prices.

Why one unit at a time: the library prices a *request*. Long-context tiers, and fees per request, depend on the size
of that request; a day's sum given as one would meet every tier (1,000,000 input tokens of gpt-5.6-sol come out at
twice their price). A single unit meets none, so what is used here is each model's base price.

What the library doesn't know stays unknown, also where it would fall back without a word: audio tokens at the text
rate, batch and service tiers at the standard rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, PriceCalculation

LIBRARY = "genai-prices"
CURRENCY = "USD"
"""The library knows no other."""

STANDARD, BATCH = "standard", "batch"
_STANDARD_TIERS = frozenset({None, "", "default", "auto", "standard"})


@dataclass(frozen=True, slots=True)
class Price:
    """Price of one unit in USD; None with the ``reason`` where none is known. ``model`` is the library's id."""

    unit_price: Decimal | None
    model: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Unit:
    """One unit of a meter, in the library's words.

    ``usage`` are the counters that are 1 for it (they include each other). ``any_of`` are the price keys of which the
    model must have one.
    """

    usage: tuple[str, ...]
    any_of: tuple[str, ...]


_CACHED = ("input_tokens", "cache_read_tokens")
_AUDIO = ("input_tokens", "input_audio_tokens")
_IMAGE = ("input_tokens", "input_image_tokens")

# An image fed to a model without an image price is metered in tokens at the model's input rate: so the library prices
# it, and so do calculators after OpenAI's vision guide (PyPI openai-vision-cost). For audio no such rule exists.
_TOKENS: Mapping[str, _Unit] = {
    "input_text": _Unit(("input_tokens",), ("input_mtok",)),
    "input_audio": _Unit(_AUDIO, ("input_audio_mtok",)),
    "input_image": _Unit(_IMAGE, ("input_image_mtok", "input_mtok")),
    "input_cached_text": _Unit(_CACHED, ("cache_read_mtok",)),
    "input_cached_audio": _Unit((*_CACHED, *_AUDIO, "cache_audio_read_tokens"), ("cache_audio_read_mtok",)),
    "input_cached_image": _Unit(
        (*_CACHED, *_IMAGE, "cache_image_read_tokens"),
        ("cache_image_read_mtok", "cache_read_mtok"),
    ),
    "input_cache_write": _Unit(("input_tokens", "cache_write_tokens"), ("cache_write_mtok",)),
    "output_text": _Unit(("output_tokens",), ("output_mtok",)),
    "output_audio": _Unit(("output_tokens", "output_audio_tokens"), ("output_audio_mtok",)),
    "output_image": _Unit(("output_tokens", "output_image_tokens"), ("output_image_mtok", "output_mtok")),
}

# Meters that mean something by their endpoint. Images, sessions and stored bytes have no price in the library; file
# searches have one by model only, and OpenAI reports them without a model.
_OTHERS: Mapping[tuple[str, str], _Unit] = {
    ("audio_speeches", "characters"): _Unit(("input_characters",), ("input_mchars",)),
    ("audio_transcriptions", "seconds"): _Unit(
        ("audio_seconds", "input_audio_seconds"), ("input_audio_hours", "audio_hours")
    ),
    ("web_search_calls", "calls"): _Unit(("web_searches",), ("web_searches_kcount",)),
}


def variant_of(batch: bool | None, service_tier: str | None) -> str:
    """Return the price variant of a usage row: ``standard``, ``batch``, or its service tier, e.g. ``flex``."""
    if batch or service_tier == BATCH:
        return BATCH
    return STANDARD if service_tier in _STANDARD_TIERS else str(service_tier)


class PriceList:
    """Unit prices, each looked up once. ``source`` names the library and its version, because prices differ by it."""

    def __init__(self) -> None:
        self.source = f"{LIBRARY} {version(LIBRARY)}"
        self._known: dict[tuple[str, str, str | None, str, str, date], Price] = {}

    def price(self, provider: str, endpoint: str, model: str | None, meter: str, variant: str, day: date) -> Price:
        """Return the price of one unit of a meter on a day; never raises for what is unknown.

        The library has dated prices for some models and today's for all others: it can't say "unknown then".
        """
        key = (provider, endpoint, model, meter, variant, day)
        if key not in self._known:
            self._known[key] = _look_up(self.source, *key)
        return self._known[key]


def _look_up(
    source: str, provider: str, endpoint: str, model: str | None, meter: str, variant: str, day: date
) -> Price:
    if model is None:
        return Price(None, reason="the provider names no model for it")
    # Noon: a dated price changes at 00:00 UTC, so no time zone mistake of ours can move it to the next day.
    at = datetime.combine(day, time(12), UTC)
    try:
        nothing = _calculate(provider, model, (), variant, at)
    except LookupError:
        return Price(None, reason=f"{source} does not know the model")
    found = nothing.model.id
    if _is_free(provider, endpoint, nothing):
        return Price(Decimal(0), found)
    unit = _TOKENS.get(meter) or _OTHERS.get((endpoint, meter))
    if unit is None or not _has_price(nothing.model_price, unit):
        return Price(None, found, f"{source} has no price for {meter} of this model")
    if variant != STANDARD and not _has_variant(nothing, variant, at):
        return Price(None, found, f"{source} has no {variant} price of this model for {day}")
    try:
        one = _calculate(provider, model, unit.usage, variant, at)
    except ValueError:
        return Price(None, found, f"{source} can't price {meter} of this model alone")
    # Minus the price of nothing: a fee per request is not part of the price of a token.
    return Price(one.total_price - nothing.total_price, found)


def _calculate(provider: str, model: str, counters: tuple[str, ...], variant: str, at: datetime) -> "PriceCalculation":
    from genai_prices import Usage, calc_price

    return calc_price(
        Usage(**dict.fromkeys(counters, 1)),
        model,
        provider_id=provider,
        genai_request_timestamp=at,
        price_context=_context(variant),
    )


def _context(variant: str) -> dict[str, str] | None:
    if variant == STANDARD:
        return None
    return {"processing": BATCH} if variant == BATCH else {"service_tier": variant}


def _has_variant(found: "PriceCalculation", variant: str, at: datetime) -> bool:
    """Whether the model has prices of that variant then: the library gives the standard ones without a word."""
    wanted = _context(variant) or {}
    return any(
        (item.constraint is None or item.constraint.active(at))
        and all(wanted.get(key) == value for key, value in item.when.items())
        for item in found.model.price_variants or ()
    )


def _has_price(prices: "ModelPrice", unit: _Unit) -> bool:
    return any(getattr(prices, key) is not None for key in unit.any_of)


def _is_free(provider: str, endpoint: str, found: "PriceCalculation") -> bool:
    """OpenAI's moderation endpoint costs nothing.

    The library holds that as a model "moderation" described as "free of charge" with no price at all, which for every
    other model means unknown. OpenAI documents the same (moderation models are free models:
    developers.openai.com/api/docs/models/omni-moderation-latest), so this one is a true 0. A model of such a name on
    another endpoint is not meant.
    """
    no_prices = not any(value is not None for value in vars(found.model_price).values())
    return (provider, endpoint, found.model.id) == ("openai", "moderations", "moderation") and no_prices
