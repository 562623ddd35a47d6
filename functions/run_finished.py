"""Topic ``run-finished``: notifies an organisation's channels that a run has ended."""

import functions_framework
from cloudevents.http import CloudEvent

from common.bootstrap import engine
from common.runs.topics import read_run_id
from functions.authorization import authorized
from functions.events import message_data


@functions_framework.cloud_event
@authorized
def run_finished(event: CloudEvent) -> None:
    """Send the notifications of an ended run."""
    engine().run_finished(read_run_id(message_data(event)))
