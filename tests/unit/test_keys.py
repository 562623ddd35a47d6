"""API keys: whose a token is, how they rotate, what they cost, what they never tell."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from common.access import api_key_check as key_check
from common.access.api_keys import Caller, KeyInfo, Keys, Scope
from common.access.audit import Audit
from common.platform.errors import (
    ConflictingStateError,
    ForbiddenScopeError,
    NotFoundError,
    RequestError,
    TransientError,
    UnauthorizedError,
)
from tests.fakes import FakeClock
from tests.memory_records import MemoryRecords

pytestmark = pytest.mark.timeout(60)  # what waits for what it should not is found here, and is not to hang

ORG = "acme_corp_2"


class World:
    """Keys on memory, and how often a secret was hashed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.records = FakeClock(), MemoryRecords()
        self.audit = Audit(self.records, self.clock)
        self.hashes = 0
        real = key_check._scrypt

        def counted(*given: Any) -> bytes:
            self.hashes += 1
            return real(*given)

        monkeypatch.setattr(key_check, "COST", {"n": 2**4, "r": 8, "p": 1})
        monkeypatch.setattr(key_check, "NOBODY", {**key_check.NOBODY, "n": 2**4})
        monkeypatch.setattr(key_check, "_scrypt", counted)
        self.keys = self.process()

    def process(self, operator: str | None = None) -> Keys:
        """Return the keys as another process has them."""
        return Keys(self.records, self.audit, self.clock, operator)

    def make(self, name: str = "app", scope: Scope = Scope.RUN, **more: Any) -> str:
        return self.keys.create(ORG, name, scope, who="cli:ana", **more).token

    def rotate(self, **more: Any) -> str:
        self.clock.tick(1)
        return self.keys.rotate(ORG, "app", who="cli:ana", **more).token

    def opens(self, token: str) -> bool:
        try:
            self.keys.caller(f"Bearer {token}")
        except UnauthorizedError:
            return False
        return True


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_key_opens_its_organisation_with_its_scope(world: World) -> None:
    made = world.keys.create(ORG, "app", Scope.RUN, who="cli:ana")
    caller = world.keys.caller(f"Bearer {made.token}")
    assert caller == Caller(ORG, made.info.key_id, Scope.RUN) and caller.who == f"key:{made.info.key_id}"
    assert caller.opens(ORG) and not caller.opens("acme_corp") and not caller.opens("globex")


def test_a_token_has_256_bits_and_no_two_are_alike(world: World) -> None:
    tokens = [world.make(name) for name in ("a", "b")]
    secrets = [re.fullmatch(rf"pops_{ORG}_k[0-9a-f]{{12}}_([0-9a-f]{{64}})", token) for token in tokens]
    assert all(secrets) and len({match[1] for match in secrets if match}) == 2


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("needed", list(Scope))
def test_scopes_contain_one_another(scope: Scope, needed: Scope) -> None:
    caller = Caller(ORG, "k1", scope)
    if list(Scope).index(needed) <= list(Scope).index(scope):
        caller.needs(needed)
    else:
        with pytest.raises(ForbiddenScopeError, match=f"scope {needed}, and the key's scope is {scope}"):
            caller.needs(needed)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer  ", "Basic abc", "pops_x", "Token pops_x"])
def test_without_a_key_it_is_said_how_to_send_one(world: World, header: str | None) -> None:
    with pytest.raises(UnauthorizedError, match="Authorization: Bearer"):
        world.keys.caller(header)


def _wrong(token: str) -> list[str]:
    prefix, key_id, secret = token.rsplit("_", 2)
    other = "0" if secret[0] != "0" else "1"
    return [
        f"{prefix}_{key_id}_{other}{secret[1:]}",
        f"{prefix}_{key_id}_{secret[:-1]}",
        f"{prefix}_{key_id}_{secret.upper()}",
        f"{prefix}_k{'0' * 12}_{secret}",
        f"pops_globex_{key_id}_{secret}",
        f"pops_acme_corp_{key_id}_{secret}",
        f"{token}_",
        token[5:],
        "x" * 100_000,
        "pöps_acme",
        "..",
    ]


def test_every_wrong_key_is_refused_with_the_same_words(world: World) -> None:
    token = world.make()
    told = set()
    for wrong in _wrong(token):
        with pytest.raises(UnauthorizedError) as caught:
            world.keys.caller(f"Bearer {wrong}")
        told.add(str(caught.value))
    assert len(told) == 1 and "not valid" in told.pop()


def test_an_unknown_key_costs_one_hash_like_a_wrong_secret(world: World) -> None:
    token = world.make()
    wrong = _wrong(token)
    for guess in (wrong[0], wrong[3], wrong[4]):
        before = world.hashes
        assert not world.opens(guess)
        assert world.hashes == before + 1


