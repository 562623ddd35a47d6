"""List prices of one unit of GenAI usage, from the offline library genai-prices.

Why one unit at a time: the library prices a *request*. Long-context tiers, and fees per request, depend on the size
of that request; a day's sum given as one would meet every tier (1,000,000 input tokens of gpt-5.6-sol come out at
twice their price). A single unit meets none, so what is used here is each model's base price.

What the library doesn't know stays unknown, also where it would fall back without a word: audio tokens at the text
rate, batch and service tiers at the standard rate, a price that depends on the hour at that of some hour.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, PriceCalculation, PriceVariant

LIBRARY = "genai-prices"
CURRENCY = "USD"
"""The library knows no other."""

STANDARD, BATCH, FREE, FAST = "standard", "batch", "free", "fast"
LONG_CONTEXT, US = "long_context", "us"
_STANDARD_TIERS = frozenset({None, "", "default", "auto", "standard"})

LONG_REQUEST = 200_001
"""Input tokens of a request with ``long_context``: more than 200,000, as in Anthropic's ``200k-1M``."""

REGION_FACTORS = {("anthropic", US): Decimal("1.1")}
"""What a region does to every token price. Anthropic: inference in the US alone costs 1.1 times the price, on all
models that know ``inference_geo`` (platform.claude.com/docs/en/about-claude/pricing, data residency pricing)."""


@dataclass(frozen=True, slots=True)
class Price:
    """Price of one unit; None with the ``reason`` where none is known. ``model`` is what the source calls the model.

    ``since`` is the day from which it holds, None where the source gives one price for all days.
    """

    unit_price: Decimal | None
    model: str | None = None
    reason: str = ""
    source: str = ""
    since: date | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """What a price is asked for. ``provider`` is the library's id; ``variant`` is what ``variant()`` made."""

    provider: str
    endpoint: str
    model: str | None
    meter: str
    variant: str
    day: date


@dataclass(frozen=True, slots=True)
class _Unit:
    """One unit of a meter, in the library's words.

    ``usage`` are the counters that are 1 for it (they include each other). ``any_of`` are the price keys of which the
    model must have one.
    """

    usage: tuple[str, ...]
    any_of: tuple[str, ...]

    @property
    def is_token(self) -> bool:
        """Whether tokens are counted: only their prices have variants."""
        return self.any_of[0].endswith("_mtok")


_CACHED = ("input_tokens", "cache_read_tokens")
_AUDIO = ("input_tokens", "input_audio_tokens")
_IMAGE = ("input_tokens", "input_image_tokens")
_VIDEO = ("input_tokens", "input_video_tokens")
_WRITTEN = ("input_tokens", "cache_write_tokens")

# An image fed to a model without an image price is metered in tokens at the model's input rate: so the library prices
# it, and so do calculators after OpenAI's vision guide (PyPI openai-vision-cost). For audio no such rule exists.
_TOKENS: Mapping[str, _Unit] = {
    "input_text": _Unit(("input_tokens",), ("input_mtok",)),
    "input_audio": _Unit(_AUDIO, ("input_audio_mtok",)),
    "input_image": _Unit(_IMAGE, ("input_image_mtok", "input_mtok")),
    "input_video": _Unit(_VIDEO, ("input_video_mtok", "input_mtok")),
    "input_cached_text": _Unit(_CACHED, ("cache_read_mtok",)),
    "input_cached_audio": _Unit((*_CACHED, *_AUDIO, "cache_audio_read_tokens"), ("cache_audio_read_mtok",)),
    "input_cached_image": _Unit(
        (*_CACHED, *_IMAGE, "cache_image_read_tokens"),
        ("cache_image_read_mtok", "cache_read_mtok"),
    ),
    "input_cache_write": _Unit(_WRITTEN, ("cache_write_mtok",)),
    # OpenAI's default retention. From GPT-5.6 on a write costs 1.25 times the input, and the library's one write price
    # of these models is that; older models have none, because their writes are free.
    "input_cache_write_30m": _Unit(_WRITTEN, ("cache_write_mtok",)),
    "input_cache_write_5m": _Unit((*_WRITTEN, "cache_write_5m_tokens"), ("cache_write_5m_mtok", "cache_write_mtok")),
    "input_cache_write_1h": _Unit((*_WRITTEN, "cache_write_1h_tokens"), ("cache_write_1h_mtok",)),
    "output_text": _Unit(("output_tokens",), ("output_mtok",)),
    # Thinking is billed as output by all four providers; none of their usage reports tells it apart so far.
    "output_reasoning": _Unit(("output_tokens",), ("output_mtok",)),
    "output_audio": _Unit(("output_tokens", "output_audio_tokens"), ("output_audio_mtok",)),
    "output_image": _Unit(("output_tokens", "output_image_tokens"), ("output_image_mtok", "output_mtok")),
    "web_searches": _Unit(("web_searches",), ("web_searches_kcount",)),
}

