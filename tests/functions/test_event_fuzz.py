"""Events that are none, over HTTP and straight: a function refuses them in its own words, and never crashes.

What an event function can't take it answers with 500 on purpose: Pub/Sub then delivers the message again, and keeps it
among the dead letters at last, where somebody can look at it. So the status does not tell a refusal from a crash, and
each test looks at what was raised: PermanentError (no such message will ever be taken), NotFoundError (it names a run
that is not there) or TransientError (not now). What is no CloudEvent is answered with 4xx before the function.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cloudevents.http import CloudEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import Client

from common.platform.errors import NotFoundError, PermanentError, TransientError
from functions.authorization import TOKEN_HEADER
from functions.events import message_data, message_source
from infra.local.host import CLOCKED, SUBSCRIPTIONS
from tests.harness import INVOKER_TOKEN, Harness

DECLARED = (PermanentError, NotFoundError, TransientError)
FUNCTIONS = sorted({*SUBSCRIPTIONS.values(), *CLOCKED})
RUN = "run_" + "0" * 32
quiet = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

NAMES = st.sampled_from(
    ["run_id", "run", "step", "spec", "step_id", "specs", "request", "attempt", "outcome", "receipt"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([RUN, "succeeded", "failed", "only", "2026-11-20", "2026-11-21T06:00:00Z", 1]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=10), inner, max_size=5),
    max_leaves=15,
)
MESSAGES = st.dictionaries(NAMES | st.text(max_size=10), VALUES, max_size=6)


def encoded(data: Any) -> str:
    return base64.b64encode(json.dumps(data).encode()).decode()


BODIES = (
    st.builds(lambda data: {"message": {"data": encoded(data)}}, MESSAGES)
    | st.builds(lambda data, attributes: {"message": {"data": data, "attributes": attributes}}, VALUES, VALUES)
    | st.builds(
        lambda data, source: {"message": {"data": encoded(data), "attributes": {"dead_letter_source": source}}},
        MESSAGES,
        st.sampled_from([*SUBSCRIPTIONS, "", "nothing"]),
    )
    | VALUES
)


@contextmanager
def raised(monkeypatch: pytest.MonkeyPatch, app: Any, name: str) -> Iterator[list[BaseException]]:
    """Collect what the function raises: its framework only tells that it raised."""
    seen: list[BaseException] = []
    inner = app.mounts[f"/functions/{name}"]
    while not hasattr(inner, "handle_exception"):
        inner = inner.app
    plain = inner.handle_exception

    def handle(error: BaseException) -> Any:
        seen.append(error)
        return plain(error)

    with monkeypatch.context() as patched:
        patched.setattr(inner, "handle_exception", handle)
        yield seen


@pytest.mark.parametrize("name", FUNCTIONS)
@quiet
@given(
    body=BODIES,
    raw=st.none() | st.binary(max_size=60),
    missing=st.sampled_from(["", "ce-id", "ce-type", "ce-specversion"]),
)
def test_no_event_whatever_crashes_a_function(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, name: str, body: Any, raw: bytes | None, missing: str
) -> None:
    headers = {
        "ce-id": "1",
        "ce-source": "//pubsub.googleapis.com/projects/p/topics/t",
        "ce-specversion": "1.0",
        "ce-type": "google.cloud.pubsub.topic.v1.messagePublished",
        "Content-Type": "application/json",
        TOKEN_HEADER: INVOKER_TOKEN,
    }
    headers.pop(missing, None)
    data = json.dumps(body).encode() if raw is None else raw
    with raised(monkeypatch, harness.app, name) as seen:
        answer = Client(harness.app).post(f"/functions/{name}/", data=data, headers=headers)
    for error in seen:
        assert isinstance(error, DECLARED), repr(error)
    assert answer.status_code in (200, 400, 415, 500) and (answer.status_code == 500) == bool(seen)
    assert "Traceback" not in answer.text


@quiet
@given(data=VALUES)
def test_what_is_no_message_is_refused_in_words(data: Any) -> None:
    event = CloudEvent({"type": "t", "source": "s"}, data)
    message_source(event)
    with pytest.raises(PermanentError):
        message_data(event)


def test_a_right_message_is_told_from_a_wrong_one() -> None:
    event = CloudEvent({"type": "t", "source": "s"}, {"message": {"data": encoded({"run_id": RUN})}})
    assert message_data(event) == {"run_id": RUN}
