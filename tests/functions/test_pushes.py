"""Every form in which Pub/Sub and Eventarc send a message reaches its function with the same data, or is refused.

The bodies are those of Google's pages: https://cloud.google.com/pubsub/docs/push ("Receive push messages"),
https://cloud.google.com/pubsub/docs/payload-unwrapping, https://cloud.google.com/eventarc/docs/cloudevents and
https://github.com/googleapis/google-cloudevents/blob/main/examples/structured/pubsub/MessagePublishedData.json, with
our data, attributes and names in them.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from werkzeug.test import Client

from common import bootstrap
from common.access.invokers import Invokers
from common.runs.topics import DEAD_LETTER_SOURCE
from functions.authorization import TOKEN_HEADER
from functions.pushes import event_of_push
from tests.harness import INVOKER_TOKEN, app

RUN = "run_" + "0" * 32
DATA = json.dumps({"run_id": RUN}).encode()
NUMBER, AT = "2070443601311540", "2021-02-26T19:13:55.749Z"
SUBSCRIPTION = "projects/myproject/subscriptions/mysubscription"
DEAD = {
    "key": RUN,
    DEAD_LETTER_SOURCE: "runs",
    f"{DEAD_LETTER_SOURCE}Project": "myproject",
    "CloudPubSubDeadLetterSourceDeliveryCount": "10",
    "CloudPubSubDeadLetterSourceTopicPublishTime": AT,
}

Request = tuple[Mapping[str, str], bytes]


def message(data: bytes | None, attributes: Mapping[str, str]) -> dict[str, Any]:
    """A message as a push subscription has it: both spellings of id and time; no data if it has none."""
    encoded = {} if data is None else {"data": base64.b64encode(data).decode()}
    names = {"messageId": NUMBER, "message_id": NUMBER, "publishTime": AT, "publish_time": AT}
    return {"attributes": attributes, **encoded, **names}


def wrapped(data: bytes | None, attributes: Mapping[str, str], **more: Any) -> Request:
    body = {"message": message(data, attributes) | more.pop("message", {}), "subscription": SUBSCRIPTION, **more}
    return {"Content-Type": "application/json"}, json.dumps(body).encode()


def ordered(data: bytes | None, attributes: Mapping[str, str]) -> Request:
    """With an ordering key; the delivery attempt is there because the subscription has dead letters."""
    return wrapped(data, attributes, deliveryAttempt=5, message={"orderingKey": "key"})


def old_names(data: bytes | None, attributes: Mapping[str, str]) -> Request:
    """As services that imitate Pub/Sub send it: the names in snake case alone."""
    headers, body = wrapped(data, attributes)
    push = json.loads(body)
    del push["message"]["messageId"], push["message"]["publishTime"]
    return headers, json.dumps(push).encode()


def unwrapped(data: bytes | None, attributes: Mapping[str, str]) -> Request:
    metadata = {"subscription-name": SUBSCRIPTION, "message-id": NUMBER, "publish-time": AT, "ordering-key": "key"}
    headers = {f"x-goog-pubsub-{name}": value for name, value in metadata.items()}
    return {**headers, "Content-Type": "application/x-www-form-urlencoded", **attributes}, data or b""


def metadata_on_a_wrapped_push(data: bytes | None, attributes: Mapping[str, str]) -> Request:
    return {**unwrapped(data, {})[0], **wrapped(data, {})[0]}, wrapped(data, attributes)[1]


CE = {
    "id": NUMBER,
    "source": "//pubsub.googleapis.com/projects/myproject/topics/mytopic",
    "specversion": "1.0",
    "type": "google.cloud.pubsub.topic.v1.messagePublished",
    "time": AT,
}


def binary(data: bytes | None, attributes: Mapping[str, str]) -> Request:
    headers, body = wrapped(data, attributes)
    return {**headers, **{f"ce-{name}": value for name, value in CE.items()}}, body


def structured(data: bytes | None, attributes: Mapping[str, str]) -> Request:
    event = {**CE, "datacontenttype": "application/json", "data": json.loads(wrapped(data, attributes)[1])}
    return {"Content-Type": "application/cloudevents+json; charset=utf-8"}, json.dumps(event).encode()


FORMS: dict[str, Callable[[bytes | None, Mapping[str, str]], Request]] = {
    "wrapped": wrapped,
    "wrapped, ordered, with its delivery attempt": ordered,
    "wrapped, names in snake case": old_names,
    "wrapped, with metadata as headers too": metadata_on_a_wrapped_push,
    "unwrapped, with metadata": unwrapped,
    "CloudEvent, binary": binary,
    "CloudEvent, structured": structured,
}


class Recorder:
    """In the engine's place: notes what it was called with."""

    def __init__(self) -> None:
        self.invokers, self.called = Invokers(INVOKER_TOKEN, None), list[tuple[Any, ...]]()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *given: self.called.append((name, *given))


