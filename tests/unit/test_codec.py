"""Documents of runs and steps as stores keep them."""

import json
from datetime import UTC, datetime

import pytest

from common.domain.model import Receipt, Step, StepSpec, StepStatus
from common.runs.codec import decode_step, encode_step

SPEC = StepSpec("extract", "noop")
AT = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)


def test_a_step_comes_back_as_it_was_stored() -> None:
    step = Step(SPEC, StepStatus.RUNNING, version=3, attempt=2, lease_until=AT, fence=7)
    assert decode_step(encode_step(step), 3, SPEC) == step


def test_a_step_whose_output_is_called_deadline_comes_back_as_it_was_stored() -> None:
    step = Step(SPEC, StepStatus.SUCCEEDED, version=1, receipt=Receipt(outputs={"deadline": 1}))
    assert decode_step(encode_step(step), 1, SPEC) == step


@pytest.mark.parametrize(
    ("status", "field"),
    [(StepStatus.RUNNING, "lease_until"), (StepStatus.RETRYING, "resend_at"), (StepStatus.SUSPENDED, "resend_at")],
)
def test_a_step_that_an_earlier_version_stored_keeps_its_time_limit(status: StepStatus, field: str) -> None:
    old = json.loads(encode_step(Step(SPEC, status, attempt=1))) | {"deadline": AT.isoformat()}
    for body in (json.dumps(old, separators=(",", ":")), json.dumps(old, separators=(",", ":")).encode()):
        step = decode_step(body, 1, SPEC)
        assert getattr(step, field) == step.due_at == AT
