"""List prices of one unit of GenAI usage, from the offline library genai-prices.

Why one unit at a time: the library prices a *request*. Long-context tiers and fees per request depend on the size of
that request, so a day's total priced as one request would reach every tier (1,000,000 input tokens of gpt-5.6-sol cost
twice their price). A single unit reaches none and has the model's base price.

A price that the library doesn't have stays unknown, even where the library silently falls back: audio tokens to the
text price, batch and service tiers to the standard price, prices that depend on the hour to those of one hour.
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
"""The library has prices in no other currency."""

STANDARD, BATCH, FREE, FAST = "standard", "batch", "free", "fast"
LONG_CONTEXT, US = "long_context", "us"
_STANDARD_TIERS = frozenset({None, "", "default", "auto", "standard"})
"""Providers' names for requests at the standard price."""

LONG_REQUEST = 200_001
"""Input tokens of a request with ``long_context``: more than 200,000, as in Anthropic's ``200k-1M``."""

REGION_FACTORS = {("anthropic", US): Decimal("1.1")}
"""Factors on every token price, by region. Anthropic: US-only inference costs 1.1 times the price on all models that
support ``inference_geo`` (platform.claude.com/docs/en/about-claude/pricing, data residency pricing)."""


@dataclass(frozen=True, slots=True)
class Price:
    """Price of one unit, or None with the ``reason`` why it is unknown. ``model`` is the source's name for the model.

    ``since`` is the first day of the price, None if the source has one price for all days.
    """

    unit_price: Decimal | None
    model: str | None = None
    reason: str = ""
    source: str = ""
    since: date | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """The key of a price. ``provider`` is the library's id; ``variant`` comes from ``variant()``."""

    provider: str
    endpoint: str
    model: str | None
    meter: str
    variant: str
    day: date


@dataclass(frozen=True, slots=True)
class _Unit:
    """One unit of a meter, in the library's terms.

    ``usage`` are the counters that are 1 for it (the library's totals include their parts). The model must have at
    least one of the prices ``any_of``.
    """

    usage: tuple[str, ...]
    any_of: tuple[str, ...]

    @property
    def is_token(self) -> bool:
        """Whether the unit is a token: only token prices have variants."""
        return self.any_of[0].endswith("_mtok")


_CACHED = ("input_tokens", "cache_read_tokens")
_AUDIO = ("input_tokens", "input_audio_tokens")
_IMAGE = ("input_tokens", "input_image_tokens")
_VIDEO = ("input_tokens", "input_video_tokens")
_WRITTEN = ("input_tokens", "cache_write_tokens")

# For a model without an image price, images count as tokens at its input price: the library does so, and so do
# calculators based on OpenAI's vision guide (PyPI openai-vision-cost). There is no such rule for audio.
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
    # All four providers bill thinking as output; none of their usage reports separates it so far.
    "output_reasoning": _Unit(("output_tokens",), ("output_mtok",)),
    "output_audio": _Unit(("output_tokens", "output_audio_tokens"), ("output_audio_mtok",)),
    "output_image": _Unit(("output_tokens", "output_image_tokens"), ("output_image_mtok", "output_mtok")),
    "web_searches": _Unit(("web_searches",), ("web_searches_kcount",)),
}

# Meters whose meaning depends on the endpoint. Images, sessions and stored bytes have no price in the library; file
# searches have one per model only, and OpenAI reports them without a model.
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

    The service tier comes first, then long context and region if they change the price.
    """
    base = BATCH if batch or service_tier == BATCH else STANDARD
    if base == STANDARD and service_tier not in _STANDARD_TIERS:
        base = str(service_tier)
    return "+".join(part for part in (base, LONG_CONTEXT if long_context else "", region) if part)


class PriceList:
    """Unit prices in USD, each looked up once. The source includes the library's version, because prices differ."""

    def __init__(self) -> None:
        self._source = f"{LIBRARY} {version(LIBRARY)}"
        self._prices: dict[Item, Price] = {}

    def price(self, item: Item) -> Price:
        """Return the price of one unit of a meter on a day; an unknown price is a result, not an error.

        The library has dated prices for some models only. For the others, past days get today's price.
        """
        if item not in self._prices:
            self._prices[item] = _look_up(self._source, item)
        return self._prices[item]


