"""Topic ``dead-letters``: a message that no function could process fails its run or step, with the reason."""

import functions_framework
from cloudevents.http import CloudEvent

from common.bootstrap import engine
from common.platform.errors import NotFoundError, PermanentError
from common.platform.logs import logger
from common.runs.topics import read_dead
from functions.authorization import authorized
from functions.events import message_data, message_source


@functions_framework.cloud_event
@authorized
def dead_letter(event: CloudEvent) -> None:
    """Fail the message's run or step. A message that names no run is only logged."""
    topic = message_source(event)
    try:
        run_id, step_id, attempt = read_dead(message_data(event))
        engine().message_died(
            run_id,
            step_id,
            attempt,
            f"its message on topic {topic} became a dead letter after too many failed deliveries; "
            "the function's log says why. Fix the cause, then rerun.",
        )
    except (PermanentError, NotFoundError) as error:
        # Not raised: a redelivery could not find the run either, and dead letters are redelivered without end.
        logger.error("A dead letter of topic %r could not be traced to a run: %s", topic, error)
