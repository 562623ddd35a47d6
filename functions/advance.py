"""Topic ``step-completed``: applies an attempt's result and unlocks what waited for it."""

import functions_framework
from cloudevents.http import CloudEvent

from common.bootstrap import engine
from common.runs.topics import read_completed
from functions.events import message_data
from functions.locks import locked


@functions_framework.cloud_event
@locked
def advance(event: CloudEvent) -> None:
    """Move the run on after an attempt."""
    engine().advance(*read_completed(message_data(event)))
