"""Firestore's documented limits, held against what the adapters write and ask. Its emulator checks few of them.

https://cloud.google.com/firestore/quotas, .../docs/storage-size and .../docs/query-data/indexing (1 December 2026).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import firestore
from google.cloud.firestore_admin_v1.types import Field, Index
from google.cloud.firestore_v1.types import Document, StructuredQuery, Value, Write

from common.access import api_keys, audit, credentials
from common.adapters.google.firestore_client import FIRESTORE, Firestore, _client
from common.adapters.google.firestore_documents import change_entries, fixed_run_fields, run_fields, step_fields
from common.adapters.google.firestore_limits import (
    MAX_DOCUMENT_BYTES,
    MAX_IN,
    MAX_REQUEST_BYTES,
    TooLargeError,
    check,
    document_bytes,
)
from common.adapters.google.firestore_logs import FirestoreLogs
from common.adapters.google.firestore_quota import FirestoreQuota, Slots, counted_fields, queued_fields
from common.adapters.google.firestore_records import FirestoreRecords
from common.adapters.google.firestore_store import FirestoreRunStore
from common.config.yaml_source import MAX_BYTES
from common.domain import state
from common.domain.graph import whole
from common.domain.messages import AttemptClaimed, AttemptFailed, AttemptSucceeded, AttemptSuspended, RunValidated
from common.domain.model import MAX_JOB_IDS, Pipeline, Receipt, RetryPolicy, Run, RunRequest, RunStatus, StepSpec
from common.domain.queueing import Waiting
from common.domain.quota import QUEUE_LIMIT, Limits
from common.domain.usage_document import Reservation, UsageDocument
from common.notify import failure_limit, notifications
from common.notify import settings as notification_settings
from common.platform.errors import PermanentError
from common.platform.paths import PROJECT_ROOT
from common.ports.logs import LogLine
from common.ports.store import HistoryQuery
from common.runs.attempt import MAX_ERROR_CHARS, MAX_LINE_CHARS, MAX_OUTPUT_CHARS, MAX_WARNING_CHARS, MAX_WARNINGS

T0 = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
DAY = date(2026, 11, 20)
RUN_ID = f"run_{1:032x}"
LONGEST_ROUTE = "/".join(["r" * 63] * 3)
MAX_INDEX_ENTRIES, MAX_INDEXED_BYTES, MAX_DEPTH, MAX_TRANSFORMS, MAX_NAME_BYTES = 40_000, 1_500, 20, 500, 6 * 1024
INDEXES = json.loads((PROJECT_ROOT / "infra/firestore.indexes.json").read_text())
KINDS = {
    api_keys.KIND,
    api_keys.USES,
    audit.KIND,
    credentials.KIND,
    failure_limit.KIND,
    failure_limit.DUE_KIND,
    notifications.SENT_KIND,
    notification_settings.KIND,
}
OVERRIDES = {(one["collectionGroup"], one["fieldPath"]): one["indexes"] for one in INDEXES["fieldOverrides"]}
COMPOSITES = [
    (one["collectionGroup"], [(field["fieldPath"], field["order"]) for field in one["fields"]])
    for one in INDEXES["indexes"]
]


class Offline(Firestore):
    """Keeps what would be asked and written; answers queries with ``snapshots`` of the asked collection."""

    def __init__(self) -> None:
        super().__init__("pipeline-ops-test", "127.0.0.1:1")
        self.queries: list[StructuredQuery] = []
        self.writes: list[Write] = []
        self.snapshots: dict[str, list[Any]] = {}

    def get(self, *references: Any, fields: Sequence[str] | None = None) -> dict[str, Any]:
        return {}

    def query(self, query: Any) -> list[Any]:
        made = StructuredQuery.wrap(query._to_protobuf()._pb if hasattr(query, "_to_protobuf") else query._query()._pb)
        self.queries.append(made)
        return self.snapshots.get(made.from_[0].collection_id, [])

    def count(self, query: Any) -> int:
        self.query(query)
        return 10**6

    def write(self, fill: Callable[[Any], None], *_more: Any) -> int:
        batch = _client("pipeline-ops-test", "127.0.0.1:1").batch()
        fill(batch)
        check(batch._write_pbs)
        self.writes += batch._write_pbs
        return 1


class Bus:
    def publish(self, messages: Any) -> None:
        """Send nothing."""


@pytest.fixture
def offline() -> Offline:
    return Offline()


@pytest.fixture
def store(offline: Offline) -> FirestoreRunStore:
    made = FirestoreRunStore("pipeline-ops-test", Bus(), "127.0.0.1:1")
    made._firestore, made._quota = offline, FirestoreQuota(offline)
    return made


def new_run(route: str = "a/b/c") -> Any:
    return state.create(RunRequest(RUN_ID, "acme", route, DAY, DAY, T0))


def document(path: str, fields: Mapping[str, Any]) -> Document:
    """Return the message that the client sends for these fields."""
    batch = firestore.Client.batch(_client("pipeline-ops-test", "127.0.0.1:1"))
    batch.set(_client("pipeline-ops-test", "127.0.0.1:1").document(path), dict(fields))
    return batch._write_pbs[0].update


def size(one: Document) -> int:
    return document_bytes(one.name, Document.pb(one).fields)


# --- indexes


def automatic(group: str, field: str, *, of_group: bool) -> bool:
    """Whether a field has a single-field index for queries of a collection, or of a collection group."""
    given = OVERRIDES.get((group, field))
    if given is None:
        return not of_group
    scope = "COLLECTION_GROUP" if of_group else "COLLECTION"
    return any(index["queryScope"] == scope for index in given)


def parts(query: StructuredQuery) -> tuple[set[str], set[str], list[tuple[str, str]]]:
    """Return the fields with equality filters, with ranges, and the order (without the document's name)."""
    where = query.where
    filters = list(where.composite_filter.filters) or ([where] if StructuredQuery.Filter.pb(where).ByteSize() else [])
    equal, ranged = set[str](), set[str]()
    for one in filters:
        name, op = one.field_filter.field.field_path, one.field_filter.op
        if op in (StructuredQuery.FieldFilter.Operator.EQUAL, StructuredQuery.FieldFilter.Operator.IN):
            equal.add(name)
        else:
            ranged.add(name)
        assert len(one.field_filter.value.array_value.values) <= MAX_IN
    order = [(one.field.field_path, one.direction.name) for one in query.order_by]
    return equal, ranged, [(name, way) for name, way in order if name != "__name__"]


def has_index(query: StructuredQuery) -> bool:
    """Apply Firestore's rules: equalities merge automatic indexes; with a range or an order they need a composite."""
    group, of_group = query.from_[0].collection_id, query.from_[0].all_descendants
    equal, ranged, order = parts(query)
    others = list(dict.fromkeys([*(name for name, _ in order), *ranged]))
    if not equal or not others:
        return len(others) <= 1 and all(automatic(group, name, of_group=of_group) for name in [*equal, *others])
    ways = dict(order)
    wanted = (frozenset(equal), [(name, ways.get(name, "ASCENDING")) for name in others])
    count = len(equal)
    return not of_group and any(
        one == group and (frozenset(name for name, _ in fields[:count]), fields[count:]) == wanted
        for one, fields in COMPOSITES
    )


def snapshots(count: int) -> list[Any]:
    new = new_run()
    found = []
    for number in range(count):
        run = replace(new.run, request=replace(new.run.request, run_id=f"run_{number:032x}"))
        fields = {**fixed_run_fields(run), **run_fields(run, "c")}
        found.append(SimpleNamespace(get=fields.get, id=run.run_id, update_time=SimpleNamespace(seconds=1, nanos=0)))
    return found


def asked(offline: Offline, store: FirestoreRunStore) -> Iterator[tuple[str, StructuredQuery]]:
    """Make every query there is, in each of its forms."""

    def of(name: str, does: Callable[[], object]) -> Iterator[tuple[str, StructuredQuery]]:
        offline.queries.clear()
        does()
        assert offline.queries, name
        yield from ((name, query) for query in offline.queries)

    yield from of("due", lambda: store.due(T0, 10))
    yield from of("active", store.active)
    for count in (3, 100):
        names = [f"s{number}" for number in range(count)]
        yield from of("all_ended", lambda names=names: store.all_ended(RUN_ID, names))  # type: ignore[misc]
    yield from of("changes", lambda: store.changes(RUN_ID))
    for route, status, since, before in product(("a/b/c", None), (RunStatus.FAILED, None), (T0, None), (T0, None)):
        query = HistoryQuery("acme", limit=10, route=route, status=status, since=since, before=before)
        yield from of(f"history {query}", lambda query=query: store.history(query))  # type: ignore[misc]
    offline.snapshots["runs"] = snapshots(2 * MAX_IN + 1)
    yield from of("history of many", lambda: store.history(HistoryQuery("acme", limit=2 * MAX_IN)))
    yield from of("queues", store.queues)
    waiting = replace(new_run().run, waits_for="concurrent")
    yield from of("enqueue", lambda: store._quota.enqueue(waiting))
    records, logs = FirestoreRecords("p", "127.0.0.1:1"), FirestoreLogs("p", "127.0.0.1:1")
    records._firestore = logs._firestore = offline
    for kind, newest, after in product(sorted(KINDS), (False, True), (None, "a")):
        yield from of(
            "list",
            lambda kind=kind, newest=newest, after=after: records.list(
                kind, "acme", newest=newest, after=after, limit=9
            ),  # type: ignore[misc]
        )
    for step_id, severity in product(("a", None), ("WARNING", None)):
        yield from of(
            "logs",
            lambda step_id=step_id, severity=severity: list(logs.read(RUN_ID, step_id=step_id, severity=severity)),  # type: ignore[misc]
        )


def test_every_query_has_an_index_which_the_emulator_would_not_miss(offline: Offline, store: FirestoreRunStore) -> None:
    made = list(asked(offline, store))
    assert [name for name, query in made if not has_index(query)] == []
    collections = {(query.from_[0].collection_id, query.from_[0].all_descendants) for _, query in made}
    assert collections >= {("runs", False), ("steps", False), ("steps", True), ("usage", False), ("logs", False)}


def test_every_composite_index_and_every_index_of_a_group_is_of_use(offline: Offline, store: FirestoreRunStore) -> None:
    used: list[Any] = []
    for _, query in asked(offline, store):
        equal, ranged, order = parts(query)
        others = list(dict.fromkeys([*(name for name, _ in order), *ranged]))
        group = query.from_[0].collection_id
        used.append((group, {*equal, *others}, query.from_[0].all_descendants))
    for group, fields in COMPOSITES:
        assert (group, {name for name, _ in fields}, False) in used
    for (group, field), given in OVERRIDES.items():
        assert not given or (group, {field}, True) in used


def test_no_field_is_taken_from_the_indexes_twice_and_each_kind_of_record_has_its_body_taken() -> None:
    assert len(OVERRIDES) == len(INDEXES["fieldOverrides"])
    assert {group for group, field in OVERRIDES if field == "body"} == {"runs", "steps", *KINDS}


def test_the_index_file_is_read_by_the_admin_api_s_own_messages() -> None:
    for one in INDEXES["indexes"]:
        fields = [{"field_path": field["fieldPath"], "order": field["order"]} for field in one["fields"]]
        Index(query_scope=one["queryScope"], fields=fields)
    for one in INDEXES["fieldOverrides"]:
        indexes = [
            {"query_scope": i["queryScope"], "fields": [{"field_path": one["fieldPath"], "order": i["order"]}]}
            for i in one["indexes"]
        ]
        Field(index_config={"indexes": indexes})


# --- sizes


def test_a_document_s_size_is_that_of_the_documentation_s_example() -> None:
    fields = {"type": "Personal", "done": False, "priority": 1, "description": "Learn Cloud Firestore"}
    assert size(document("users/jeff/tasks/my_task_id", fields)) == 147


@pytest.mark.parametrize(
    ("value", "bytes_"),
    [(None, 1), (1.5, 8), (T0, 8), (b"abc", 3), ("ä", 3), ([1, "a"], 10), ({"a": 1}, 32 + 2 + 8), ({}, 32)],
)
def test_each_type_has_the_size_of_the_documentation_s_table(value: Any, bytes_: int) -> None:
    assert size(document("c/d", {"f": value})) - size(document("c/d", {})) == 2 + bytes_


def entries(group: str, fields: Mapping[str, Value]) -> Iterator[Value]:
    """Yield the value of each automatic index entry, by the rules of the page on indexes."""

    def of(value: Value) -> Iterator[Value]:
        match Value.pb(value).WhichOneof("value_type"):
            case "map_value":
                for inner in value.map_value.fields.values():
                    yield from of(inner)
            case "array_value":
                yield from value.array_value.values
            case _:
                yield from (value, value)  # ascending and descending

    for name, value in fields.items():
        given = OVERRIDES.get((group, name))
        if given is None:
            yield from of(value)
        else:
            yield from (value for _ in given)


def depth(value: Value) -> int:
    inner = [*value.map_value.fields.values(), *value.array_value.values]
    return 1 + max(map(depth, inner), default=0) if inner else 0


def holds(one: Document) -> None:
    """Fail unless Firestore takes this document, whole, with our indexes."""
    group = one.name.split("/")[-2]
    assert size(one) <= MAX_DOCUMENT_BYTES
    assert len(one.name.partition("/documents/")[2].encode()) <= MAX_NAME_BYTES
    found = list(entries(group, one.fields))
    composites = sum(name == group for name, _ in COMPOSITES)
    assert len(found) + composites <= MAX_INDEX_ENTRIES
    assert max((len(value.string_value.encode()) for value in found), default=0) <= MAX_INDEXED_BYTES
    assert max(map(depth, one.fields.values()), default=0) <= MAX_DEPTH


WIDE_TEXT = "\N{WHITE SMILING FACE}"
LARGEST_RECEIPT = Receipt(
    rows=10**9,
    table="p" * 30 + "." + "d" * 70 + "." + "t" * 128,
    job_ids=tuple(f"{number:0120d}" for number in range(MAX_JOB_IDS)),
    warnings=(WIDE_TEXT * (MAX_WARNING_CHARS + 2),) * (MAX_WARNINGS + 1),
    outputs={"text": "x" * MAX_OUTPUT_CHARS},
)


def suspended_for_a_day(attempts: int) -> tuple[Run, dict[str, list[str]]]:
    """Return the run of a step that waits for its job until its time is over, in each attempt; and its history."""
    spec = StepSpec("s", "sql.procedure", max_wait_seconds=86_400, retry=RetryPolicy(attempts, 600))
    new, entries = new_run(LONGEST_ROUTE), dict[str, list[str]]()
    run, now = new.run, T0

    def apply(event: Any) -> None:
        nonlocal run
        transition = state.apply(run, event, now)
        run = transition.run
        run = whole(run, {name: replace(step, version=1) for name, step in run.steps.items() if step.attempt})
        for place, more in change_entries(transition).items():
            entries.setdefault(place, []).extend(more)

    apply(RunValidated(Pipeline("p", "x", (spec,), "hash"), "cred"))
    while not run.steps["s"].status.is_terminal:
        step = run.steps["s"]
        now = max(now, step.not_before or now)
        apply(AttemptClaimed("s", step.attempt, "process-0123456789ab"))
        now += timedelta(seconds=20)
        if step.give_up_at is None and step.attempt == attempts:
            apply(AttemptFailed("s", step.attempt, WIDE_TEXT * MAX_ERROR_CHARS))
            break
        apply(AttemptSuspended("s", step.attempt, "j" * 120, now + timedelta(seconds=30)))
    return run, entries


def test_a_step_that_waits_a_day_for_each_of_ten_jobs_fits_its_document() -> None:
    run, history = suspended_for_a_day(10)
    step = replace(run.steps["s"], receipt=LARGEST_RECEIPT, error=WIDE_TEXT * (MAX_ERROR_CHARS + 2))
    one = document(f"runs/{RUN_ID}/steps/s", {**step_fields(RUN_ID, step, "c" * 32), "changes": history["s"]})
    holds(one)
    assert len(history["s"]) < 3_000  # two a look, of which there were 17,000 every 30 seconds


def test_a_run_of_the_largest_config_file_fits_its_document() -> None:
    text = {"sql": WIDE_TEXT * (MAX_BYTES // 3)}
    run = replace(new_run(LONGEST_ROUTE).run, specs=(StepSpec("s", "noop", config=text),), error="e" * MAX_ERROR_CHARS)
    _, history = suspended_for_a_day(1)
    fields = {**fixed_run_fields(run), **run_fields(run, "c" * 32), "changes": history[""]}
    holds(document(f"runs/{RUN_ID}", fields))


def test_a_full_queue_and_a_thousand_slots_fit_the_organisation_s_document() -> None:
    ids = [f"run_{number:032x}" for number in range(QUEUE_LIMIT)]
    days = {str(DAY - timedelta(days=number)): {"admitted": 9, "failed": 9, "completed": 9} for number in range(70)}
    usage = UsageDocument(
        {**days, **{f"2026-{month:02}": {"admitted": 9, "reserved": 9} for month in range(1, 13)}},
        {run_id: Reservation(LONGEST_ROUTE, T0) for run_id in ids},
        {run_id: Waiting(run_id, LONGEST_ROUTE, "pipeline_concurrent", True, T0) for run_id in ids},
        costs={f"{LONGEST_ROUTE[:-3]}{number:03}": number for number in range(300)},
    )
    fields = {**counted_fields(usage), **queued_fields(usage), "costs": dict(usage.costs)}
    holds(document("usage/" + "a" * 50, fields))


def test_ten_thousand_waiting_and_four_thousand_live_runs_fit_the_deployment_s_document() -> None:
    ids = [f"run_{number:032x}" for number in range(14_000)]
    slots = Slots({run_id: T0 for run_id in ids[:4_000]}, {})
    fields = {
        "reservations": dict(slots.reservations),
        "extended": dict(slots.reservations),
        "queue": {run_id: True for run_id in ids[4_000:]},
        "waiting": 10_000,
    }
    holds(document("deployment/slots", fields))


def test_the_longest_line_fits_its_document(offline: Offline) -> None:
    logs = FirestoreLogs("p", "127.0.0.1:1")
    logs._firestore = offline
    logs.append(RUN_ID, LogLine(T0, "WARNING", WIDE_TEXT * (MAX_LINE_CHARS + 2), "s" * 63, 1))
    holds(offline.writes[0].update)


def test_what_the_store_writes_for_a_run_holds_every_limit(offline: Offline, store: FirestoreRunStore) -> None:
    wide = Limits("ACTIVE", daily=10_000, monthly=10_000, concurrent=10_000, global_concurrent=10)
    new = new_run(LONGEST_ROUTE)
    store.create(new, wide)
    run = replace(new.run, version=1)
    specs = (StepSpec("a", "noop"), StepSpec("b", "noop", ("a",)))
    for event in (
        RunValidated(Pipeline("p", "x", specs, "hash"), "cred"),
        AttemptClaimed("a", 1, "me"),
        AttemptSucceeded("a", 1, LARGEST_RECEIPT),
        AttemptClaimed("b", 1, "me"),
        AttemptFailed("b", 1, "x"),
    ):
        run = store.commit(state.apply(run, event, T0))
        run = whole(run, {name: step for name, step in run.steps.items() if step.version})
    assert run.status is RunStatus.FAILED
    assert len(offline.writes) > 6
    for write in offline.writes:
        holds(write.update)
        assert len(write.update_transforms) <= MAX_TRANSFORMS


# --- what is too large


def written(*bodies: str) -> list[Write]:
    client = _client("pipeline-ops-test", "127.0.0.1:1")
    batch = client.batch()
    for number, body in enumerate(bodies):
        batch.set(client.document("runs", RUN_ID, "steps", f"s{number}"), {"body": body})
    return list(batch._write_pbs)


def test_a_document_of_exactly_one_mebibyte_is_sent_and_one_byte_more_is_refused_by_name_and_size() -> None:
    rest = size(written("")[0].update)
    check(written("x" * (MAX_DOCUMENT_BYTES - rest)))
    with pytest.raises(TooLargeError, match=rf"runs/{RUN_ID}/steps/s0 would have 1,048,577 bytes.*outputs.*split"):
        check(written("x" * (MAX_DOCUMENT_BYTES - rest + 1)))


def test_a_commit_of_more_than_ten_mebibytes_is_refused_however_small_its_documents_are() -> None:
    parts = ["x" * 1_000_000] * 10
    check(written(*parts))
    with pytest.raises(TooLargeError, match=f"a commit has at most {MAX_REQUEST_BYTES:,}"):
        check(written(*parts, "x" * 1_000_000))


def test_more_than_five_hundred_writes_are_one_commit_since_march_2023() -> None:
    check(written(*["x"] * 501))


def test_what_is_too_large_is_never_sent_and_never_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def fill(batch: Any) -> None:
        tried.append(1)
        batch.set(_client("p", "127.0.0.1:1").document("runs/r"), {"body": "x" * 2**20})

    with pytest.raises(TooLargeError, match="runs/r would have"):
        Firestore("p", "127.0.0.1:1").write(fill)
    assert tried == [1]


def test_the_server_s_refusal_of_a_document_that_has_grown_too_large_says_what_to_do() -> None:
    text = "Document 'projects/p/...' cannot be written because its size (1,048,600 bytes) exceeds the maximum allowed"
    error = FIRESTORE.error("write", exceptions.InvalidArgument(text))
    assert isinstance(error, PermanentError) and "Hand less on in outputs" in str(error)
