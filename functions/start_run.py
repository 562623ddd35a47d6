"""Topic ``runs``: validates a pending run and dispatches its first steps."""

import functions_framework
from cloudevents.http import CloudEvent

from common.bootstrap import engine
from common.runs.topics import read_run_id
from functions.authorization import authorized
from functions.events import message_data


@functions_framework.cloud_event
@authorized
def start_run(event: CloudEvent) -> None:
    """Pin the run's config and start it."""
    engine().start_run(read_run_id(message_data(event)))
