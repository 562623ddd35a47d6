"""``ExternalBqExtractor``: what it asks of a table, in whose name, and what it refuses."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from common.platform.errors import ConfigError, PermanentError
from common.ports.google import SourceField, SourceTable
from common.processors.base import Params
from common.processors.sql.external_bq import ExternalBqExtractor, ExternalBqParams
from common.processors.sql.external_bq_days import ChangedDaysParams
from common.processors.sql.external_sql import ExternalTable
from common.tables.contract import Column
from tests.processors.context import make_context

KEY = {"type": "service_account", "project_id": "customer-1", "private_key": "-----SECRET-----"}
TABLE = SourceTable(
    {
        "billing_account_id": SourceField("STRING"),
        "usage_start_time": SourceField("TIMESTAMP"),
        "export_time": SourceField("TIMESTAMP"),
        "cost": SourceField("FLOAT64"),
        "currency": SourceField("STRING"),
        "labels": SourceField("RECORD", repeated=True),
        "project": SourceField("RECORD"),
        "project.id": SourceField("STRING"),
        "usage": SourceField("RECORD"),
        "usage.amount_in_pricing_units": SourceField("FLOAT64"),
        "price": SourceField("RECORD"),
        "price.list_price": SourceField("NUMERIC"),
        "price.pricing_unit_quantity": SourceField("NUMERIC"),
    },
    "_PARTITIONDATE",
)
DAYS = date(2026, 10, 5), date(2026, 10, 6)


@dataclass
class Recording:
    """Keeps what it is asked, and gives the same rows whatever that is."""

    table: SourceTable | None = TABLE
    rows: Sequence[Mapping[str, Any]] = ()
    asked: list[tuple[str | None, str]] = field(default_factory=list)
    token_of: str = ""

    def token(self, key: str | None, scopes: Sequence[str], *, timeout_s: float) -> str:
        assert self.token_of, "a table is read by Google's client, which gets its own tokens"
        assert timeout_s > 0
        self.asked.append((key, *scopes))
        return self.token_of

    def find_table(self, key: str | None, table_id: str) -> SourceTable | None:
        self.asked.append((key, table_id))
        return self.table

    def read(self, key: str | None, sql: str, params: Mapping[str, Any], *, max_bytes: int) -> Iterator[pa.RecordBatch]:
        self.asked.append((key, sql))
        if self.rows:
            yield pa.RecordBatch.from_pylist(list(self.rows))


def external(table: SourceTable = TABLE, **more: Any) -> ExternalTable:
    kept: dict[str, Any] = {"equal": {}, "unequal": {}, "label_path": "labels", "labels": {}} | more
    return ExternalTable("p.d.t", table, "usage_start_time", **kept)


def where(select: Any) -> str:
    return str(select.sql).partition("\nWHERE ")[2]


def test_only_partitions_since_the_day_before_the_first_are_read_and_no_last_one_is_set() -> None:
    """Rows of a day can come at any time after it."""
    assert where(external().rows([], *DAYS)).splitlines()[-1] == (
        "  AND _PARTITIONDATE >= DATE_SUB(@first, INTERVAL @lead DAY)"
    )


@pytest.mark.parametrize(
    ("partition", "said"),
    [
        ("export_time", "`export_time` >= TIMESTAMP(DATE_SUB(@first, INTERVAL @lead DAY))"),
        ("usage_start_time", "`usage_start_time` < TIMESTAMP(DATE_ADD(@last, INTERVAL 1 DAY))"),
        ("", "`usage_start_time` < TIMESTAMP(DATE_ADD(@last, INTERVAL 1 DAY))"),
    ],
)
def test_whatever_a_table_is_partitioned_by_is_filtered(partition: str, said: str) -> None:
    assert where(external(SourceTable(TABLE.fields, partition)).rows([], *DAYS)).endswith(said)


def test_values_are_parameters_and_never_a_part_of_the_sql() -> None:
    evil = "x' OR TRUE --"
    select = external(equal={"project.id": [evil]}, unequal={"currency": [evil]}, labels={evil: [evil]}).rows([], *DAYS)
    assert evil not in select.sql
    assert sum(value == evil for value in select.params.values()) == 4
    assert "CAST(`project`.`id` AS STRING) IN (@e0_0)" in select.sql
    assert "COALESCE(CAST(`currency` AS STRING) NOT IN (@u0_0), TRUE)" in select.sql
    assert "l.key = @k0 AND l.value IN (@l0_0)" in select.sql


@pytest.mark.parametrize("path", ["cost`; DROP TABLE x", "cost)", "a..b", "", "a-b", "é"])
def test_a_path_that_is_no_name_is_refused(path: str) -> None:
    for config in ({"day_column": path}, {"day_column": "t", "columns": {"cost": path}}, {"equal": {path: ["x"]}}):
        with pytest.raises(ValidationError):
            ExternalBqParams.model_validate({"destination_table": "t", "day_column": "d", **config})


def test_money_that_comes_as_a_float_is_taken_by_its_shortest_text() -> None:
    """Cast directly, 0.1 would become 0.1000000000000000055511151231257827021182."""
    (line,) = (
        line for line in external().rows([(Column(name="cost", type="BIGNUMERIC"), "cost")], *DAYS).sql.split("\n")
        if "AS `cost`" in line
    )  # fmt: skip
    assert line.strip() == "CAST(CAST(`cost` AS STRING) AS BIGNUMERIC) AS `cost`"


def test_changed_days_are_the_runs_own_and_those_with_rows_since() -> None:
    select = external().changed_days("export_time", date(2026, 8, 4), *DAYS)
    assert where(select).splitlines()[:2] == [
        "DATE(`usage_start_time`) BETWEEN @earliest AND @last",
        "  AND (DATE(`usage_start_time`) >= @first OR DATE(`export_time`) >= @first)",
    ]


def params(**more: Any) -> ExternalBqParams:
    config = {
        "destination_table": "gcp_billing_export",
        "day_column": "usage_start_time",
        "columns": {"billing_account_id": "billing_account_id", "cost": "cost", "currency": "currency"},
    }
    return ExternalBqParams.model_validate(config | more)


def extracted(cloud: Recording, credential: Any, its: ExternalBqParams, **context: Any) -> list[dict[str, Any]]:
    made = make_context(google=lambda: cloud, secret=lambda: json.dumps(credential), **context)
    return [row for batch in ExternalBqExtractor().run(made, its) for row in batch.rows.to_pylist()]  # type: ignore[union-attr]


def test_a_credential_opens_the_table_that_it_names_with_its_own_key() -> None:
    cloud = Recording()
    credential = {"service_account": KEY, "project": "customer-1", "dataset": "billing", "table": "export"}
    extracted(cloud, credential, params())
    assert [json.loads(key or "") for key, _ in cloud.asked] == [KEY, KEY]
    assert cloud.asked[0][1] == "customer-1.billing.export"


def test_what_the_config_names_goes_before_what_the_credential_names() -> None:
    cloud = Recording()
    credential = {"service_account": KEY, "project": "customer-1", "dataset": "billing", "table": "export"}
    extracted(cloud, credential, params(table="focus"))
    assert cloud.asked[0][1] == "customer-1.billing.focus"


def test_our_own_identity_reads_only_what_the_config_names() -> None:
    """It may see what other organisations have opened for it, too."""
    cloud = Recording()
    ours = {"type": "application_default"}
    with pytest.raises(PermanentError, match="names the function's own identity, and more"):
        extracted(cloud, ours | {"project": "victim-1", "dataset": "d", "table": "t"}, params())
    with pytest.raises(PermanentError, match="Neither the step's config nor the credential 'cred_openai' names"):
        extracted(cloud, ours, params())
    assert cloud.asked == []
    extracted(cloud, ours, params(project="customer-1", dataset="billing", table="export"))
    assert cloud.asked[0] == (None, "customer-1.billing.export")


@pytest.mark.parametrize(
    "credential",
    [
        {"type": "external_account", "credential_source": {"executable": {"command": "id"}}},
        {"service_account": {"type": "authorized_user", "refresh_token": "SECRET"}},
        {"service_account": "SECRET"},
        ["SECRET"],
        {},
    ],
)
def test_only_a_service_accounts_key_is_taken_and_none_is_repeated(credential: Any) -> None:
    """Other kinds of Google's credential files can name a command to run, or an address to ask."""
    with pytest.raises(PermanentError) as caught:
        extracted(Recording(), credential, params(project="customer-1", dataset="d", table="t"))
    assert "credentials add" in str(caught.value) and "SECRET" not in str(caught.value)


