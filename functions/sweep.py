"""Topic ``sweep``, from Cloud Scheduler every minute: re-drives what was lost, ends what is overdue, lets runs in."""

import functions_framework
from cloudevents.http import CloudEvent

from common.bootstrap import engine
from functions.locks import locked


@functions_framework.cloud_event
@locked
def sweep(_event: CloudEvent) -> None:
    """Look at every run that is past a deadline. The event's content does not matter."""
    engine().sweep()
