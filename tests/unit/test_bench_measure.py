"""The benchmark's figures, computed by hand."""

import json
from dataclasses import replace

import pytest

from tests.bench.measure import Result, percentile, table, to_json

TEN = [float(n) for n in range(1, 11)]
# 4 runs of 3 steps in 2 s: 2 runs/s; 0.6 CPU seconds over 12 steps: 50 per 1,000.
FOUR = Result("ours", runs=4, steps_per_run=3, seconds=2.0, latencies_ms=(40.0, 10.0, 30.0, 20.0), cpu_s=0.6)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        (TEN, 50, 5.0),  # rank 5
        (TEN, 51, 6.0),  # rank 5.1, so the sixth
        (TEN, 99, 10.0),  # rank 9.9
        (TEN, 100, 10.0),
        (TEN, 1, 1.0),  # rank 0.1
        ([7.0], 50, 7.0),
        ([1.0, 2.0, 3.0], 50, 2.0),  # rank 1.5
        ([float(n) for n in range(1, 201)], 99, 198.0),
        # 0.99 * 100 and 0.07 * 100 are no whole numbers in binary; the rank must be one all the same.
        ([float(n) for n in range(1, 101)], 99, 99.0),
        ([float(n) for n in range(1, 101)], 7, 7.0),
    ],
)
def test_a_percentile_is_the_value_at_the_nearest_rank(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_a_percentile_outside_the_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="at most 100"):
        percentile(TEN, percent)


def test_nothing_measured_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="nothing measured"):
        percentile([], 50)


def test_a_result_sorts_its_latencies_before_it_ranks_them() -> None:
    assert FOUR.latencies_ms == (10.0, 20.0, 30.0, 40.0)
    assert (FOUR.p50_ms, FOUR.p99_ms) == (20.0, 40.0)


def test_rates_are_per_second_and_per_thousand_steps() -> None:
    assert FOUR.runs_per_s == 2.0
    assert FOUR.cpu_s_per_1000_steps == pytest.approx(50.0)


def test_the_json_holds_the_figures_and_no_single_latency() -> None:
    assert json.loads(to_json([FOUR])) == [
        {
            "name": "ours",
            "runs": 4,
            "steps_per_run": 3,
            "seconds": 2.0,
            "runs_per_s": 2.0,
            "p50_ms": 20.0,
            "p99_ms": 40.0,
            "cpu_s": 0.6,
            "cpu_s_per_1000_steps": pytest.approx(50.0),
        }
    ]


def test_the_table_lines_names_up_left_and_figures_right() -> None:
    text = table([FOUR, replace(FOUR, name="the peer", seconds=0.016)])
    assert text.splitlines() == [
        "          runs  runs/s  p50 ms  p99 ms  CPU s/1000 steps",
        "ours         4     2.0    20.0    40.0             50.00",
        "the peer     4   250.0    20.0    40.0             50.00",
    ]
