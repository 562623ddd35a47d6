"""Topic ``dead-letters``: a message that no function could take ends the run or step it was about, with the reason."""

import functions_framework
from cloudevents.http import CloudEvent

from common.bootstrap import engine
from common.platform.errors import NotFoundError, PermanentError
from common.platform.logs import logger
from common.runs.topics import read_dead
from functions.events import message_data, message_source
from functions.locks import locked


@functions_framework.cloud_event
@locked
def dead_letter(event: CloudEvent) -> None:
    """Put the reason on the run. A message that names no run is only logged: it stays among the dead letters."""
    topic = message_source(event)
    try:
        run_id, step_id, attempt = read_dead(message_data(event))
        engine().message_died(
            run_id,
            step_id,
            attempt,
            f"its message on topic {topic} was given up after too many failed deliveries; "
            "the function's log tells why. Mend that, then rerun.",
        )
    except (PermanentError, NotFoundError) as error:
        logger.error("A dead letter of topic %r could not be traced to a run: %s", topic, error)