# Meters that mean something by their endpoint.
_OTHERS: Mapping[tuple[str, str], _Unit] = {
    ("audio_speeches", "characters"): _Unit(("input_characters",), ("input_mchars",)),
    ("audio_transcriptions", "seconds"): _Unit(
        ("audio_seconds", "input_audio_seconds"), ("input_audio_hours", "audio_hours")
    ),
}

NO_PRICE: Mapping[str, str] = {
    "input_cache_write_12h": "OpenAI has published no price of cache writes that are kept for 12 hours",
    "images": f"{LIBRARY} has prices of image tokens, none of an image: it depends on size and quality",
    "stored_bytes": f"{LIBRARY} has no price of storage",
    "sessions": f"{LIBRARY} has no price of a code interpreter's session",
    "file_searches": "OpenAI reports searches without the model that their price depends on",
    "input_other": "the provider counts it in a modality that this version does not know",
    "output_other": "the provider counts it in a modality that this version does not know",
    "output_video": f"{LIBRARY} has no price of video that a model of these providers puts out",
}
"""Meters without a published price of one unit, and why. Their cost is NULL, and the run warns with the reason.

A meter that neither this nor the tables above name is a mistake of ours: tests/processors/test_meters.py finds it."""


def is_known_meter(endpoint: str, meter: str) -> bool:
    """Whether a meter has a price, or a reason why it has none."""
    return meter in _TOKENS or (endpoint, meter) in _OTHERS or meter in NO_PRICE


def variant(batch: bool | None, service_tier: str | None, *, long_context: bool = False, region: str = "") -> str:
    """Return what a price depends on besides model and meter: ``standard``, ``batch``, ``flex+long_context``, ...

    First how it was processed, then, as far as they matter, that the request was long and where it was processed.
    """
    base = BATCH if batch or service_tier == BATCH else STANDARD
    if base == STANDARD and service_tier not in _STANDARD_TIERS:
        base = str(service_tier)
    return "+".join(part for part in (base, LONG_CONTEXT if long_context else "", region) if part)


class PriceList:
    """Unit prices in USD, each looked up once. Their source is the library and its version: prices differ by it."""

    def __init__(self) -> None:
        self._source = f"{LIBRARY} {version(LIBRARY)}"
        self._known: dict[Item, Price] = {}

    def price(self, item: Item) -> Price:
        """Return the price of one unit of a meter on a day; never raises for what is unknown.

        The library has dated prices for some models and today's for all others: it can't say "unknown then".
        """
        if item not in self._known:
            self._known[item] = _look_up(self._source, item)
        return self._known[item]