def test_neither_the_store_nor_what_is_shown_holds_the_secret(world: World) -> None:
    made = world.keys.create(ORG, "app", Scope.RUN, who="cli:ana")
    secret = made.token.rsplit("_", 1)[1]
    world.keys.caller(f"Bearer {made.token}")
    kept = [world.records.list(kind, ORG) for kind in ("keys", "key_uses", "audit")]
    shown = [world.keys.list(ORG), world.audit.list(ORG), made, made.info]
    assert secret not in repr((kept, shown))


def test_a_verified_key_is_hashed_once_a_process(world: World) -> None:
    token = world.make()
    before = world.hashes
    for _ in range(5):
        assert world.opens(token)
    assert world.hashes == before + 1
    world.process().caller(f"Bearer {token}")
    assert world.hashes == before + 2


def test_what_is_remembered_of_keys_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_check, "REMEMBERED", 2)
    world.keys = world.process()
    tokens = [world.make(name) for name in ("a", "b", "c")]
    assert all(world.opens(token) for token in tokens)
    before = world.hashes
    assert world.opens(tokens[2]) and world.opens(tokens[1]) and world.hashes == before
    assert world.opens(tokens[0]) and world.hashes == before + 1


def test_a_revoked_key_is_dead_with_the_next_request_in_every_process(world: World) -> None:
    made = world.keys.create(ORG, "app", Scope.RUN, who="cli:ana")
    other = world.process()
    other.caller(f"Bearer {made.token}")
    assert world.opens(made.token)
    world.keys.revoke(ORG, made.info.key_id, who="cli:ana")
    for keys in (world.keys, other):
        with pytest.raises(UnauthorizedError, match="revoked"):
            keys.caller(f"Bearer {made.token}")


def test_what_was_verified_does_not_count_for_another_secret_in_its_place(world: World) -> None:
    made = world.keys.create(ORG, "app", Scope.RUN, who="cli:ana")
    assert world.opens(made.token)
    record = world.records.get("keys", ORG, made.info.key_id)
    assert record is not None
    other = {**record.body, "secret": key_check.hashed("other")}
    world.records.put("keys", ORG, made.info.key_id, other)
    assert not world.opens(made.token)


def test_a_key_of_a_lifetime_ends_with_it(world: World) -> None:
    token = world.make(lifetime=timedelta(days=1))
    assert world.opens(token)
    world.clock.tick(86_400)
    with pytest.raises(UnauthorizedError, match="expired"):
        world.keys.caller(f"Bearer {token}")


def test_that_a_key_is_revoked_is_told_only_to_who_has_its_secret(world: World) -> None:
    made = world.keys.create(ORG, "app", Scope.RUN, who="cli:ana")
    world.keys.revoke(ORG, made.info.key_id, who="cli:ana")
    with pytest.raises(UnauthorizedError, match="not valid"):
        world.keys.caller(f"Bearer {_wrong(made.token)[0]}")


def test_two_keys_of_a_name_live_and_a_further_rotation_revokes_the_oldest(world: World) -> None:
    first = world.make()
    second = world.rotate()
    assert world.opens(first) and world.opens(second)
    third = world.rotate()
    assert not world.opens(first) and world.opens(second) and world.opens(third)
    assert [key.status(world.clock()) for key in world.keys.list(ORG)] == ["live", "live", "revoked"]
    assert {key.scope for key in world.keys.list(ORG)} == {Scope.RUN}


def test_the_old_key_can_be_given_a_time_to_end(world: World) -> None:
    first = world.make()
    second = world.rotate(grace=timedelta(hours=1))
    assert world.opens(first)
    world.clock.tick(3_600)
    assert not world.opens(first) and world.opens(second)


def test_a_grace_does_not_prolong_a_key_that_ends_sooner(world: World) -> None:
    first = world.make(lifetime=timedelta(minutes=1))
    world.rotate(grace=timedelta(hours=1))
    world.clock.tick(60)
    assert not world.opens(first)


def test_rotations_at_the_same_time_leave_no_more_than_two_live_keys(world: World) -> None:
    world.make()
    ticking = threading.Lock()

    def rotate(_: int) -> None:
        with ticking:
            world.clock.tick(1)
        with suppress(ConflictingStateError):  # too many others at it
            world.keys.rotate(ORG, "app", who="cli:ana")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(rotate, range(12)))
    assert len([key for key in world.keys.list(ORG) if key.status(world.clock()) == "live"]) <= 2


def test_a_name_that_is_taken_is_rotated_and_not_made_again(world: World) -> None:
    world.make()
    with pytest.raises(ConflictingStateError, match="rotate it"):
        world.make()
    with pytest.raises(NotFoundError, match="Did you mean 'app'"):
        world.keys.rotate(ORG, "apb", who="x")
    for key in world.keys.list(ORG):
        world.keys.revoke(ORG, key.key_id, who="x")
    world.make()