@pytest.mark.parametrize("name", ["a`.b", "x y", "../up", "d;DROP"])
def test_a_name_of_a_table_that_is_none_is_refused(name: str) -> None:
    credential = {"service_account": KEY, "project": "customer-1", "dataset": "billing", "table": name}
    with pytest.raises(PermanentError, match="has in 'table' what can't be one"):
        extracted(Recording(), credential, params())


READ = {"project": "customer-1", "dataset": "billing", "table": "export"}
READ_ID = "customer-1.billing.export"


def test_a_table_that_is_not_there_is_told_with_what_may_be_the_reason() -> None:
    with pytest.raises(
        PermanentError, match=r"no table customer-1\.billing\.export\. A billing export appears some hours"
    ):
        extracted(Recording(table=None), KEY, params(**READ))


def test_a_field_that_is_not_there_is_null_and_one_that_is_needed_is_told() -> None:
    cloud = Recording()
    extracted(cloud, KEY, params(**READ, columns={"cost": "cost", "zone": "location.zone"}))
    assert "CAST(NULL AS STRING) AS `zone`" in cloud.asked[1][1]
    with pytest.raises(PermanentError, match=r"no field 'costs', which cost needs\. Did you mean 'cost'\?"):
        extracted(cloud, KEY, params(**READ, columns={"cost": "costs"}))
    with pytest.raises(PermanentError, match=r"columns\.zon: .* no such column\. Did you mean 'zone'\?"):
        extracted(cloud, KEY, params(**READ, columns={"zon": "cost"}))


