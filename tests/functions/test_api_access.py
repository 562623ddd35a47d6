"""Every operation × every kind of key. What belongs to somebody else looks like what does not exist."""

from dataclasses import dataclass
from typing import Any

import pytest
from werkzeug.test import TestResponse

from common.access import api_key_check as key_check
from common.access.api_keys import Scope
from common.ports.store import HistoryQuery
from functions.api import application
from functions.api.access import OPERATIONS, operation
from tests.harness import ORG, ROUTE, Harness

ABSENT = "run_" + "0" * 32
CONTROL = {"by": "ana", "reason": "because"}
WRONG_KEY = f"pops_{ORG}_k{'0' * 12}_{'0' * 64}"


@dataclass(frozen=True)
class Call:
    """A request of one operation that is right but for the key; ``{org}`` and ``{run}`` are filled in."""

    method: str
    path: str
    body: dict[str, Any] | None = None


CALLS: dict[str, Call] = {
    "runs.start": Call("POST", f"/pipelines/run/{{org}}/{ROUTE}", {}),
    "runs.status": Call("GET", "/pipelines/status/{org}/{run}"),
    "runs.history": Call("GET", "/pipelines/history/{org}"),
    "runs.cancel": Call("POST", "/pipelines/cancel/{org}/{run}", CONTROL),
    "runs.rerun": Call("POST", "/pipelines/rerun/{org}/{run}", CONTROL),
    "runs.replay": Call("POST", "/pipelines/replay/{org}/{run}", CONTROL),
    "runs.skip": Call("POST", "/pipelines/skip/{org}/{run}/only", CONTROL),
    "previews.preview": Call("GET", "/pipelines/preview/{org}/{run}"),
    "previews.promote": Call("POST", "/pipelines/promote/{org}/{run}", CONTROL),
    "previews.discard": Call("POST", "/pipelines/discard/{org}/{run}", CONTROL),
    "logs.lines": Call("GET", "/pipelines/logs/{org}/{run}"),
    "logs.steps": Call("GET", "/pipelines/logs/{org}/{run}/steps"),
    "logs.transitions": Call("GET", "/pipelines/logs/{org}/{run}/transitions"),
    "logs.download": Call("GET", "/pipelines/logs/{org}/{run}/download"),
    "pipelines.configs": Call("GET", "/pipelines/configs/{org}"),
    "pipelines.config": Call("GET", f"/pipelines/configs/{{org}}/{ROUTE}"),
    "schedules.listed": Call("GET", "/pipelines/schedules/{org}"),
    "schedules.pause": Call("POST", "/pipelines/schedules/{org}/pause", CONTROL),
    "schedules.resume": Call("POST", "/pipelines/schedules/{org}/resume", CONTROL),
    "schedules.replace": Call("PUT", f"/pipelines/schedules/{{org}}/{ROUTE}", {"timezone": "Europe/Berlin"}),
    "usage.usage": Call("GET", "/pipelines/usage/{org}"),
    "credentials.listed": Call("GET", "/pipelines/credentials/{org}"),
    "credentials.add": Call("POST", "/pipelines/credentials/{org}", {"provider": "openai", "secret": "x"}),
    "credentials.remove": Call("DELETE", "/pipelines/credentials/{org}/cred_openai"),
    "keys.listed": Call("GET", "/pipelines/keys/{org}"),
    "keys.create": Call("POST", "/pipelines/keys/{org}", {"name": "new", "scope": "read"}),
    "keys.rotate": Call("POST", "/pipelines/keys/{org}/app/rotate", {}),
    "keys.revoke": Call("DELETE", "/pipelines/keys/{org}/{key}"),
    "notifications.shown": Call("GET", "/pipelines/notifications/{org}"),
    "notifications.replace": Call("PUT", "/pipelines/notifications/{org}", {}),
    "notifications.reset": Call("DELETE", "/pipelines/notifications/{org}"),
    "notifications.test": Call("POST", "/pipelines/notifications/{org}/test", {}),
    "audit.rows": Call("GET", "/pipelines/audit/{org}"),
    "service.health": Call("GET", "/health"),
    "service.ready": Call("GET", "/ready"),
    "service.document": Call("GET", "/openapi.json"),
    "service.docs": Call("GET", "/docs"),
    "service.docs_file": Call("GET", "/docs/start.js"),
    "service.problem": Call("GET", "/problems/not-found"),
}
LOCKED = [name for name, access in OPERATIONS.items() if access.scope is not None]
OF_RUNS = [name for name, call in CALLS.items() if "{run}" in call.path]


@dataclass
class World:
    """A run, and a key of each scope."""

    harness: Harness
    run_id: str
    keys: dict[str, str]
    other: str
    key_id: str

    def call(self, name: str, key: str | None, org: str = ORG, run: str = "", prefix: str = "") -> TestResponse:
        call = CALLS[name]
        path = prefix + call.path.format(org=org, run=run or self.run_id, key=self.key_id)
        return self.harness.http(call.method, path, key=key, json=call.body)


