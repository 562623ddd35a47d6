"""Internal functions: every one of them, against every kind of caller."""

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import pytest
from werkzeug.test import Client

from common import bootstrap
from common.access.invokers import Invokers
from common.adapters.google.oidc import SIGNATURE_TAKEN_OFF
from common.adapters.sql.sqlite.bus import Delivery
from common.domain.messages import AttemptFailed
from common.platform.errors import TransientError
from common.platform.settings import Settings
from common.ports.bus import Message
from common.ports.secrets import TokenCheck
from common.runs.topics import DEAD_LETTERS, RUN_FINISHED, RUNS, STEP_COMPLETED, completed, read_order
from functions.authorization import TOKEN_HEADER
from infra.local.host import CLOCKED, SUBSCRIPTIONS, cloud_event
from tests.google_tokens import AUDIENCE, KEY_ID, checking, signer, token, unsigned
from tests.harness import INVOKER_TOKEN, PS_TYPE, Harness

NOW = int(time.time())
FUNCTIONS = {**SUBSCRIPTIONS, **{name: name for name in CLOCKED}}
"""Which function listens to which topic, the sweep's too."""


def hs256_with_the_certificate() -> str:
    """The classic: the public certificate taken for a shared secret."""
    signed = unsigned(alg="HS256").rsplit(".", 1)[0]
    digest = hmac.new(signer(KEY_ID)[1].encode(), signed.encode(), hashlib.sha256).hexdigest()
    return f"{signed}.{digest}"


def changed_after_signing() -> str:
    header, _, signature = token().split(".")
    return f"{header}.{unsigned(email='evil@x').split('.')[1]}.{signature}"


CALLERS: dict[str, tuple[Callable[[], str | None], int]] = {
    "no token": (lambda: None, 401),
    "no bearer": (lambda: f"Basic {token()}", 401),
    "an empty one": (lambda: "Bearer ", 401),
    "no JWT": (lambda: "Bearer x", 401),
    "three odd parts": (lambda: "Bearer a.b.c", 401),
    "a long one": (lambda: "Bearer " + "a" * 20_000, 401),
    "unsigned": (lambda: f"Bearer {unsigned()}", 401),
    "unsigned, said to be RS256": (lambda: f"Bearer {unsigned(alg='RS256')}", 401),
    "HS256 with the certificate": (lambda: f"Bearer {hs256_with_the_certificate()}", 401),
    "signed by a stranger": (lambda: f"Bearer {token(by='stranger')}", 401),
    "signed under an unknown key": (lambda: f"Bearer {token(key_id='other')}", 401),
    "signed under no key": (lambda: f"Bearer {token(key_id='')}", 401),
    "changed after signing": (lambda: f"Bearer {changed_after_signing()}", 401),
    "signature taken off": (lambda: f"Bearer {unsigned(SIGNATURE_TAKEN_OFF, alg='RS256')}", 401),
    "wrong issuer": (lambda: f"Bearer {token(iss='https://securetoken.google.com/x')}", 401),
    "no issuer": (lambda: f"Bearer {token(iss=None)}", 401),
    "wrong audience": (lambda: f"Bearer {token(aud='https://elsewhere')}", 401),
    "no audience": (lambda: f"Bearer {token(aud=None)}", 401),
    "several audiences": (lambda: f"Bearer {token(aud=[AUDIENCE])}", 401),
    "expired": (lambda: f"Bearer {token(iat=NOW - 7_200, exp=NOW - 3_600)}", 401),
    "not valid yet": (lambda: f"Bearer {token(iat=NOW + 3_600, exp=NOW + 7_200)}", 401),
    "without an end": (lambda: f"Bearer {token(exp=None)}", 401),
    "wrong account": (lambda: f"Bearer {token(email='other@pipeline-ops-test.iam.gserviceaccount.com')}", 403),
    "no account": (lambda: f"Bearer {token(email=None)}", 403),
    "account not verified": (lambda: f"Bearer {token(email_verified=False)}", 403),
    "account verified in words": (lambda: f"Bearer {token(email_verified='true')}", 403),
    "right": (lambda: f"Bearer {token()}", 200),
}


class Recorder:
    """In the engine's place: notes what a function that was let in did."""

    def __init__(self, invokers: Invokers) -> None:
        self.invokers, self.called = invokers, list[str]()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_given: self.called.append(name)


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = Harness(tmp_path_factory.mktemp("locks"), monkeypatch)
        made.finish(made.start())
        yield made
    bootstrap.use(None)


@pytest.fixture(scope="module")
def messages(harness: Harness) -> dict[str, Message]:
    """A message that each function can read, by topic."""
    harness.start()
    (start,) = harness.bus.pull(1)
    harness.deliver(start)
    harness.bus.ack(start)
    (order,) = harness.bus.pull(1)
    run, step = read_order(order.message.data)
    failed = completed(run.run_id, step, AttemptFailed(step.step_id, step.attempt, "no"))
    dead = Message(DEAD_LETTERS, "k", start.message.data, source=RUNS)
    finished = Message(RUN_FINISHED, run.run_id, start.message.data)
    found = {RUNS: start.message, STEP_COMPLETED: failed, RUN_FINISHED: finished, DEAD_LETTERS: dead}
    return {topic: found.get(topic, order.message) for topic in FUNCTIONS}


