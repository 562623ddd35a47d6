"""Topic ``step-completed``: applies an attempt's result and dispatches the steps that it unblocks."""

import functions_framework
from cloudevents.http import CloudEvent

from common.bootstrap import engine
from common.runs.topics import read_completed
from functions.authorization import authorized
from functions.events import message_data


@functions_framework.cloud_event
@authorized
def advance(event: CloudEvent) -> None:
    """Apply the result of an attempt to its run."""
    engine().advance(*read_completed(message_data(event)))
