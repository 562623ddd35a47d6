"""Golden rows: what a provider sends, and the rows of FOCUS that have to come of it, worked out by hand.

A file of ``tests/contract/golden`` is one pipeline: ``given`` is its input as the provider sends it (an answer of its
API, a file, an object in its bucket, a row of its table), ``expected`` the rows of each table with every column, those
without a value as a list. Values are derived from the input and the FOCUS specification, never copied from what came
out. The steps are those of the shipped pipeline; only where files lie and how the API is reached is made up.

Tables are filled once for all pipelines and each procedure is called once, so cases are told apart by their days.
"""

import csv
import io
import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from common.adapters.bigquery import BigQueryWarehouse
from common.adapters.google.cloud import GoogleCloudAdapter
from common.config.loader import ConfigTree
from common.config.yaml_source import read
from common.platform.paths import CONFIGS
from common.processors import registry
from common.processors.registry import REGISTRY
from common.processors.sql.procedure_executor import ProcedureParams
from common.tables.contract import DATA_DATE, Table, load_table
from infra.local.gcp_export import write_export
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.server import SandboxServer
from tests.conftest import PROJECT
from tests.contract.focus import Dataset
from tests.processors.context import FakeWarehouse, make_context

FOLDER = Path(__file__).parent / "golden"
WITHOUT = "without a value"
PROCEDURE = "generic.procedure_executor"
OF_ROW = ("x_org_slug", DATA_DATE)
"""Of the lineage fields those that a procedure fills."""

EMULATED = re.compile(r"-?\d+\.\d{18}")

Row = dict[str, Any]


@dataclass(frozen=True)
class Golden:
    """One pipeline's case. ``expected`` are rows by table."""

    name: str
    route: str
    day: date
    given: Mapping[str, Any]
    expected: Mapping[str, Sequence[Row]]


def golden_cases() -> list[Golden]:
    """Read every case. A row that lacks a column, or has one twice, is no golden row."""
    return [_case(path) for path in sorted(FOLDER.glob("*.yml"))]


def _case(path: Path) -> Golden:
    data = read(path, path.name).data
    expected = {
        name: [golden_row(f"{path.name}: {name}", load_table(CONFIGS, name), row) for row in rows]
        for name, rows in data["expected"].items()
    }
    return Golden(path.stem, data["route"], date.fromisoformat(data["day"]), data["given"], expected)


def golden_row(where: str, contract: Table, written: Mapping[str, Any]) -> Row:
    """Return a row as it is written, its values in the types of the columns."""
    empty = list(written[WITHOUT])
    filled = {name: value for name, value in written.items() if name != WITHOUT}
    names = sorted([*filled, *empty])
    wanted = sorted([*contract.names, *OF_ROW])
    assert names == wanted, f"{where}: {set(names) ^ set(wanted) or 'a column is there twice'}"
    types = {column.name: column.type for column in contract.all_columns}
    return dict.fromkeys(empty) | {name: _typed(types[name], value) for name, value in filled.items()}


def _typed(kind: str, text: Any) -> Any:
    """Return a value of a column's type. Money, quantities and times are written as text."""
    match kind:
        case "BIGNUMERIC":
            assert isinstance(text, str), f"{text!r} has to be quoted"
            return Decimal(text)
        case "TIMESTAMP":
            return datetime.fromisoformat(text)
        case "DATE":
            return date.fromisoformat(text)
        case "JSON":
            return _plain(text)
    return text


def _plain(value: Any) -> Any:
    """JSON's numbers as Decimals: a float is not equal to the number that is written.

    A decimal that SQL has made a text has no noughts at its end in BigQuery, and 18 places on the emulator.
    """
    match value:
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case float():
            return Decimal(repr(value))
        case str() if EMULATED.fullmatch(value):
            return value.rstrip("0").removesuffix(".")
    return value


@dataclass(frozen=True)
class Call:
    """One call of a procedure, and the rows that it staged."""

    params: ProcedureParams
    days: tuple[date, date]
    rows: Sequence[Row]


