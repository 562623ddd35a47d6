"""Topics ``step-<ps_type>``: one function per processor type, so that each has its own scaling, memory and timeout.

The functions differ only in name and topic. ``step_genai_payg_usage`` serves ``genai.payg_usage``.
"""

import re
from collections.abc import Callable

import functions_framework
from cloudevents.http import CloudEvent

from common.bootstrap import engine
from common.processors.registry import PROCESSORS
from common.runs.topics import read_order
from functions.authorization import authorized
from functions.events import message_data

StepFunction = Callable[[CloudEvent], None]


def function_name(ps_type: str) -> str:
    """Return the name of a processor type's function: ``step_`` and the type in snake case."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", ps_type).lower()
    return "step_" + re.sub(r"[^a-z0-9]+", "_", snake)


def _step_function(ps_type: str) -> StepFunction:
    def step(event: CloudEvent) -> None:
        engine().run_step(*read_order(message_data(event)))

    step.__name__ = step.__qualname__ = function_name(ps_type)
    step.__doc__ = f"Make one attempt of a {ps_type} step."
    function: StepFunction = functions_framework.cloud_event(authorized(step))
    return function


STEP_FUNCTIONS: dict[str, StepFunction] = {function_name(ps_type): _step_function(ps_type) for ps_type in PROCESSORS}
"""Every step function by its name, for ``main.py`` to export."""
