"""When the next attempt of a step is due. Pure: the chance in it comes from a name, so a replay gets the same."""

import hashlib

from common.domain.model import RetryPolicy

FRACTIONS = 2**64


def rest_seconds(policy: RetryPolicy, attempt: int, *, asked_s: float = 0.0, name: str = "") -> float:
    """Return how long to rest after ``attempt`` (counted from 1) has failed.

    The backoff grows by its multiplier with each attempt, up to its maximum. Jitter only adds: a retry is never
    earlier than asked, neither by the policy nor by the other side (``asked_s``, as in Retry-After, however long).
    ``name`` tells retries apart, so that steps that failed together do not come back together.
    """
    backoff = min(policy.backoff_seconds * policy.backoff_multiplier ** (attempt - 1), policy.max_backoff_seconds)
    return max(backoff, asked_s) + backoff * policy.jitter * _fraction(f"{name} {attempt}")


def longest_rests_seconds(policy: RetryPolicy) -> float:
    """Return the time that all rests of a step may take together, without what other sides ask for."""
    rests = (rest_seconds(policy, attempt) for attempt in range(1, policy.max_attempts))
    return sum(rests) * (1 + policy.jitter)


def _fraction(name: str) -> float:
    """Return a number from 0 to below 1 that looks random and is always the same for one name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / FRACTIONS