class GoldenWorld:
    """The shipped pipelines' steps, run on a dataset of the emulator."""

    def __init__(self, dataset: Dataset, configs: Path) -> None:
        self._dataset, self._tree = dataset, ConfigTree(configs, REGISTRY)
        self.filled: dict[str, list[Row]] = {}
        self.calls: list[Call] = []

    def run(self, cases: Sequence[Golden]) -> dict[tuple[str, str], list[Row]]:
        """Return the rows that come of each case, by case and table."""
        filled: dict[str, list[Row]] = {}
        for case in cases:
            for table, rows in self._extracted(case).items():
                filled.setdefault(table, []).extend(rows)
        days = [case.day for case in cases]
        self.filled = filled
        for table, rows in filled.items():
            self._dataset.put(table, rows, (min(days), max(days)))
        return self._converted(cases)

    def _converted(self, cases: Sequence[Golden]) -> dict[tuple[str, str], list[Row]]:
        made: dict[tuple[str, str], list[Row]] = {}
        for params in {params for case in cases for params in self._procedures(case)}:
            its = [case for case in cases if params in self._procedures(case)]
            days = sorted(case.day for case in its)
            assert params.destination_table is not None
            into = load_table(CONFIGS, params.destination_table)
            rows = self._dataset.run(params, into, start_date=days[0], end_date=days[-1])
            self.calls.append(Call(params, (days[0], days[-1]), rows))
            for case in its:
                made[case.name, into.table] = [_of_row(row, into) for row in rows if row[DATA_DATE] == case.day]
        return made

    def _procedures(self, case: Golden) -> list[ProcedureParams]:
        steps = self._tree.load(case.route).config.steps
        return [ProcedureParams.model_validate(step.config) for step in steps if step.ps_type == PROCEDURE]

    def _extracted(self, case: Golden) -> dict[str, list[Row]]:
        """Return what the steps before the procedures write into the tables that those read."""
        wanted = {table for params in self._procedures(case) for table in (params.source_table, *params.further_tables)}
        steps = [step for step in self._tree.load(case.route).config.steps if "destination_table" in step.config]
        wanted |= {step.config.get("source_table") for step in steps if step.config["destination_table"] in wanted}
        made: dict[str, list[Row]] = {}
        with _provider(case, self._dataset) as context:
            for step in (step for step in steps if step.ps_type != PROCEDURE):
                table, source = step.config["destination_table"], step.config.get("source_table")
                if table not in wanted:
                    continue
                config = dict(step.config) | context.pop("config", {})
                if source is not None:
                    context["warehouse"] = FakeWarehouse([_every_column(source, row) for row in made.pop(source)])
                processor = registry.processor(step.ps_type)
                ready = make_context(
                    start_date=case.day, end_date=case.day, org_slug="acme", configs=self._tree.root, **context
                )
                rows = made.setdefault(table, [])
                for batch in processor.run(ready, processor.params_type.model_validate(config)):
                    assert not batch.bad, [str(bad) for bad in batch.bad]
                    rows += [dict(row) for row in _as_dicts(batch.rows)]
        return made


def _every_column(table: str, row: Row) -> Row:
    """A row as the warehouse answers it: with all columns."""
    return dict.fromkeys(load_table(CONFIGS, table).names) | row


def _as_dicts(rows: Any) -> Sequence[Row]:
    return cast(Sequence[Row], rows.to_pylist() if hasattr(rows, "to_pylist") else rows)


def _of_row(row: Row, contract: Table) -> Row:
    stamped = {column.name for column in contract.all_columns} - {*contract.names, *OF_ROW}
    assert not any(row.get(name) for name in stamped), "the engine stamps those"
    return {name: _plain(row[name]) for name in (*contract.names, *OF_ROW)}


@contextmanager
def _provider(case: Golden, dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Put the case's input where the steps look for it; yield what their context needs for that."""
    given = case.given
    landing = dataset.folder / case.name
    landing.mkdir()
    for name, files in given.get("zip", {}).items():
        with zipfile.ZipFile(landing / name, "w") as archive:
            for inner, text in files.items():
                archive.writestr(inner, text)
    for name, content in given.get("file", {}).items():
        (landing / name).write_bytes(_content(content))

    def answer(request: Request) -> Answer | None:
        asked = f"{request.method} {request.path} {request.query} {request.body.decode()}"
        for prepared in given.get("answers", ()):
            if prepared["asked"] in asked:
                return Answer(200, prepared["answer"].encode(), prepared.get("headers", {}))
        return None

    with SandboxServer(1, fail_with=answer, rate_limit_every=0) as server:
        for provider, objects in given.get("objects", {}).items():
            bucket: Any = server.provider(provider)
            bucket.extra |= {name: _content(content) for name, content in objects.items()}
        context: dict[str, Any] = {
            "landing": landing,
            "source": next(iter((*given.get("zip", ()), *given.get("file", ()))), None),
            "provider_url": lambda name: server.urls[name.replace(".", "_")],
        }
        google = GoogleCloudAdapter(PROJECT, lambda: server.urls["gcp_token"])
        context["google"] = lambda: google
        if "secret" in given:
            context["secret"] = lambda: server.secrets[given["secret"]]
        if "export" in given:
            context |= _export(given["export"], dataset)
        yield context


def _csv(written: Any) -> str:
    """A record (or some) as CSV below a header: readable in YAML, where a line of 65 fields is not."""
    records = written if isinstance(written, list) else [written]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(records[0])
    for record in records:
        assert [*record] == [*records[0]], "each record has the fields of the first"
        fields = [value if isinstance(value, str) else json.dumps(value, default=float) for value in record.values()]
        writer.writerow(fields)
    return text.getvalue()


def _content(content: Any) -> bytes:
    return content.encode() if isinstance(content, str) else _csv(content).encode()


def _export(rows: Sequence[Mapping[str, Any]], dataset: Dataset) -> dict[str, Any]:
    """Google's billing export on the emulator, read by the real client; the step's config says where it is."""
    name = dataset.name.partition(".")[2]
    warehouse: BigQueryWarehouse = dataset.warehouse
    write_export(warehouse.connection.client, f"{dataset.name}.export", json.loads(json.dumps(rows, default=float)))
    url = warehouse.connection._emulator_url
    cloud = GoogleCloudAdapter(PROJECT, lambda: "http://127.0.0.1:1", bigquery_url=url)
    return {
        "google": lambda: cloud,
        "secret": lambda: json.dumps({"type": "application_default"}),
        "config": {"project": PROJECT, "dataset": name, "table": "export"},
    }


def own_configs(folder: Path) -> Path:
    """Copy the shipped configs, with the prices and subscriptions of the organisation of the golden rows."""
    made = folder / "configs"
    shutil.copytree(CONFIGS, made)
    shutil.copytree(FOLDER / "configs", made, dirs_exist_ok=True)
    return made