def call(harness: Harness, message: Message, function: str, **headers: str | None) -> Any:
    made, body = cloud_event(Delivery(1, message, harness.clock.now, 1), "p", None)
    more = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
    return Client(harness.app).post(f"/functions/{function}/", data=body, headers={**made, **more})


def use(invokers: Invokers) -> Recorder:
    recorder = Recorder(invokers)
    bootstrap.use(recorder)  # type: ignore[arg-type]
    return recorder


@pytest.mark.parametrize("caller", list(CALLERS))
@pytest.mark.parametrize("topic", list(FUNCTIONS))
def test_a_function_lets_in_the_configured_account_alone(
    harness: Harness, messages: dict[str, Message], topic: str, caller: str
) -> None:
    recorder = use(Invokers(None, checking))
    make, status = CALLERS[caller]
    header = make()
    answer = call(harness, messages[topic], FUNCTIONS[topic], Authorization=header)
    assert answer.status_code == status, answer.text
    assert bool(recorder.called) == (status == 200)
    assert header is None or len(header) < 30 or header.removeprefix("Bearer ") not in answer.text


@pytest.mark.parametrize("topic", list(FUNCTIONS))
@pytest.mark.parametrize(
    ("query", "header", "status"),
    [
        ("", None, 401),
        ("", "wrong", 401),
        ("?token=wrong", None, 401),
        ("?token=", "", 401),
        ("", INVOKER_TOKEN, 200),
        (f"?token={INVOKER_TOKEN}", None, 200),
    ],
)
def test_a_local_function_lets_in_its_own_process_alone(
    harness: Harness, messages: dict[str, Message], topic: str, query: str, header: str | None, status: int
) -> None:
    recorder = use(Invokers(INVOKER_TOKEN, None))
    made, body = cloud_event(Delivery(1, messages[topic], harness.clock.now, 1), "p", None)
    headers = made if header is None else {**made, TOKEN_HEADER: header}
    answer = Client(harness.app).post(f"/functions/{FUNCTIONS[topic]}/{query}", data=body, headers=headers)
    assert answer.status_code == status and bool(recorder.called) == (status == 200)
    assert INVOKER_TOKEN not in answer.text


@pytest.mark.parametrize("topic", list(FUNCTIONS))
@pytest.mark.parametrize("header", [None, INVOKER_TOKEN, "", "None"])
def test_a_function_that_was_told_of_nobody_refuses_everybody_and_says_what_to_set(
    harness: Harness, messages: dict[str, Message], topic: str, header: str | None
) -> None:
    recorder = use(bootstrap.build(Settings(state_dir=harness.folder / "bare")).invokers)
    bearer = f"Bearer {token()}"
    answer = call(harness, messages[topic], FUNCTIONS[topic], Authorization=bearer, **{TOKEN_HEADER: header})
    assert answer.status_code == 401 and recorder.called == []
    assert "PIPELINE_OPS_AUDIENCE" in answer.text and "PIPELINE_OPS_INVOKERS" in answer.text


@pytest.mark.parametrize("half", [{"audiences": (AUDIENCE,)}, {"invokers": ("a@b",)}])
def test_half_of_the_settings_is_none(harness: Harness, messages: dict[str, Message], half: dict[str, Any]) -> None:
    use(bootstrap.build(Settings(state_dir=harness.folder / "bare", **half)).invokers)
    answer = call(harness, messages[RUNS], "start_run", Authorization=f"Bearer {token()}")
    assert answer.status_code == 401


def test_a_local_token_in_the_cloud_opens_nothing(harness: Harness, messages: dict[str, Message]) -> None:
    recorder = use(Invokers(None, checking))
    answer = call(harness, messages[RUNS], "start_run", **{TOKEN_HEADER: INVOKER_TOKEN})
    assert answer.status_code == 401 and recorder.called == []


def test_while_googles_certificates_can_not_be_read_the_message_comes_back(
    harness: Harness, messages: dict[str, Message]
) -> None:
    class Down:
        def email(self, token: str) -> str:
            raise TransientError("Google's certificates could not be read (URLError).")

    def down() -> TokenCheck:
        return Down()

    recorder = use(Invokers(None, down))
    answer = call(harness, messages[RUNS], "start_run", Authorization=f"Bearer {token()}")
    assert answer.status_code == 503 and recorder.called == []


def test_every_function_but_the_api_is_in_this_matrix() -> None:
    import main

    assert set(main.__all__) == {*FUNCTIONS.values(), "api"}
    assert any(PS_TYPE in topic for topic in FUNCTIONS)
