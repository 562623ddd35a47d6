"""Commands and results as messages, and back: the wire format between the functions.

===================  ==================================  ======================================
topic                who listens                         data
===================  ==================================  ======================================
``runs``             ``start_run``                       run_id
``step-<ps_type>``   the step function of that ps_type   run_id, step_id, attempt
``step-completed``   ``advance``                         run_id, and an attempt's result
``run-finished``     ``run_finished``                    run_id
===================  ==================================  ======================================

Messages carry ids, never rows, configs or secrets: whoever gets one reads the run from the store.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common.codec import decode_receipt, encode_receipt
from common.domain.commands import AnnounceRunFinished, Command, DispatchStep, StartRun
from common.domain.events import AttemptFailed, AttemptSucceeded
from common.errors import PermanentError
from common.ports import Message

RUNS = "runs"
STEP_COMPLETED = "step-completed"
RUN_FINISHED = "run-finished"


def step_topic(ps_type: str) -> str:
    """Return the topic of a processor type."""
    return f"step-{ps_type}"


class RunMessage(BaseModel):
    """Data of ``runs`` and ``run-finished``."""

    model_config = ConfigDict(extra="forbid")

    run_id: str


class StepMessage(BaseModel):
    """Data of ``step-<ps_type>``."""

    model_config = ConfigDict(extra="forbid")

    run_id: str
    step_id: str
    attempt: int = Field(ge=1)


class _Succeeded(StepMessage):
    outcome: Literal["succeeded"] = "succeeded"
    receipt: dict[str, Any]


class _Failed(StepMessage):
    outcome: Literal["failed"] = "failed"
    error: str
    retryable: bool
    retry_after_s: float = Field(0.0, ge=0)


_RESULT: TypeAdapter[_Succeeded | _Failed] = TypeAdapter(
    Annotated[_Succeeded | _Failed, Field(discriminator="outcome")]
)


def messages(commands: Iterable[Command]) -> list[Message]:
    """Return the messages that carry these commands out. Those the store itself carries out have none."""
    found: list[Message] = []
    for command in commands:
        match command:
            case StartRun(run_id):
                found.append(Message(RUNS, run_id, {"run_id": run_id}))
            case DispatchStep(run_id, step_id, ps_type, attempt, not_before):
                data = {"run_id": run_id, "step_id": step_id, "attempt": attempt}
                found.append(Message(step_topic(ps_type), run_id, data, not_before))
            case AnnounceRunFinished(run_id):
                found.append(Message(RUN_FINISHED, run_id, {"run_id": run_id}))
    return found


def completed(run_id: str, result: AttemptSucceeded | AttemptFailed) -> Message:
    """Return the message that tells ``advance`` how an attempt ended."""
    body: StepMessage
    if isinstance(result, AttemptSucceeded):
        body = _Succeeded(
            run_id=run_id, step_id=result.step_id, attempt=result.attempt, receipt=encode_receipt(result.receipt)
        )
    else:
        body = _Failed(
            run_id=run_id,
            step_id=result.step_id,
            attempt=result.attempt,
            error=result.error,
            retryable=result.retryable,
            retry_after_s=result.retry_after_s,
        )
    return Message(STEP_COMPLETED, run_id, body.model_dump())


def read_run(data: Mapping[str, Any]) -> str:
    """Return the run id of a ``runs`` or ``run-finished`` message."""
    return _checked(TypeAdapter(RunMessage), data).run_id


def read_step(data: Mapping[str, Any]) -> StepMessage:
    """Return what a ``step-<ps_type>`` message asks for."""
    return _checked(TypeAdapter(StepMessage), data)


def read_completed(data: Mapping[str, Any]) -> tuple[str, AttemptSucceeded | AttemptFailed]:
    """Return the run id and the result of a ``step-completed`` message."""
    body = _checked(_RESULT, data)
    if isinstance(body, _Succeeded):
        return body.run_id, AttemptSucceeded(body.step_id, body.attempt, decode_receipt(body.receipt))
    return body.run_id, AttemptFailed(body.step_id, body.attempt, body.error, body.retryable, body.retry_after_s)


def _checked[T](adapter: TypeAdapter[T], data: Mapping[str, Any]) -> T:
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "data"
        raise PermanentError(f"The message can't be read: {where}: {first['msg']}.") from error
