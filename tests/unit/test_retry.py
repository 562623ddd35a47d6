"""When the next attempt is due. Figures by hand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.config.model import RetryConfig
from common.domain.model import RetryPolicy
from common.domain.retry import longest_rests_seconds, rest_seconds

policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 10),
    backoff_seconds=st.integers(0, 600),
    backoff_multiplier=st.floats(1, 10),
    max_backoff_seconds=st.integers(0, 600),
    jitter=st.floats(0, 1),
)


def test_the_rest_grows_by_its_multiplier_up_to_its_maximum() -> None:
    policy = RetryPolicy(6, 5, backoff_multiplier=2, max_backoff_seconds=30)
    assert [rest_seconds(policy, attempt) for attempt in range(1, 6)] == [5, 10, 20, 30, 30]


def test_without_a_multiplier_every_rest_is_the_same() -> None:
    assert [rest_seconds(RetryPolicy(3, 7), attempt) for attempt in (1, 2, 3)] == [7, 7, 7]


@pytest.mark.parametrize(("asked", "rest"), [(3, 5), (5, 5), (900, 900)])
def test_what_the_other_side_asks_for_outweighs_a_shorter_backoff_and_knows_no_maximum(
    asked: float, rest: float
) -> None:
    assert rest_seconds(RetryPolicy(2, 5), 1, asked_s=asked) == rest


@given(policies, st.integers(1, 10), st.floats(0, 4000), st.text(max_size=5))
def test_a_rest_is_never_shorter_than_asked_and_jitter_never_more_than_its_share(
    policy: RetryPolicy, attempt: int, asked: float, name: str
) -> None:
    plain = RetryPolicy(
        policy.max_attempts, policy.backoff_seconds, policy.backoff_multiplier, policy.max_backoff_seconds
    )
    least = max(rest_seconds(plain, attempt), asked)
    rest = rest_seconds(policy, attempt, asked_s=asked, name=name)
    assert least <= rest <= least + policy.jitter * rest_seconds(plain, attempt)


def test_jitter_tells_steps_and_attempts_apart_and_is_the_same_in_a_replay() -> None:
    policy = RetryPolicy(9, 100, jitter=1)
    rests = [
        rest_seconds(policy, attempt, name=name) for attempt in (1, 2) for name in ("run_1 a", "run_1 b", "run_2 a")
    ]
    assert len(set(rests)) == 6
    assert rests[0] == rest_seconds(policy, 1, name="run_1 a")


@given(policies, st.text(max_size=5))
def test_the_longest_rests_are_an_upper_bound(policy: RetryPolicy, name: str) -> None:
    rests = sum(rest_seconds(policy, attempt, name=name) for attempt in range(1, policy.max_attempts))
    assert rests <= longest_rests_seconds(policy) * (1 + 1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"jitter": 1.5},
        {"jitter": -1},
        {"backoff_multiplier": 0.5},
        {"backoff_multiplier": 11},
        {"max_backoff_seconds": 601},
    ],
)
def test_a_config_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RetryConfig(**wrong)


def test_a_config_says_the_same_as_its_policy() -> None:
    assert RetryPolicy(**RetryConfig().model_dump()) == RetryPolicy()
