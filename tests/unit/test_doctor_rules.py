"""The doctor's rules, with probes of the test's own and a warehouse that only notes: order, cost, advice, clean-up."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from google.api_core import exceptions

from common import bootstrap
from common.adapters.bigquery.doctor import Doctor, Finding, check
from common.adapters.bigquery.doctor.bench import Bench, WrongResultError, expect
from common.adapters.bigquery.doctor.probes import PROBES, Probe, dataset, location
from common.cli.main import cli
from common.platform.errors import PermanentError, TransientError
from common.platform.retry import Backoff
from common.ports.meta import JobStats

STATS = JobStats("j", "query", ended_at=datetime(2026, 1, 1, tzinfo=UTC), bytes_billed=10 * 2**20)


class Client:
    """The calls of a client that probes and clean-up make by themselves."""

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.there: dict[str, list[str]] = {}
        self.error: Exception | None = None
        self.location = "EU"
        self.comes_back = 0
        """So many times the dataset is there again after it was removed."""

    def delete_dataset(self, name: str, **_: Any) -> None:
        if self.error is not None:
            raise self.error
        self.deleted.append(name)
        self.comes_back -= 1

    def get_dataset(self, name: str, **_: Any) -> Any:
        return SimpleNamespace(location=self.location, labels={}, default_table_expiration_ms=None)

    def update_dataset(self, found: Any, fields: list[str], **_: Any) -> None:
        raise exceptions.Forbidden("only its owner may")

    def list_tables(self, name: str, **_: Any) -> list[Any]:
        names = self.there.get(name.rpartition(".")[2], [])
        return [SimpleNamespace(table_id=one, reference=one) for one in names]

    def list_routines(self, name: str, **_: Any) -> list[Any]:
        return []

    def delete_table(self, reference: str, **_: Any) -> None:
        self.deleted.append(reference)


class Warehouse:
    """Notes what it is asked; ``stats`` are those of every job."""

    def __init__(self, client: Client, stats: JobStats | None = STATS, *, has_dataset: bool = False) -> None:
        self.connection = SimpleNamespace(client=client, has_locations=True, location="US")
        self.meta = SimpleNamespace(job_stats=lambda job_id: stats)
        self.made: list[str] = []
        self.tables = SimpleNamespace(
            has_dataset=lambda name: has_dataset or client.comes_back > 0, make_dataset=self.made.append
        )
        self.seen: Callable[[str], None] = lambda job_id: None

    def labelled(self, labels: Mapping[str, str], seen: Callable[[str], None]) -> "Warehouse":
        self.seen = seen
        return self


def make(does: Callable[[Bench], str], name: str = "probe", *needs: str) -> Probe:
    return Probe(name, f"do {name}", does, f"mend {name}", needs)


def doctor(*probes: Probe, client: Client | None = None, price: Any = "6.25", **more: Any) -> Doctor:
    usd = None if price is None else Decimal(price)
    warehouse = Warehouse(client or Client(), **more)
    return Doctor(lambda: warehouse, "my-project", "given", usd, (make(dataset, "dataset"), *probes))  # type: ignore[arg-type, return-value]


def held(_bench: Bench) -> str:
    return "fine"


def raising(error: BaseException) -> Callable[[Bench], str]:
    def does(_bench: Bench) -> str:
        raise error

    return does


def test_a_failure_says_what_to_do_skips_what_needs_it_and_leaves_the_others_to_be_tried() -> None:
    found = doctor(
        make(raising(PermanentError("Access Denied")), "table"),
        make(held, "load", "table"),
        make(held, "commit", "load"),
        make(held, "view"),
    ).findings()
    told = [(one.name, one.status, one.seen, one.next) for one in found]
    assert told == [
        ("dataset", "held", "made", ""),
        ("table", "failed", "Access Denied", "mend table"),
        ("load", "skipped", "needs table", ""),
        ("commit", "skipped", "needs load", ""),
        ("view", "held", "fine", ""),
        ("clean_up", "held", "my-project.given is gone", ""),
    ]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (WrongResultError("3 came back, 2 was expected."), "Report it with this line: do probe went wrong."),
        (TransientError("no answer"), "mend probe"),
        (KeyError("x"), "Report it: do probe went wrong."),
    ],
)
def test_every_failure_has_an_advice(error: Exception, says: str) -> None:
    finding = list(doctor(make(raising(error))).findings())[1]
    assert (finding.status, finding.next) == ("failed", says)


def test_another_result_than_expected_is_shown_with_both() -> None:
    with pytest.raises(WrongResultError, match=r"Rows: \['a'\] came back, \['a', 'b'\] was expected"):
        expect(["a"], ["a", "b"], "Rows")


def starts(*job_ids: str) -> Callable[[Bench], str]:
    def does(bench: Bench) -> str:
        for job_id in job_ids:
            bench.warehouse.seen(job_id)  # type: ignore[attr-defined]
        return "fine"

    return does


def test_each_probe_has_the_bytes_and_dollars_of_its_own_jobs() -> None:
    found = list(doctor(make(starts("a", "b", "a")), make(starts("b", "c"), "next")).findings())
    assert [(one.jobs, one.bytes_billed) for one in found[1:3]] == [(2, 20 * 2**20), (1, 10 * 2**20)]
    assert found[1].cost_usd == Decimal("0.000120")  # 2 × 10 MiB at $6.25 a TiB, each rounded to a millionth


@pytest.mark.parametrize("unknown", [{"price": None}, {"stats": None}])
def test_what_has_no_price_or_no_statistics_is_unknown_and_not_nothing(unknown: dict[str, Any]) -> None:
    finding = list(doctor(make(starts("a")), **unknown).findings())[1]
    assert (finding.bytes_billed, finding.cost_usd) == (None, None)


def test_ctrl_c_in_a_probe_removes_what_was_made() -> None:
    client = Client()
    interrupted = doctor(make(raising(KeyboardInterrupt())), client=client)
    with pytest.raises(KeyboardInterrupt):
        list(interrupted.findings())
    assert client.deleted == ["my-project.given"]
    assert interrupted.removed is not None and interrupted.removed.status == "held"


def test_a_caller_that_stops_early_leaves_nothing_behind() -> None:
    client = Client()
    findings = doctor(make(held), client=client).findings()
    next(findings)
    findings.close()  # type: ignore[attr-defined]
    assert client.deleted == ["my-project.given"]


def test_what_can_not_be_removed_is_a_failure_that_says_how_to_remove_it_by_hand() -> None:
    client = Client()
    client.error = exceptions.Forbidden("no")
    *_, last = doctor(make(held), client=client).findings()
    assert last.status == "failed" and last.next == "Remove it by hand: bq rm -r -f my-project:given"


def test_what_is_still_at_work_when_it_is_interrupted_is_removed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "DROP_BACKOFF", Backoff(0.001, 0.001))
    client = Client()

    def late(_bench: Bench) -> str:
        client.comes_back = 3
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(doctor(make(late), client=client).findings())
    assert client.deleted == ["my-project.given"] * 3


def test_a_dataset_that_was_there_with_tables_is_never_touched() -> None:
    client = Client()
    client.there["given"] = ["precious"]
    found = list(doctor(client=client, has_dataset=True).findings())
    assert [one.status for one in found] == ["failed", "held"] and found[-1].seen == "nothing was made"
    assert client.deleted == []


def test_of_a_dataset_that_was_there_only_what_the_probes_made_is_removed() -> None:
    client = Client()

    def makes(bench: Bench) -> str:
        bench.table("every_type")
        client.there["given"] = ["every_type", "every_type__commits", "every_type_of_others", "others"]
        return "fine"

    list(doctor(make(makes), client=client, has_dataset=True).findings())
    assert client.deleted == ["every_type", "every_type__commits"]


def test_a_dataset_that_may_not_be_made_is_not_removed_either() -> None:
    client = Client()
    refused = doctor(client=client)
    refused._warehouse().tables.make_dataset = raising(PermanentError("403"))  # type: ignore[assignment]
    found = list(refused.findings())
    assert [one.status for one in found] == ["failed", "held"] and client.deleted == []


def test_a_dataset_in_another_location_than_the_settings_say_is_a_failure() -> None:
    found = list(doctor(make(location)).findings())[1]
    assert found.status == "failed" and found.seen == "The dataset's location: 'eu' came back, 'us' was expected."


def test_every_probe_needs_only_what_comes_before_it_and_has_an_advice() -> None:
    for number, probe in enumerate(PROBES):
        assert set(probe.needs) <= {one.name for one in PROBES[:number]}, probe.name
        assert probe.what and probe.advice.endswith(".")
    assert len({probe.name for probe in PROBES}) == len(PROBES)


class Check:
    """In the place of a Doctor."""

    dataset, most_usd, removed = "my-test-project.d", Decimal("0.06"), None

    def __init__(self, *found: Finding) -> None:
        self.found = found

    def findings(self) -> Any:
        yield from self.found


GOOD = Finding("table", "make a table", "held", "fine", 1.5, 2, 20 * 2**20, Decimal("0.000119"))
BAD = Finding("view", "make a view", "failed", "Access Denied", 0.1, next="Grant it.")


def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, check: Check, *args: str, **more: Any) -> Any:
    monkeypatch.setattr(bootstrap, "doctor", lambda settings, dataset: check)
    given = ["--state-dir", str(tmp_path), "doctor", "--project", "my-test-project", *args]
    return CliRunner().invoke(cli, given, **more)


def test_the_exit_code_says_whether_all_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    assert invoke(monkeypatch, tmp_path, Check(GOOD), "--yes").exit_code == 0
    done = invoke(monkeypatch, tmp_path, Check(GOOD, BAD), "--yes")
    assert done.exit_code == 1 and "view failed: Access Denied Grant it." in done.output
    assert "1 held, 1 failed in 2 s, for $0.000119 at list prices." in done.output


def test_json_has_every_probe_and_the_sums(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    done = invoke(monkeypatch, tmp_path, Check(GOOD, BAD), "--yes", "--json")
    found = json.loads(done.stdout)
    assert (found["ok"], found["bytes_billed"], found["cost_usd"]) == (False, 20 * 2**20, "0.000119")
    assert [(one["name"], one["status"], one["next"]) for one in found["probes"]] == [
        ("table", "held", ""),
        ("view", "failed", "Grant it."),
    ]


def test_a_name_that_is_none_is_refused_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    done = invoke(monkeypatch, tmp_path, Check(), "--dataset", "a-b", "--yes")
    assert done.exit_code == 2 and "is not a dataset's name" in done.output
    done = CliRunner().invoke(cli, ["doctor", "--project", "My Project"])
    assert done.exit_code == 2 and "is not a Google Cloud project id" in done.output