@pytest.fixture
def engine() -> Iterator[Recorder]:
    recorder = Recorder()
    bootstrap.use(recorder)  # type: ignore[arg-type]
    yield recorder
    bootstrap.use(None)


def post(function: str, request: Request) -> Any:
    headers, body = request
    return Client(app()).post(f"/functions/{function}/", data=body, headers={**headers, TOKEN_HEADER: INVOKER_TOKEN})


@pytest.mark.parametrize("form", FORMS)
def test_each_form_reaches_the_function_with_the_same_data(engine: Recorder, form: str) -> None:
    answer = post("start_run", FORMS[form](DATA, {"key": RUN}))
    assert answer.status_code == 200, answer.text
    assert engine.called == [("start_run", RUN)]


@pytest.mark.parametrize("source", ["runs", "projects/myproject/subscriptions/runs"])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_a_dead_letter_names_its_run_and_the_subscription_that_gave_it_up(
    engine: Recorder, form: str, source: str
) -> None:
    answer = post("dead_letter", FORMS[form](DATA, {**DEAD, DEAD_LETTER_SOURCE: source}))
    assert answer.status_code == 200, answer.text
    [(name, run_id, step_id, attempt, text)] = engine.called
    assert (name, run_id, step_id, attempt) == ("message_died", RUN, "", 0)
    assert "topic runs became a dead letter" in text


def test_a_dead_letter_of_a_subscription_that_eventarc_named_is_traced_by_its_data(engine: Recorder) -> None:
    attributes = {**DEAD, DEAD_LETTER_SOURCE: "eventarc-europe-west1-start-run-sub-042"}
    assert post("dead_letter", binary(DATA, attributes)).status_code == 200
    assert engine.called[0][:2] == ("message_died", RUN)


@pytest.mark.parametrize("form", FORMS)
def test_a_message_of_attributes_alone_wakes_the_sweep(engine: Recorder, form: str) -> None:
    answer = post("sweep", FORMS[form](None, {"key": "every minute"}))
    assert answer.status_code == 200, answer.text
    assert engine.called == [("sweep",)]


@pytest.mark.parametrize(
    "request_",
    [
        ({"Content-Type": "application/octet-stream"}, DATA),  # unwrapped, without metadata
        ({"Content-Type": "application/json"}, DATA),
        ({"Content-Type": "application/json"}, b""),
        ({**unwrapped(DATA, {})[0], "x-goog-pubsub-message-id": ""}, DATA),
        ({"Content-Type": "application/json"}, json.dumps({"message": {"data": ""}, "subscription": "s"}).encode()),
    ],
)
def test_what_has_no_id_is_refused_and_says_what_to_change(engine: Recorder, request_: Request) -> None:
    answer = post("start_run", request_)
    assert answer.status_code == 400 and answer.mimetype == "application/problem+json"
    assert "write_metadata" in answer.json["detail"] and RUN not in answer.text
    assert engine.called == []


def test_nothing_of_a_push_is_lost_on_the_way_to_its_event() -> None:
    headers, body = ordered(DATA, {"key": RUN})
    made = event_of_push(headers, body)
    assert made is not None
    assert json.loads(made[1]) == json.loads(body)
    assert made[0] == {
        **{f"ce-{name}": value for name, value in CE.items()},
        "ce-source": f"//pubsub.googleapis.com/{SUBSCRIPTION}",
        "content-type": "application/json",
    }


def test_an_unwrapped_push_has_our_attributes_and_no_other_header_for_one() -> None:
    headers, body = unwrapped(DATA, {"key": RUN, "authorization": "Bearer canary"})
    made = event_of_push(headers, body)
    assert made is not None
    push = json.loads(made[1])
    assert push == {
        "message": {
            "data": base64.b64encode(DATA).decode(),
            "attributes": {"key": RUN},
            "messageId": NUMBER,
            "publishTime": AT,
            "orderingKey": "key",
        },
        "subscription": SUBSCRIPTION,
    }


@pytest.mark.parametrize("form", ["CloudEvent, binary", "CloudEvent, structured"])
def test_a_cloud_event_is_left_as_it_is(form: str) -> None:
    assert event_of_push(*FORMS[form](DATA, {})) is None
