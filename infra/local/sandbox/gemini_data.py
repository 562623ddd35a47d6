"""Made-up tokens of Gemini in Cloud Monitoring: the same for the same seed, metric and day."""

import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

LATE = 0.1
"""Share of the tokens that arrive late (made up)."""

PAID_INPUT = "generativelanguage.googleapis.com/quota/generate_content_paid_tier_input_token_count/usage"
FREE_INPUT = "generativelanguage.googleapis.com/quota/generate_content_free_tier_input_token_count/usage"
OUTPUT = "generativelanguage.googleapis.com/generate_content_usage_output_token_count"
VERTEX = "aiplatform.googleapis.com/publisher/online_serving/token_count"
METRICS = (VERTEX, PAID_INPUT, FREE_INPUT, OUTPUT)
"""What this project has: the paid tiers 2 and 3 it does not use, so those metrics are not found."""

PUBLISHER_MODEL = "aiplatform.googleapis.com/PublisherModel"
CONSUMER = "generativelanguage.googleapis.com/Location"

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Series:
    """Tokens of one kind at moments."""

    metric: Labels
    resource_type: str
    resource: Labels
    tokens: tuple[tuple[datetime, int], ...]


def _kinds(metric: str) -> list[tuple[Labels, str, Labels, int]]:
    """Return labels and the most tokens of one moment, for each series of a metric."""
    developer = {"resource_container": "projects/acme-gemini-sandbox", "location": "global"}
    if metric == PAID_INPUT:
        return [({"model": m}, CONSUMER, developer, n) for m, n in (("gemini-3.5-flash", 90_000), PAID_PRO)]
    if metric == FREE_INPUT:
        return [({"model": "gemini-2.5-flash-lite"}, CONSUMER, developer, 20_000)]
    if metric == OUTPUT:
        models = (("gemini-3.5-flash", 9_000), ("gemini-2.5-pro", 5_000), ("gemini-2.5-flash-lite", 2_000))
        return [({"model": m, "thinking_enabled": "true"}, CONSUMER, developer, n) for m, n in models]
    kinds: list[tuple[Labels, str, Labels, int]] = []
    for model, publisher, location in (
        ("gemini-2.5-flash", "google", "us-central1"),
        ("claude-sonnet-4-5@20250929", "anthropic", "us-east5"),
        ("gemini-sandbox-unpriced", "google", "global"),
    ):
        resource = {"project_id": "acme-gemini-sandbox", "model_user_id": model, "publisher": publisher}
        for direction, modality, most in (
            ("input", "TEXT", 60_000),
            ("input", "AUDIO", 9_000),
            ("output", "TEXT", 7_000),
        ):
            if modality == "AUDIO" and publisher != "google":
                continue
            source = "batch_us-central1" if model == "gemini-2.5-flash" and modality == "TEXT" else location
            labels = {"type": direction, "modality": modality, "request_type": "shared", "source": source}
            kinds.append((labels, PUBLISHER_MODEL, {**resource, "location": location}, most))
    return kinds


PAID_PRO = ("gemini-2.5-pro", 50_000)


def series_of(seed: int, metric: str, start: datetime, end: datetime, *, late: bool) -> list[Series]:
    """Return the series of a metric between two moments; without ``late``, what arrives late is not there yet."""
    series = []
    for labels, resource_type, resource, most in _kinds(metric):
        tokens: dict[datetime, int] = defaultdict(int)
        day = start.date()
        while day <= end.date():
            for at, count, is_late in _moments(f"{seed}/{metric}/{sorted(labels.items())}/{resource}", day, most):
                if start < at <= end and (late or not is_late):
                    tokens[at] += count
            day += timedelta(days=1)
        if tokens:
            series.append(Series(labels, resource_type, resource, tuple(sorted(tokens.items()))))
    return series


def _moments(name: str, day: date, most: int) -> list[tuple[datetime, int, bool]]:
    rng = random.Random(f"gemini/{name}/{day}")
    midnight = datetime.combine(day, time(), UTC)
    return [
        (midnight + timedelta(seconds=rng.randrange(1, 86_400)), rng.randrange(most // 10, most), rng.random() < LATE)
        for _ in range(rng.randint(2, 4))
    ]
