"""When the next attempt of a step is due. Pure: jitter derives from a name, so a replay gets the same times."""

import hashlib

from common.domain.model import RetryPolicy

FRACTIONS = 2**64


def rest_seconds(policy: RetryPolicy, attempt: int, *, asked_s: float = 0.0, name: str = "") -> float:
    """Return the seconds to wait after ``attempt`` (counted from 1) has failed.

    The backoff grows by its multiplier with each attempt, up to its maximum. Jitter only adds: a retry is never
    earlier than the policy or the other side (``asked_s``, as in Retry-After, however long) requests. ``name`` seeds
    the jitter, so that steps that failed together are not retried together.
    """
    backoff = min(policy.backoff_seconds * policy.backoff_multiplier ** (attempt - 1), policy.max_backoff_seconds)
    return max(backoff, asked_s) + backoff * policy.jitter * _fraction(f"{name} {attempt}")


def longest_rests_seconds(policy: RetryPolicy) -> float:
    """Return the seconds that all backoffs of a step may take together, without any Retry-After."""
    rests = (rest_seconds(policy, attempt) for attempt in range(1, policy.max_attempts))
    return sum(rests) * (1 + policy.jitter)


def _fraction(name: str) -> float:
    """Return a number in [0, 1) that looks random and is always the same for a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / FRACTIONS
