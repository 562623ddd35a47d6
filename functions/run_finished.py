"""Topic ``run-finished``: tells that a run has ended."""

import functions_framework
from cloudevents.http import CloudEvent

from common.bootstrap import engine
from common.runs.topics import read_run_id
from functions.events import message_data
from functions.locks import locked


@functions_framework.cloud_event
@locked
def run_finished(event: CloudEvent) -> None:
    """Announce the end of a run."""
    engine().run_finished(read_run_id(message_data(event)))
