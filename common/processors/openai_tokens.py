"""How OpenAI's token fields add up, and the meters they become.

From the field texts and the example of OpenAI's OpenAPI document 2.3.0:

- ``input_tokens`` = ``input_uncached_tokens`` + ``input_cached_tokens`` + ``input_cache_write_tokens``
- uncached = ``input_text_tokens`` + ``input_audio_tokens`` + ``input_image_tokens``
- cached   = ``input_cached_text_tokens`` + ``input_cached_audio_tokens`` + ``input_cached_image_tokens``
- ``output_tokens`` = ``output_text_tokens`` + ``output_audio_tokens`` + ``output_image_tokens``
- cache-write = ``input_cache_write_30m_tokens`` + ``input_cache_write_12h_tokens`` (SDK 3.52.0, ``decisions`` alone)

Only ``input_tokens`` and ``output_tokens`` are required, so they are what the meters always add up to.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from common.processors.http.json_fields import Fields

Unexplained = Callable[[str, int], None]
"""Told of tokens that a total holds and none of its parts, and of the meter they are counted on."""


@dataclass(frozen=True, slots=True)
class Meter:
    """How much of what was used."""

    name: str
    quantity: Decimal
    unit: str = "Tokens"


class PartsExceedTotalError(Exception):
    """The parts of a total add up to more than it: nobody can tell which of the figures is right."""


def token_meters(result: Fields, unexplained: Unexplained) -> Iterator[Meter]:
    """Yield the meters of a result; they add up to its ``input_tokens`` and ``output_tokens``.

    A part that is absent is what the others leave of its total (all of it text, where no modality is given). Where
    the parts are given and leave a remainder, it goes to the text meter and ``unexplained`` is told.
    Raises PartsExceedTotalError.
    """
    total = result.whole("input_tokens")
    cached = _given_or_sum(result, "input_cached_tokens", _modalities("input_cached"))
    written = _given_or_sum(result, "input_cache_write_tokens", _RETENTIONS)
    uncached = _left(total, {"input_cached_tokens": cached, "input_cache_write_tokens": written}, "input_tokens")
    stated = result.optional_whole("input_uncached_tokens")
    yield from _by_modality(result, "input", uncached, uncached if stated is None else stated, unexplained)
    yield from _by_modality(result, "input_cached", cached, cached, unexplained)
    yield from _by_retention(result, written, unexplained)
    output = result.whole("output_tokens")
    yield from _by_modality(result, "output", output, output, unexplained)


_RETENTIONS = ("input_cache_write_30m_tokens", "input_cache_write_12h_tokens")


def _modalities(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}_{modality}_tokens" for modality in ("text", "audio", "image"))


def _given_or_sum(result: Fields, name: str, parts: tuple[str, ...]) -> int:
    given = result.optional_whole(name)
    return sum(result.optional_whole(part) or 0 for part in parts) if given is None else given


def _by_modality(result: Fields, prefix: str, amount: int, stated: int, unexplained: Unexplained) -> Iterator[Meter]:
    """Split ``amount`` into text, audio and image. ``stated`` is what OpenAI says it is, for want of a text part."""
    text, audio, image = _modalities(prefix)
    others = {name: result.optional_whole(name) or 0 for name in (audio, image)}
    left = _left(amount, others, f"{prefix}_tokens")
    given = result.optional_whole(text)
    expected = _left(stated, others, f"{prefix}_tokens") if given is None else given
    remainder = _left(left, {text: expected}, f"the text part of {prefix}_tokens")
    if remainder:
        unexplained(f"{prefix}_text", remainder)
    for meter, tokens in (("text", left), ("audio", others[audio]), ("image", others[image])):
        yield Meter(f"{prefix}_{meter}", Decimal(tokens))


def _by_retention(result: Fields, written: int, unexplained: Unexplained) -> Iterator[Meter]:
    """Split the cache-write tokens by how long they are kept, where the endpoint tells."""
    parts = {name: result.optional_whole(name) or 0 for name in _RETENTIONS}
    left = _left(written, parts, "input_cache_write_tokens")
    if left and any(parts.values()):
        unexplained("input_cache_write", left)
    yield Meter("input_cache_write", Decimal(left))
    for name, tokens in parts.items():
        yield Meter(name.removesuffix("_tokens"), Decimal(tokens))


def _left(total: int, parts: dict[str, int], name: str) -> int:
    """Return what the parts leave of a total, or raise PartsExceedTotalError."""
    left = total - sum(parts.values())
    if left < 0:
        listed = " + ".join(f"{part} {tokens}" for part, tokens in parts.items() if tokens)
        raise PartsExceedTotalError(f"{listed} is {-left} more than {name}, {total}.")
    return left
