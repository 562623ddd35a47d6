"""Topic ``sweep``, from Cloud Scheduler every minute: resends lost messages, ends overdue work, admits waiting runs."""

import functions_framework
from cloudevents.http import CloudEvent

from common.bootstrap import engine
from functions.authorization import authorized


@functions_framework.cloud_event
@authorized
def sweep(_event: CloudEvent) -> None:
    """Handle every run that is past a deadline. The event's content is ignored."""
    engine().sweep()
