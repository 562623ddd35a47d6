"""Random pipelines: small, and with every feature that decides when a step starts and how often."""

from random import Random

from common.domain.model import ErrorKind, MapSpec, RetryPolicy, StepSpec

MOODS = ("steady", "steady", "steady", "flaky", "slow", "waits", "broken", "mixed")
TRANSIENT = [str(kind) for kind in ErrorKind]


def random_specs(rng: Random) -> tuple[StepSpec, ...]:
    """Return one to eight steps; each depends on some of those before it."""
    steps: list[StepSpec] = []
    for number in range(rng.choice((1, 2, 3, 3, 4, 5, 8))):
        before = [step.step_id for step in steps]
        shape = rng.random()  # some pipelines are chains, some wide, most in between
        after = tuple(name for name in before if rng.random() < (0.25 if shape < 0.3 else 0.6))
        steps.append(_step(rng, f"s{number}", after or (tuple(before[-1:]) if shape > 0.4 else ())))
    return tuple(steps)


def _step(rng: Random, step_id: str, after: tuple[str, ...]) -> StepSpec:
    condition, mapped = "", None
    if after and rng.random() < 0.15:
        condition = f"steps.{rng.choice(after)}.rows > {rng.choice((-1, 2, 5))}"
    if after and rng.random() < 0.3:
        kind = rng.choice(("items", "days"))
        mapped = MapSpec(f"{rng.choice(after)}.outputs.{kind}", rng.choice((1, 2, 3, 10)), dates=kind == "days")
    return StepSpec(
        step_id,
        rng.choice(("alpha", "beta")),
        after,
        timeout_seconds=rng.choice((30, 60, 300)),
        retry=random_policy(rng),
        max_wait_seconds=rng.choice((60, 600)),
        condition=condition,
        map=mapped,
        allow_failure=rng.random() < 0.15,
        always=bool(after) and rng.random() < 0.15,
        config={
            "mood": rng.choice(MOODS),
            "writes": rng.random() < 0.7,
            "item": "{item}" if mapped else None,
            "list": rng.choice((0, 1, 2, 3, 5)),
        },
    )


def random_policy(rng: Random) -> RetryPolicy:
    """Return how a step is retried: often not at all."""
    return RetryPolicy(
        max_attempts=rng.choice((1, 2, 3, 4)),
        backoff_seconds=rng.choice((0.0, 1.0, 20.0, 100.0)),
        backoff_multiplier=rng.choice((1.0, 2.0, 3.0)),
        max_backoff_seconds=rng.choice((30.0, 600.0)),
        jitter=rng.choice((0.0, 0.5)),
        retry_on=tuple(rng.sample(TRANSIENT, 4)) if rng.random() < 0.2 else (),
    )