def test_products_and_quotients_are_exact_and_of_nothing_nothing() -> None:
    """0.4 for a million: 2,500,001 requests are 2.500001 of them, 1.0000004."""
    columns = {
        "pricing_amount": "usage.amount_in_pricing_units",
        "pricing_unit_quantity": "price.pricing_unit_quantity",
        "list_price": "price.list_price",
        "list_cost": {"product": ["list_price", "pricing_quantity"]},
        "pricing_quantity": {"quotient": ["pricing_amount", "pricing_unit_quantity"]},
    }
    one = {"list_price": Decimal("0.4"), "pricing_amount": Decimal(2_500_001)}
    rows = [
        one | {"pricing_unit_quantity": Decimal(1_000_000)},
        one | {"pricing_unit_quantity": None},
        {"list_price": None, "pricing_amount": Decimal(1), "pricing_unit_quantity": Decimal(3)},
    ]
    found = extracted(Recording(rows=rows), KEY, params(**READ, columns=columns))
    assert [(row["pricing_quantity"], row["list_cost"]) for row in found] == [
        (Decimal("2.500001"), Decimal("1.0000004")),
        (Decimal(2_500_001), Decimal("1000000.4")),
        (Decimal("0.333333333333333333"), None),
    ]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": {"product": ["b", "c"]}, "b": "b"}, "'c' is not a column of this step"),
        ({"a": {"quotient": ["a", "b"]}, "b": "b"}, "'a' is not a column of this step"),
        ({"a": {"sum": ["b", "b"]}, "b": "b"}, "columns"),
    ],
)
def test_what_can_not_be_worked_out_is_refused_beforehand(columns: dict[str, Any], said: str) -> None:
    with pytest.raises((ValidationError, ConfigError), match=said):
        params(columns=columns)


