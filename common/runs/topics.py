"""Commands and results as messages, and back: the wire format between the functions.

===================  ==================================  ======================================
topic                who listens                         data
===================  ==================================  ======================================
``runs``             ``start_run``                       run_id
``step-<ps_type>``   the step function of that ps_type   run (as one step needs it), step
``step-completed``   ``advance``                         run_id, step, the attempt's result
``run-finished``     ``run_finished``                    run_id
``dead-letters``     ``dead_letter``                     of a message that was given up
===================  ==================================  ======================================

A message carries the step as it was when it was sent, with its version. The receiver acts on it without reading the
store, whose compare-and-set refuses a stale one. That saves a read per hop. Messages carry no rows and no secrets.
"""

from collections.abc import Iterable, Mapping
from copy import replace
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from common.domain.graph import work_order
from common.domain.messages import AnnounceRunFinished, AttemptFailed, AttemptSucceeded, Command, DispatchStep, StartRun
from common.domain.model import ErrorKind, Receipt, Run, Step
from common.platform.errors import PermanentError
from common.platform.strict import STRICT, StrictModel
from common.ports.bus import Message
from common.runs.codec import plain_receipt, plain_run, plain_step

RUNS = "runs"
STEP_COMPLETED = "step-completed"
RUN_FINISHED = "run-finished"
DEAD_LETTERS = "dead-letters"
DEAD_LETTER_SOURCE = "CloudPubSubDeadLetterSourceSubscription"
"""The attribute in which Pub/Sub names the subscription that gave up a dead letter; the embedded bus does the same."""


def step_topic(ps_type: str) -> str:
    """Return the topic of a processor type."""
    return f"step-{ps_type}"


class RunMessage(StrictModel):
    """Data of ``runs`` and ``run-finished``."""

    run_id: str


@dataclass(frozen=True, slots=True)
class _Order:
    """Data of ``step-<ps_type>``: a run with one spec, and its step as it was when the message was sent."""

    __pydantic_config__: ClassVar = STRICT

    run: Run
    step: Step


@dataclass(frozen=True, slots=True)
class _Succeeded:
    """Data of ``step-completed``."""

    __pydantic_config__: ClassVar = STRICT

    run_id: str
    step: Step
    outcome: Literal["succeeded"]
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class _Failed:
    """Data of ``step-completed``."""

    __pydantic_config__: ClassVar = STRICT

    run_id: str
    step: Step
    outcome: Literal["failed"]
    error: str
    # Earlier versions wrote a permanent failure's kind as "": a message of theirs may be on its way during a rollout.
    kind: Annotated[ErrorKind | None, BeforeValidator(lambda kind: kind or None)] = None
    retry_after_s: Annotated[float, Field(ge=0)] = 0.0


_RUN = TypeAdapter(RunMessage)
_ORDER = TypeAdapter(_Order)
_RESULT: TypeAdapter[_Succeeded | _Failed] = TypeAdapter(
    Annotated[_Succeeded | _Failed, Field(discriminator="outcome")]
)


def messages(run: Run, commands: Iterable[Command]) -> list[Message]:
    """Return the messages for these commands. Those that the store itself carries out have none."""
    outgoing: list[Message] = []
    for command in commands:
        match command:
            case StartRun(run_id):
                outgoing.append(Message(RUNS, run_id, {"run_id": run_id}))
            case DispatchStep(step):
                # The version after the commit that sends it: with the one before, the first claim would be stale.
                current = run.steps.get(step.step_id)
                if current is not None and current.attempt == step.attempt:
                    step = replace(step, version=current.version)
                data = {"run": plain_run(work_order(run, step)), "step": plain_step(step)}
                outgoing.append(Message(step_topic(step.spec.ps_type), run.run_id, data, step.not_before))
            case AnnounceRunFinished(run_id):
                outgoing.append(finished(run_id))
    return outgoing


def finished(run_id: str) -> Message:
    """Return the message that a run has ended."""
    return Message(RUN_FINISHED, run_id, {"run_id": run_id})


def completed(run_id: str, step: Step, result: AttemptSucceeded | AttemptFailed) -> Message:
    """Return the message that reports the result of the step's current attempt to ``advance``."""
    data: dict[str, Any] = {"run_id": run_id, "step": plain_step(step)}
    if isinstance(result, AttemptSucceeded):
        data |= {"outcome": "succeeded", "receipt": plain_receipt(result.receipt)}
    else:
        data |= {
            "outcome": "failed",
            "error": result.error,
            "kind": result.kind,
            "retry_after_s": result.retry_after_s,
        }
    return Message(STEP_COMPLETED, run_id, data)


def read_run_id(data: Mapping[str, Any]) -> str:
    """Return the run id of a ``runs`` or ``run-finished`` message."""
    return _checked(_RUN, data).run_id


def read_order(data: Mapping[str, Any]) -> tuple[Run, Step]:
    """Return the reduced run and the step of a ``step-<ps_type>`` message."""
    order = _checked(_ORDER, data)
    run, step = order.run, order.step
    if len(run.specs) != 1 or run.specs[0].step_id != step.step_id:
        raise PermanentError("The message can't be read: its run must have the spec of its step, and no other.")
    return run, replace(step, spec=run.specs[0])


def read_completed(data: Mapping[str, Any]) -> tuple[str, Step, AttemptSucceeded | AttemptFailed]:
    """Return run id, step and result of a ``step-completed`` message. The step's spec is a name only."""
    body = _checked(_RESULT, data)
    step = body.step
    if isinstance(body, _Failed):
        failed = AttemptFailed(step.step_id, step.attempt, body.error, body.kind, body.retry_after_s)
        return body.run_id, step, failed
    return body.run_id, step, AttemptSucceeded(step.step_id, step.attempt, body.receipt)


def read_dead(data: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return (run id, step id, attempt) that a message was about; no step for a run's own messages.

    The data alone says so. The subscription that gave the message up does not: Eventarc names its own.
    """
    if "outcome" in data:
        run_id, step, _ = read_completed(data)
        return run_id, step.step_id, step.attempt
    if "step" in data:
        run, step = read_order(data)
        return run.run_id, step.step_id, step.attempt
    return read_run_id(data), "", 0


def _checked[T](adapter: TypeAdapter[T], data: Mapping[str, Any]) -> T:
    try:
        return adapter.validate_python(data)
    except ValidationError as error:  # permanent: a redelivery would bring the same data
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "data"
        raise PermanentError(f"The message can't be read: {where}: {first['msg']}.") from error