def _look_up(source: str, item: Item) -> Price:
    if item.variant != FREE and (reason := NO_PRICE.get(item.meter)) is not None:
        return Price(None, reason=reason)
    if item.model is None:
        return Price(None, reason="the provider names no model for it")
    # Noon: a dated price changes at 00:00 UTC, so no time zone mistake of ours can move it to the next day.
    at = datetime.combine(item.day, time(12), UTC)
    base, *conditions = item.variant.split("+")
    long = {"input_tokens": LONG_REQUEST} if LONG_CONTEXT in conditions else {}
    how = _context(item.provider, base)
    region = "".join(condition for condition in conditions if condition != LONG_CONTEXT)
    try:
        around = _calculate(item, long, how, at)
    except LookupError:
        return Price(None, reason=f"{source} does not know the model")
    model = around.model.id
    if base == FREE or _is_free(item, around):
        return Price(Decimal(0), model, source=source)
    unit = _TOKENS.get(item.meter) or _OTHERS.get((item.endpoint, item.meter))
    if unit is None or not _has_price(around.model_price, unit):
        return Price(None, model, f"{source} has no price for {item.meter} of this model")
    if _by_the_hour(around):
        return Price(None, model, f"{source} has prices by the hour for this model, and the usage is that of a day")
    if unit.is_token and base != STANDARD and not _has_variant(around, unit, how, at):
        return Price(None, model, f"{source} has no {base} price of this model for {item.day}")
    factor = REGION_FACTORS.get((item.provider, region)) if region and unit.is_token else Decimal(1)
    if factor is None:
        return Price(None, model, f"nothing is known of prices in the region {region}")
    try:
        one = _calculate(item, {**long, **{name: long.get(name, 0) + 1 for name in unit.usage}}, how, at)
    except ValueError:
        return Price(None, model, f"{source} can't price {item.meter} of this model alone")
    # Minus the price of what is around it: a fee per request is not part of the price of a token.
    unit_price = (one.total_price - around.total_price) * factor
    return Price(unit_price, model, source=source, since=_since(around, how if unit.is_token else {}, at))


def _calculate(item: Item, counters: Mapping[str, int], how: Mapping[str, str], at: datetime) -> "PriceCalculation":
    from genai_prices import Usage, calc_price

    return calc_price(
        Usage(**counters),
        str(item.model),
        provider_id=item.provider,
        genai_request_timestamp=at,
        price_context=dict(how) or None,
    )


def _context(provider: str, base: str) -> dict[str, str]:
    """Return how it was processed in the library's words; empty for the standard."""
    if base in (STANDARD, FREE):
        return {}
    if (provider, base) == ("anthropic", FAST):  # what others sell as a service tier
        return {"speed": FAST}
    return {"processing": BATCH} if base == BATCH else {"service_tier": base}


def _variants(calculation: "PriceCalculation", how: Mapping[str, str], at: datetime) -> "Iterator[PriceVariant]":
    for item in calculation.model.price_variants or ():
        active = item.constraint is None or item.constraint.active(at)
        if active and all(how.get(key) == value for key, value in item.when.items()):
            yield item


def _has_variant(calculation: "PriceCalculation", unit: _Unit, how: Mapping[str, str], at: datetime) -> bool:
    """Whether the model has this price of that variant then: the library gives the standard one without a word."""
    return any(_has_price(item.prices, unit) for item in _variants(calculation, how, at))


def _dated(calculation: "PriceCalculation", at: datetime) -> "Any":
    """Return the constraint of the standard price that holds then; the library takes the last that does."""
    prices = calculation.model.prices
    if not isinstance(prices, list):
        return None
    active = [p.constraint for p in prices if p.constraint is None or p.constraint.active(at)]
    return active[-1] if active else prices[0].constraint


def _by_the_hour(calculation: "PriceCalculation") -> bool:
    prices = calculation.model.prices
    return isinstance(prices, list) and any(hasattr(p.constraint, "start_time") for p in prices)


def _since(calculation: "PriceCalculation", how: Mapping[str, str], at: datetime) -> date | None:
    """Return the day from which the price holds: that of the variant, else of the standard price."""
    for constraint in (*(item.constraint for item in _variants(calculation, how, at)), _dated(calculation, at)):
        if (since := getattr(constraint, "start_date", None)) is not None:
            return cast(date, since)
    return None


def _has_price(prices: "ModelPrice", unit: _Unit) -> bool:
    return any(getattr(prices, key) is not None for key in unit.any_of)


def _is_free(item: Item, calculation: "PriceCalculation") -> bool:
    """OpenAI's moderation endpoint costs nothing.

    The library holds that as a model "moderation" described as "free of charge" with no price at all, which for every
    other model means unknown. OpenAI documents the same (moderation models are free models:
    developers.openai.com/api/docs/models/omni-moderation-latest), so this one is a true 0. A model of such a name on
    another endpoint is not meant.
    """
    no_prices = not any(value is not None for value in vars(calculation.model_price).values())
    return (item.provider, item.endpoint, calculation.model.id) == ("openai", "moderations", "moderation") and no_prices