def test_services_of_no_known_kind_are_other_and_told() -> None:
    rows = [
        {"service_description": name} for name in ("Compute Engine", "Cloud SQL for Postgres", "Quantum Toaster", None)
    ]
    infos: list[str] = []
    its = params(
        **READ,
        columns={"service_description": "project.id"},
        categorise={"provider": "gcp", "service": "service_description"},
    )
    found = extracted(Recording(rows=rows), KEY, its, info=infos.append)
    assert [row["service_subcategory"] for row in found] == [
        "Virtual Machines",
        "Relational Databases",
        "Other (Other)",
        "Other (Other)",
    ]
    assert infos == ["1 services are in no category of service_categories.yml and become Other: Quantum Toaster."]


# Credentials tried without a run

OWNED = KEY | {"client_email": "bills@customer-1.iam.gserviceaccount.com", "private_key_id": "1"}
NAMED = {"service_account": OWNED, "project": "customer-1", "dataset": "billing", "table": "export"}


def tried(cloud: Recording, credential: Any, *steps: Params) -> str:
    context = make_context(google=lambda: cloud, secret=lambda: "")
    return ExternalBqExtractor().try_credential(context, json.dumps(credential), steps)


def days_params(**more: Any) -> ChangedDaysParams:
    return ChangedDaysParams.model_validate({"day_column": "usage_start_time", "export_column": "export_time", **more})


def test_a_table_of_several_steps_is_described_once_and_never_queried() -> None:
    cloud = Recording(token_of="ya29.x")
    assert tried(cloud, NAMED, days_params(), params()) == (
        "service account bills@customer-1.iam.gserviceaccount.com; "
        "customer-1.billing.export: 13 fields, partitioned by _PARTITIONDATE"
    )
    assert [asked for _, asked in cloud.asked] == ["https://www.googleapis.com/auth/bigquery.readonly", READ_ID]


def test_fields_that_a_table_lacks_are_named_where_steps_can_do_without_them() -> None:
    cloud = Recording(token_of="ya29.x")
    found = tried(cloud, NAMED, params(columns={"cost": "cost", "zone": "location.zone"}))
    assert found.endswith(", without location.zone (their columns stay NULL)")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (params(columns={"cost": "costs"}), r"no field 'costs', which cost needs\. Did you mean 'cost'\?"),
        (params(equal={"projekt.id": ["x"]}), r"no field 'projekt\.id'\. Did you mean 'project\.id'\?"),
        (params(day_column="cost"), "'cost' of customer-1.billing.export is not a date or time"),
        (params(columns={"cost": "cost", "zone": "labels"}), "column 'zone' must be JSON"),
        (days_params(export_column="exported"), "no field 'exported'"),
    ],
)
def test_a_table_that_a_step_can_not_read_is_told_before_any_run(step: Params, said: str) -> None:
    with pytest.raises(PermanentError, match=said):
        tried(Recording(token_of="ya29.x"), NAMED, step)


def test_a_table_that_nobody_names_is_not_looked_at() -> None:
    cloud = Recording(token_of="ya29.x")
    assert "no table was checked, because neither the credential nor a config names one" in tried(
        cloud, OWNED, params()
    )
    assert len(cloud.asked) == 1, "the token alone"


def test_our_own_identity_looks_at_the_tables_that_configs_name_and_at_no_other() -> None:
    cloud, ours = Recording(), {"type": "application_default"}
    assert tried(cloud, ours, params()) == "the function's own identity: nothing to check"
    assert cloud.asked == []
    assert READ_ID in tried(cloud, ours, params(**READ), params())
    assert cloud.asked == [(None, READ_ID)]