def _look_up(source: str, item: Item) -> Price:
    if item.variant != FREE and (reason := NO_PRICE.get(item.meter)) is not None:
        return Price(None, reason=reason)
    if item.model is None:
        return Price(None, reason="the provider names no model for it")
    # Noon: dated prices change at 00:00 UTC, and an error of a few hours must not select the next day's price.
    at = datetime.combine(item.day, time(12), UTC)
    base, *conditions = item.variant.split("+")
    long = {"input_tokens": LONG_REQUEST} if LONG_CONTEXT in conditions else {}
    how = _context(item.provider, base)
    region = "".join(condition for condition in conditions if condition != LONG_CONTEXT)
    try:
        baseline = _calculate(item, long, how, at)
    except LookupError:
        return Price(None, reason=f"{source} does not know the model")
    model = baseline.model.id
    if base == FREE or _is_free(item, baseline):
        return Price(Decimal(0), model, source=source)
    unit = _TOKENS.get(item.meter) or _OTHERS.get((item.endpoint, item.meter))
    if unit is None or not _has_price(baseline.model_price, unit):
        return Price(None, model, f"{source} has no price for {item.meter} of this model")
    if _is_hourly(baseline):
        return Price(None, model, f"{source} has hourly prices for this model, and usage is reported by day")
    if unit.is_token and base != STANDARD and not _has_variant(baseline, unit, how, at):
        return Price(None, model, f"{source} has no {base} price of this model for {item.day}")
    factor = REGION_FACTORS.get((item.provider, region)) if region and unit.is_token else Decimal(1)
    if factor is None:
        return Price(None, model, f"prices in the region {region} are unknown")
    try:
        with_unit = _calculate(item, {**long, **{name: long.get(name, 0) + 1 for name in unit.usage}}, how, at)
    except ValueError:
        return Price(None, model, f"{source} can't price {item.meter} of this model alone")
    # Minus the request without the unit: a fee per request is not part of the price of a token.
    unit_price = (with_unit.total_price - baseline.total_price) * factor
    return Price(unit_price, model, source=source, since=_since(baseline, how if unit.is_token else {}, at))


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
    """Whether the variant has a price of its own then: without one, the library silently uses the standard price."""
    return any(_has_price(item.prices, unit) for item in _variants(calculation, how, at))


def _active_constraint(calculation: "PriceCalculation", at: datetime) -> "Any":
    """Return the constraint of the standard price then; of several active prices, the library uses the last."""
    prices = calculation.model.prices
    if not isinstance(prices, list):
        return None
    active = [p.constraint for p in prices if p.constraint is None or p.constraint.active(at)]
    return active[-1] if active else prices[0].constraint


def _is_hourly(calculation: "PriceCalculation") -> bool:
    prices = calculation.model.prices
    return isinstance(prices, list) and any(hasattr(p.constraint, "start_time") for p in prices)


def _since(calculation: "PriceCalculation", how: Mapping[str, str], at: datetime) -> date | None:
    """Return the first day of the price: the variant's, else the standard price's."""
    variants = (item.constraint for item in _variants(calculation, how, at))
    for constraint in (*variants, _active_constraint(calculation, at)):
        if (since := getattr(constraint, "start_date", None)) is not None:
            return cast(date, since)
    return None


def _has_price(prices: "ModelPrice", unit: _Unit) -> bool:
    return any(getattr(prices, key) is not None for key in unit.any_of)


def _is_free(item: Item, calculation: "PriceCalculation") -> bool:
    """Whether the usage is of OpenAI's moderation endpoint, which is free.

    The library has a model "moderation", described as "free of charge", without any price, which for every other model
    means unknown. OpenAI documents that moderation models are free
    (developers.openai.com/api/docs/models/omni-moderation-latest), so the price is 0. This does not apply to a model of
    that name on another endpoint.
    """
    no_prices = not any(value is not None for value in vars(calculation.model_price).values())
    return (item.provider, item.endpoint, calculation.model.id) == ("openai", "moderations", "moderation") and no_prices
