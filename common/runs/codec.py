"""Encodes domain values as JSON and decodes them. Decoding checks types, so a foreign or damaged document is refused.

A run and each of its steps are separate documents. A run's omits ``steps``; a step's omits all of its ``spec`` but the
names, because the run's ``specs`` hold it. Neither contains its ``version``, which the store keeps separately.
"""

import json
from copy import replace
from dataclasses import fields
from datetime import datetime
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from common.domain.model import Receipt, Run, Step, StepSpec, StepStatus
from common.domain.state import Change

_RUN_PARTS = {"version", "steps"}
_SPEC_PARTS = {field.name for field in fields(StepSpec)} - {"step_id", "ps_type"}
_STEP_PARTS: dict[str, Any] = {"version": True, "spec": _SPEC_PARTS}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def encode_run(run: Run) -> bytes:
    """Return the run's own document as JSON."""
    data: bytes = _adapter(Run).dump_json(run, exclude=_RUN_PARTS, exclude_defaults=True)
    return data


def decode_run(body: bytes | str, version: int) -> Run:
    """Return the run that ``encode_run`` wrote, without steps."""
    run: Run = _adapter(Run).validate_json(body)
    return replace(run, version=version)


def encode_step(step: Step) -> bytes:
    """Return a step's document as JSON."""
    data: bytes = _adapter(Step).dump_json(step, exclude=_STEP_PARTS, exclude_defaults=True)
    return data


def decode_step(body: bytes | str, version: int, spec: StepSpec) -> Step:
    """Return the step that ``encode_step`` wrote, now or when lease and resend time were still one field."""
    step: Step = _adapter(Step).validate_json(body)
    if step.due_at is None and _OLD_DEADLINE in (body if isinstance(body, str) else body.decode()):
        step = _with_old_deadline(step, body)
    return replace(step, version=version, spec=spec)


_OLD_DEADLINE = '"deadline":'


def _with_old_deadline(step: Step, body: bytes | str) -> Step:
    """Read ``deadline``, the one field that used to hold both times. Otherwise a step that was open during the
    deployment would never lose its lease. Remove this once no run of an older version can be open.
    """
    stored = json.loads(body)
    if "deadline" not in stored:  # the text is part of an output or error of the step
        return step
    at = _adapter(datetime).validate_python(stored["deadline"])
    running = step.status is StepStatus.RUNNING
    return replace(step, lease_until=at) if running else replace(step, resend_at=at)


def encode_changes(changes: tuple[Change, ...]) -> bytes:
    """Return the changes of one commit as a JSON array."""
    data: bytes = _adapter(tuple[Change, ...]).dump_json(changes)
    return data


def decode_changes(body: bytes | str) -> tuple[Change, ...]:
    """Return the changes that ``encode_changes`` wrote."""
    changes: tuple[Change, ...] = _adapter(tuple[Change, ...]).validate_json(body)
    return changes


def plain_run(run: Run) -> dict[str, Any]:
    """Return the run's document as JSON data."""
    data: dict[str, Any] = _adapter(Run).dump_python(run, mode="json", exclude=_RUN_PARTS, exclude_defaults=True)
    return data


def plain_step(step: Step) -> dict[str, Any]:
    """Return the step's document as JSON data, with its version."""
    parts: dict[str, Any] = {"spec": _SPEC_PARTS}
    data: dict[str, Any] = _adapter(Step).dump_python(step, mode="json", exclude=parts, exclude_defaults=True)
    return data


def plain_receipt(receipt: Receipt) -> dict[str, Any]:
    """Return the receipt as JSON data."""
    data: dict[str, Any] = _adapter(Receipt).dump_python(receipt, mode="json", exclude_defaults=True)
    return data
