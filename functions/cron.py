"""Topic ``cron``, from Cloud Scheduler every minute: starts the runs that pipelines' schedules want."""

import functions_framework
from cloudevents.http import CloudEvent

from common.bootstrap import engine
from functions.authorization import authorized


@functions_framework.cloud_event
@authorized
def cron(_event: CloudEvent) -> None:
    """Start what has become due since the last call. The event's content is ignored: the mark says what is due."""
    engine().tick()
