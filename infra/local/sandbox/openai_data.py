"""Made-up OpenAI usage: the same for the same seed, endpoint and day, in whatever order it is asked for.

A day's usage is a list of ``UsageRecord``s, each at its own second of the day, so that buckets of any width add up to
the same day. Token counts are built from their parts, so that the documented sums hold.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

DAY_S = 86_400
LATE = 0.1
"""Share of the usage that is reported late (made up: providers publish no figure)."""

QUIET_DAYS = 0.06
"""Share of an endpoint's days on which nothing was used: the API then gives a bucket without results."""

Dimensions = dict[str, str | bool | None]


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """Some usage of one kind at one moment (unix seconds). What is ``late`` is reported days after it."""

    at: int
    dimensions: Mapping[str, str | bool | None]
    measures: Mapping[str, int]
    late: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """How a model is used. ``tiers`` are (batch, service_tier) pairs; tokens are the most of one record."""

    model: str
    tokens: int
    tiers: tuple[tuple[bool, str], ...] = ((False, "default"),)
    cached: float = 0.0
    cache_write: float = 0.0
    audio: float = 0.0
    image: float = 0.0
    cached_in_batch: bool = True


PROFILES = (
    Profile(
        "gpt-5.6-sol",
        900_000,
        tiers=((False, "default"), (False, "flex"), (False, "priority"), (True, "default")),
        cached=0.5,
        cache_write=0.1,
    ),
    # OpenAI's price list has no cached rate for batches of gpt-4o, because nothing is cached there.
    Profile(
        "gpt-4o",
        400_000,
        tiers=((False, "default"), (True, "default")),
        cached=0.3,
        image=0.2,
        cached_in_batch=False,
    ),
    Profile("gpt-5-mini", 1_500_000, tiers=((False, "default"), (False, "flex")), cached=0.4),
    Profile("gpt-realtime", 60_000, cached=0.2, audio=0.7),
    Profile("gpt-sandbox-unpriced", 50_000),  # no price list knows it: its cost must come out as NULL
)


@lru_cache(maxsize=2_048)
def records(seed: int, endpoint: str, day: int) -> tuple[UsageRecord, ...]:
    """Return the usage of one endpoint on the day that starts at unix second ``day``, in order of time."""
    rng = random.Random(f"{seed}/{endpoint}/{day}")
    if rng.random() < QUIET_DAYS:
        return ()
    late = random.Random(f"{seed}/{endpoint}/{day}/late")
    records = [
        UsageRecord(day + rng.randrange(DAY_S), dims, measures, late.random() < LATE)
        for dims, measures in _MAKERS[endpoint](rng)
    ]
    return tuple(sorted(records, key=lambda record: record.at))


Usage = Iterator[tuple[Dimensions, dict[str, int]]]


def _who(rng: random.Random) -> Dimensions:
    project = rng.choice(("proj_chat", "proj_search", "proj_support"))
    number = rng.randint(1, 2)
    return {"project_id": project, "api_key_id": f"key_{project[5:]}_{number}", "user_id": f"user_{number}"}


def _some(rng: random.Random, model: str, measure: str, most: int) -> Usage:
    for _ in range(rng.randint(1, 3)):
        yield _who(rng) | {"model": model}, {measure: rng.randint(1, most), "num_model_requests": rng.randint(1, 90)}


def _completions(rng: random.Random) -> Usage:
    for profile in PROFILES:
        for batch, tier in profile.tiers:
            for _ in range(rng.randint(1, 2)):
                of: Dimensions = {"model": profile.model, "batch": batch, "service_tier": tier}
                yield _who(rng) | of | {"api_source": "unlabeled"}, _tokens(rng, profile, batch=batch)


def _tokens(rng: random.Random, profile: Profile, *, batch: bool = False) -> dict[str, int]:
    """Input is uncached + cached + cache-write; uncached and cached are each text + audio + image."""
    total = rng.randint(profile.tokens // 10, profile.tokens)
    cached = int(total * profile.cached) if profile.cached_in_batch or not batch else 0
    write = int(total * profile.cache_write)
    output = rng.randint(total // 50, total // 8)
    uncached = total - cached - write
    tokens = {
        "input_tokens": total,
        "input_uncached_tokens": uncached,
        "input_cached_tokens": cached,
        "input_cache_write_tokens": write,
        "input_cache_write_30m_tokens": write,
        "input_cache_write_12h_tokens": 0,
        "output_tokens": output,
        "num_model_requests": max(total // rng.randint(800, 6_000), 1),
    }
    for prefix, amount, image in (
        ("input", uncached, profile.image),
        ("input_cached", cached, profile.image),
        ("output", output, 0.0),
    ):
        audio_tokens, image_tokens = int(amount * profile.audio), int(amount * image)
        tokens[f"{prefix}_audio_tokens"], tokens[f"{prefix}_image_tokens"] = audio_tokens, image_tokens
        tokens[f"{prefix}_text_tokens"] = amount - audio_tokens - image_tokens
    return tokens


def _decisions(rng: random.Random) -> Usage:
    profile = PROFILES[0]
    dims: Dimensions = {"model": profile.model, "batch": False, "service_tier": "default"}
    tokens = _tokens(rng, profile)
    # Only here: no price is published for the longer retention.
    half_hour = tokens["input_cache_write_tokens"] // 3
    tokens["input_cache_write_30m_tokens"] = half_hour
    tokens["input_cache_write_12h_tokens"] = tokens["input_cache_write_tokens"] - half_hour
    yield _who(rng) | dims | {"api_source": rng.choice(("agents_api", "unlabeled"))}, tokens


def _embeddings(rng: random.Random) -> Usage:
    yield from _some(rng, "text-embedding-3-small", "input_tokens", 3_000_000)


def _moderations(rng: random.Random) -> Usage:
    yield from _some(rng, "omni-moderation-latest", "input_tokens", 100_000)


def _images(rng: random.Random) -> Usage:
    for dims, measures in _some(rng, "gpt-image-1", "images", 40):
        dims["size"] = rng.choice(("1024x1024", "1536x1024"))
        dims["source"] = rng.choice(("image.generation", "image.edit"))
        yield dims, measures


def _speeches(rng: random.Random) -> Usage:
    yield from _some(rng, "tts-1", "characters", 200_000)


def _transcriptions(rng: random.Random) -> Usage:
    yield from _some(rng, "whisper-1", "seconds", 20_000)


def _vector_stores(rng: random.Random) -> Usage:
    yield {"project_id": "proj_search"}, {"usage_bytes": rng.randint(10**8, 5 * 10**9)}


def _sessions(rng: random.Random) -> Usage:
    yield {"project_id": "proj_support"}, {"num_sessions": rng.randint(1, 60)}


def _file_searches(rng: random.Random) -> Usage:
    for _ in range(rng.randint(1, 2)):
        yield _who(rng) | {"vector_store_id": f"vs_{rng.randint(1, 3)}"}, {"num_requests": rng.randint(1, 400)}


def _web_searches(rng: random.Random) -> Usage:
    for dims, measures in _some(rng, "gpt-4o", "num_requests", 500):
        dims["context_level"] = rng.choice(("low", "medium", "high"))
        yield dims, measures


_MAKERS: dict[str, Callable[[random.Random], Usage]] = {
    "completions": _completions,
    "decisions": _decisions,
    "embeddings": _embeddings,
    "moderations": _moderations,
    "images": _images,
    "audio_speeches": _speeches,
    "audio_transcriptions": _transcriptions,
    "vector_stores": _vector_stores,
    "code_interpreter_sessions": _sessions,
    "file_search_calls": _file_searches,
    "web_search_calls": _web_searches,
}