@pytest.fixture
def world(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> World:
    cheap = {"n": 2, "r": 1, "p": 1}  # hashing takes its time on purpose, and there are hundreds of keys here
    monkeypatch.setattr(key_check, "COST", cheap)
    monkeypatch.setattr(key_check, "NOBODY", {**key_check.NOBODY, **cheap})
    keys = {str(scope): harness.key(scope=str(scope)) for scope in Scope}
    harness.engine.keys.create(ORG, "app", Scope.READ, who="test")
    spare = harness.engine.keys.create(ORG, "spare", Scope.READ, who="test")
    return World(harness, harness.start(), keys, harness.key("globex"), spare.info.key_id)


def test_every_route_is_in_the_table_of_operations_and_every_operation_has_a_call_here() -> None:
    routes = {operation(rule.endpoint) for rule in application().url_map.iter_rules()}
    assert routes == set(OPERATIONS) == set(CALLS)


def test_a_route_in_no_table_is_refused_whoever_asks(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(OPERATIONS, "runs.history")  # type: ignore[arg-type]
    answer = harness.http("GET", f"/pipelines/history/{ORG}")
    assert answer.status_code == 403 and "missing in the table" in answer.text


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
def test_without_a_key_nothing_of_an_organisation_is_answered(world: World, prefix: str) -> None:
    for name in LOCKED:
        for key in (None, WRONG_KEY, "", "x", world.keys["admin"] + "0"):
            answer = world.call(name, key, prefix=prefix)
            assert answer.status_code == 401, name
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert world.run_id not in answer.text.replace(f'"run_id": "{world.run_id}"', "")


@pytest.mark.parametrize("name", LOCKED)
def test_another_organisations_key_finds_nothing_to_the_byte(world: World, name: str) -> None:
    theirs = world.call(name, world.other, org=ORG)
    nobodys = world.call(name, world.other, org="nobody")
    absent = world.call(name, world.other, org=ORG, run=ABSENT)
    assert theirs.status_code == nobodys.status_code == absent.status_code == 404
    assert theirs.data.replace(ORG.encode(), b"nobody") == nobodys.data
    assert theirs.data.replace(world.run_id.encode(), ABSENT.encode()) == absent.data
    assert {*theirs.headers.keys()} == {*nobodys.headers.keys()} == {*absent.headers.keys()}


@pytest.mark.parametrize("name", OF_RUNS)
def test_another_organisations_run_on_ones_own_path_looks_like_one_that_does_not_exist(world: World, name: str) -> None:
    theirs = world.call(name, world.other, org="globex")
    nobodys = world.call(name, world.other, org="globex", run=ABSENT)
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.data.replace(world.run_id.encode(), ABSENT.encode()) == nobodys.data


@pytest.mark.parametrize("name", LOCKED)
def test_a_scope_opens_what_it_contains_and_nothing_else(world: World, name: str) -> None:
    needed = OPERATIONS[name].scope
    assert needed is not None
    for scope in Scope:
        answer = world.call(name, world.keys[str(scope)], run=ABSENT if scope is not needed else "")
        if scope.covers(needed):
            assert answer.status_code not in (401, 403), (scope, answer.text)
        else:
            assert answer.status_code == 403 and str(needed) in answer.text


def test_a_key_that_is_too_small_changes_nothing(world: World) -> None:
    before = world.harness.run(world.run_id)
    for name in LOCKED:
        if CALLS[name].method != "GET":
            world.call(name, world.keys["read"])
    assert world.harness.run(world.run_id) == before
    assert len(world.harness.engine.store.history(HistoryQuery(ORG, 10)).runs) == 1
    assert [info.credential_id for info in world.harness.engine.credentials.list(ORG)] == ["cred_openai"]


@pytest.mark.parametrize("name", [name for name, access in OPERATIONS.items() if access.scope is None])
def test_what_is_about_the_service_needs_no_key(world: World, name: str) -> None:
    assert world.call(name, None).status_code == 200
    assert world.call(name, WRONG_KEY, prefix="/api/v1").status_code == 200


def test_the_operators_key_opens_every_organisation_that_there_is(world: World) -> None:
    for org in (ORG, "globex"):
        assert world.harness.http("GET", f"/pipelines/history/{org}").status_code == 200
    answer = world.harness.http("GET", "/pipelines/keys/acme_corpp")
    assert answer.status_code == 404 and "acme_corp" in answer.text


def test_what_was_changed_and_what_was_refused_for_its_scope_stands_in_the_audit_rows(world: World) -> None:
    for name, scope in (("runs.cancel", "run"), ("runs.cancel", "read"), ("credentials.add", "admin")):
        world.harness.clock.tick(1)
        world.call(name, world.keys[scope])
    world.call("runs.cancel", world.other)
    rows = world.harness.http("GET", f"/pipelines/audit/{ORG}", key=world.keys["admin"]).json
    assert rows is not None
    told = [(row["action"], row["outcome"], row["target"]) for row in rows["rows"]]
    assert told[:3] == [
        ("credential.add", "ok", "cred_openai"),
        ("run.cancel", "refused", world.run_id),
        ("run.cancel", "ok", world.run_id),
    ]
    assert ("run.start", "ok", world.run_id) in told[3:]
    assert rows["rows"][2]["details"] == {"run_id": world.run_id, "by": "ana", "reason": "because"}
    assert rows["rows"][2]["who"].startswith("key:k") and "operator" in {row["who"] for row in rows["rows"][3:]}
    theirs = world.harness.http("GET", "/pipelines/audit/globex").json
    assert theirs is not None and all(row["action"] == "key.create" for row in theirs["rows"])


def test_a_call_that_fails_is_not_told_as_done(world: World) -> None:
    before = world.harness.http("GET", f"/pipelines/audit/{ORG}").json
    assert world.call("runs.skip", world.keys["run"], run=ABSENT).status_code == 404
    assert world.call("runs.rerun", world.keys["run"]).status_code == 409
    assert world.harness.http("GET", f"/pipelines/audit/{ORG}").json == before
