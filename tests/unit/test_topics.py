"""The wire format between functions: what goes out comes back the same, anything else is refused."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from common.domain.messages import (
    AnnounceRunFinished,
    AttemptFailed,
    AttemptSucceeded,
    DispatchStep,
    SettleReservation,
    StartRun,
)
from common.domain.model import ErrorKind, Receipt, RetryPolicy, Run, RunRequest, RunStatus, Step, StepSpec, StepStatus
from common.platform.errors import PermanentError
from common.runs.topics import completed, messages, read_completed, read_dead, read_order, read_run_id

AT = datetime(2026, 11, 21, tzinfo=UTC)
DAY = date(2026, 11, 20)
SPEC = StepSpec("s", "genai.payg_usage", ("before",), 90, RetryPolicy(3, 5), config={"money": "0.10"})
RETRYING = Step(SPEC, StepStatus.RETRYING, version=7, attempt=2, since=AT, not_before=AT, error="busy")
OTHER = Step(StepSpec("before", "x"), StepStatus.SUCCEEDED, version=3)
RUN = Run(
    RunRequest("r", "acme", "a/b/c", DAY, DAY, AT),
    RunStatus.RUNNING,
    5,
    specs=(OTHER.spec, SPEC),
    steps={"before": OTHER, "s": RETRYING},
)


def test_each_command_becomes_the_message_of_its_topic() -> None:
    commands = [
        StartRun("r"),
        DispatchStep(RETRYING),
        SettleReservation("r", RunStatus.FAILED),
        AnnounceRunFinished("r"),
    ]
    sent = messages(RUN, commands)
    assert [(m.topic, m.not_before) for m in sent] == [
        ("runs", None),
        ("step-genai.payg_usage", AT),
        ("run-finished", None),
    ]
    assert read_run_id(sent[0].data) == "r"


def test_a_step_message_carries_the_run_as_this_one_step_needs_it() -> None:
    order, step = read_order(json.loads(json.dumps(messages(RUN, [DispatchStep(RETRYING)])[0].data)))
    assert step == RETRYING
    assert order.request == RUN.request and order.specs == (SPEC,) and not order.steps


def test_a_step_message_carries_the_version_that_its_own_commit_made() -> None:
    before = replace(RETRYING, version=6)
    _, step = read_order(messages(RUN, [DispatchStep(before)])[0].data)
    assert step.version == 7


@pytest.mark.parametrize(
    "result",
    [
        AttemptSucceeded("s", 2, Receipt(3, "p.d.t", ("job",), "hash", AT, ("careful",), {"days": ["2026-01-01"]})),
        AttemptFailed("s", 2, "no such file"),
        AttemptFailed("s", 2, "busy", ErrorKind.RATE_LIMIT, retry_after_s=12.5),
    ],
)
def test_a_result_comes_back_as_it_was(result: AttemptSucceeded | AttemptFailed) -> None:
    run_id, step, read = read_completed(json.loads(json.dumps(completed("r", RETRYING, result).data)))
    assert (run_id, read) == ("r", result)
    assert replace(step, spec=SPEC) == RETRYING


@pytest.mark.parametrize("topic", ["runs", "run-finished", "step-genai.payg_usage", "step-completed"])
def test_a_dead_letter_is_traced_to_the_run_it_was_about(topic: str) -> None:
    result = AttemptFailed("s", 2, "x")
    sent = [*messages(RUN, [StartRun("r"), DispatchStep(RETRYING), AnnounceRunFinished("r")])]
    sent.append(completed("r", RETRYING, result))
    about = read_dead(next(m.data for m in sent if m.topic == topic))
    assert about == (("r", "s", 2) if topic.startswith("step") else ("r", "", 0))


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"run_id": 1},
        {"run_id": "r", "step": {}, "outcome": "maybe"},
        {"run_id": "r", "step": {}, "outcome": "succeeded"},
        {"run_id": "r", "step": {}, "outcome": "failed", "error": "x"},
        {
            "run_id": "r",
            "step": {"spec": {"step_id": "s", "ps_type": "p"}, "attempt": "x"},
            "outcome": "failed",
            "error": "",
        },
        {"run_id": "r", "step": "s", "outcome": "failed", "error": "x"},
        completed("r", RETRYING, AttemptFailed("s", 2, "x")).data | {"kind": "bad luck"},
    ],
)
def test_a_malformed_message_is_refused_with_the_field_that_is_wrong(data: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match="can't be read"):
        read_completed(data)


def test_a_message_with_more_than_it_should_have_is_refused() -> None:
    with pytest.raises(PermanentError, match="surprise"):
        read_run_id({"run_id": "r", "surprise": 1})


def test_a_permanent_failure_that_an_earlier_version_reported_is_read() -> None:
    failed = AttemptFailed("s", 2, "x")
    *_, result = read_completed(completed("r", RETRYING, failed).data | {"kind": ""})
    assert result == failed