@pytest.mark.parametrize("name", ["", "App", "a b", "a/b", "x" * 64, "ä"])
def test_a_name_is_plain(world: World, name: str) -> None:
    with pytest.raises(RequestError, match="name"):
        world.make(name)


def test_keys_of_another_organisation_are_not_there(world: World) -> None:
    made = world.keys.create(ORG, "app", Scope.RUN, who="cli:ana")
    assert world.keys.list("globex") == []
    with pytest.raises(NotFoundError):
        world.keys.revoke("globex", made.info.key_id, who="x")
    with pytest.raises(NotFoundError):
        world.keys.rotate("globex", "app", who="x")
    assert world.opens(made.token)


def last_used(world: World) -> Any:
    (key,) = world.keys.list(ORG)
    return key.last_used_at


def test_when_a_key_was_used_is_noted_now_and_then(world: World) -> None:
    token = world.make()
    assert last_used(world) is None
    first = world.clock()
    world.opens(token)
    assert last_used(world) == first
    world.clock.tick(299)
    world.opens(token)
    assert last_used(world) == first
    world.clock.tick(1)
    world.opens(token)
    assert last_used(world) == world.clock()


def test_a_store_that_can_not_note_the_use_of_a_key_stops_no_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = world.make()

    def full(*_given: Any, **_more: Any) -> None:
        raise TransientError("disk full")

    monkeypatch.setattr(world.records, "put", full)
    assert world.opens(token)


def test_the_operators_token_opens_every_organisation(world: World) -> None:
    keys = world.process("0123456789abcdef" * 4)
    caller = keys.caller("bearer " + "0123456789abcdef" * 4)
    assert caller.opens("globex") and caller.opens(ORG) and caller.who == "operator"
    caller.needs(Scope.ADMIN)
    with pytest.raises(UnauthorizedError):
        keys.caller("Bearer " + "0123456789abcdef" * 3)
    with pytest.raises(UnauthorizedError):
        world.keys.caller("Bearer " + "0123456789abcdef" * 4)


@pytest.mark.parametrize("operator", [None, ""])
def test_where_there_is_no_operator_no_token_is_the_operators(world: World, operator: str | None) -> None:
    for header in ("Bearer None", "Bearer  ", "Bearer ''", None):
        with pytest.raises(UnauthorizedError):
            world.process(operator).caller(header)


def test_each_act_on_keys_is_an_audit_row(world: World) -> None:
    world.make()
    world.rotate()
    world.rotate()
    rows = world.audit.list(ORG).rows
    assert sorted(row.action for row in rows) == ["key.create", "key.revoke", "key.rotate", "key.rotate"]
    assert {row.who for row in rows} == {"cli:ana"}
    keys: dict[str, KeyInfo] = {key.key_id: key for key in world.keys.list(ORG)}
    assert all(row.target in keys and row.details == {"name": "app", "scope": "run"} for row in rows)


def test_many_wrong_keys_at_once_are_hashed_two_at_a_time_and_the_rest_sent_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = world.make()
    assert world.opens(good)
    at_work, most, go = [0], [0], threading.Event()
    lock = threading.Lock()

    def slow(*_given: Any) -> bytes:
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        go.wait(20)
        with lock:
            at_work[0] -= 1
        return b""

    monkeypatch.setattr(key_check, "_scrypt", slow)
    monkeypatch.setattr(key_check, "MAX_WAITING", 10)
    monkeypatch.setattr(key_check, "PATIENCE_S", 30.0)
    answers: list[type[Exception]] = []

    def guess(number: int) -> None:
        try:
            world.keys.caller(f"Bearer pops_acme_k{number:012x}_{'0' * 64}")
        except (UnauthorizedError, TransientError) as error:
            answers.append(type(error))

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(answers) < 38 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert answers == [TransientError] * 38 and most == [2]
    assert world.opens(good), "a key that is known needs no turn"
    go.set()
    for thread in threads:
        thread.join(20)
    assert most == [2] and answers.count(UnauthorizedError) == 12


def test_first_requests_with_one_key_at_once_wait_for_one_check(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    token = world.make()
    before = world.hashes
    with ThreadPoolExecutor(30) as pool:
        assert all(pool.map(lambda _: world.opens(token), range(60)))
    assert world.hashes - before <= 2


def test_the_real_cost_of_a_check_is_that_of_scrypt_with_16_mib() -> None:
    assert key_check.COST["n"] >= 2**14 and key_check.COST["r"] >= 8
    kept = key_check.hashed("secret")
    began = time.process_time()
    assert not key_check.KeyCheck().holds("t", "secret", None)
    assert time.process_time() - began > 0.005, "as long as for a key that there is"
    assert len(kept["salt"]) == 32 and kept["hash"] != key_check.hashed("secret")["hash"]
