"""The wire format between functions: what goes out comes back the same, anything else is refused."""

from datetime import UTC, datetime
from typing import Any

import pytest

from common.domain.commands import AnnounceRunFinished, DispatchStep, SettleReservation, StartRun
from common.domain.events import AttemptFailed, AttemptSucceeded
from common.domain.model import Receipt
from common.errors import PermanentError
from common.topics import completed, messages, read_completed, read_run, read_step

AT = datetime(2026, 11, 21, tzinfo=UTC)


def test_each_command_becomes_the_message_of_its_topic() -> None:
    dispatch = DispatchStep("r", "s", "genai.payg_usage", 2, AT)
    sent = messages([StartRun("r"), dispatch, SettleReservation("r", True), AnnounceRunFinished("r")])
    assert [(m.topic, m.not_before) for m in sent] == [
        ("runs", None),
        ("step-genai.payg_usage", AT),
        ("run-finished", None),
    ]
    assert read_run(sent[0].data) == "r"
    asked = read_step(sent[1].data)
    assert (asked.run_id, asked.step_id, asked.attempt) == ("r", "s", 2)


@pytest.mark.parametrize(
    "result",
    [
        AttemptSucceeded("s", 1, Receipt(3, "p.d.t", ("job",), "hash", ("careful",))),
        AttemptFailed("s", 2, "no such file", retryable=False),
        AttemptFailed("s", 2, "busy", retryable=True, retry_after_s=12.5),
    ],
)
def test_a_result_comes_back_as_it_was(result: AttemptSucceeded | AttemptFailed) -> None:
    assert read_completed(completed("r", result).data) == ("r", result)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"run_id": 1},
        {"run_id": "r", "step_id": "s", "attempt": 0},
        {"run_id": "r", "step_id": "s", "attempt": 1, "outcome": "maybe"},
        {"run_id": "r", "step_id": "s", "attempt": 1, "outcome": "succeeded"},
        {"run_id": "r", "step_id": "s", "attempt": 1, "outcome": "failed", "error": "x"},
    ],
)
def test_a_malformed_message_is_refused_with_the_field_that_is_wrong(data: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match="can't be read"):
        read_completed(data)


def test_a_message_with_more_than_it_should_have_is_refused() -> None:
    with pytest.raises(PermanentError, match="surprise"):
        read_run({"run_id": "r", "surprise": 1})
