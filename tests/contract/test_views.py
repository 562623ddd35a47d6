"""The questions as views, on the emulator: figures worked out by hand, and how the views come into a dataset."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.focus.views import View, alone, load_views
from common.platform.errors import ConfigError, PermanentError
from common.platform.paths import CONFIGS
from common.platform.settings import Settings
from infra.bootstrap_sync import sync
from tests.conftest import PROJECT
from tests.focus.rows import Row, charge, clean_rows, consumed, priced, usage
from tests.focus.tables import FOCUS, fill
from tests.loaded import dropped

VIEWS = load_views(CONFIGS)
OCTOBER = date(2026, 10, 1)
numbers = itertools.count()


def on(day: date, row: Row) -> Row:
    """Return the row as one of that day."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return row | {
        "x_pipeline_run_date": day,
        "ChargePeriodStart": start,
        "ChargePeriodEnd": start + timedelta(days=1),
    }


def spent(provider: str, costs: dict[date, str], service: str = "Machines", **more: Any) -> list[Row]:
    """Return one row of usage for each day."""
    sku = {**priced("sku", "1", "Hours", "1"), **consumed("1", "Hours")}
    of = {"ServiceProviderName": provider, "ServiceName": service, "ServiceCategory": "Compute", **more}
    return [
        on(day, usage("hours", cost, **{**sku, **of, "ListCost": Decimal(cost), "ContractedCost": Decimal(cost)}))
        for day, cost in costs.items()
    ]


def daily(first: date, *costs: str) -> dict[date, str]:
    return {first + timedelta(days=number): cost for number, cost in enumerate(costs)}


@dataclass
class Dataset:
    """A dataset of its own, and what a view says about it."""

    warehouse: BigQueryWarehouse
    folder: Path
    name: str

    def put(self, rows: Sequence[Row]) -> None:
        fill(self.warehouse, self.folder, f"{self.name}.{FOCUS.table}", FOCUS, rows)

    def ask(self, view: str, select: str) -> list[dict[str, Any]]:
        return list(self.warehouse.query(alone(VIEWS, view, self.name) + select))


@pytest.fixture
def dataset(warehouse: BigQueryWarehouse, tmp_path: Path) -> Iterator[Dataset]:
    with dropped(warehouse, f"{PROJECT}.views{next(numbers)}") as name:
        yield Dataset(warehouse, tmp_path, name)


def test_costs_of_a_day_are_summed_by_provider_service_model_and_team(dataset: Dataset) -> None:
    """Of virtual machines 2.16 are shop's; the rest has no team: 0 + 0 + 2 + 0.5 - 0.4 - 1 = 1.1, at either cost."""
    dataset.put(clean_rows())
    order = "ORDER BY provider, service, model, team"
    rows = dataset.ask("cost_daily", f"SELECT * FROM cost_daily {order}")
    found = [(r["service"], r["model"], r["team"], r["billed_cost"], r["effective_cost"], r["charges"]) for r in rows]
    assert found == [
        ("Clusters", None, "shop", Decimal("0.75"), Decimal("0.75"), 1),
        ("Tax", None, None, Decimal("0.57"), Decimal("0.57"), 1),
        ("Virtual machines", None, None, Decimal("1.1"), Decimal("1.1"), 6),
        ("Virtual machines", None, "shop", Decimal("2.16"), Decimal("2.16"), 1),
        ("OpenAI API", "gpt-4o", None, Decimal("0.08"), Decimal("0.08"), 2),
        ("OpenAI API", "gpt-4o", "support", Decimal("0.03"), Decimal("0.03"), 1),
    ]
    assert {(r["day"], r["currency"]) for r in rows} == {(date(2026, 10, 5), "USD")}


@pytest.mark.parametrize(
    ("tags", "allocated", "team"),
    [
        ({"team": "shop"}, None, "shop"),
        ({"Team": " shop "}, None, "shop"),
        ({"user:team": "shop"}, None, "shop"),
        ({"team": "platform"}, {"team": "shop"}, "shop"),
        ({"team": ""}, None, None),
        ({"teams": "shop"}, None, None),
        ({}, None, None),
        (None, None, None),
    ],
)
def test_the_team_is_that_of_the_workload_then_that_of_the_resource_and_a_blank_one_is_none(
    warehouse: BigQueryWarehouse, tags: Any, allocated: Any, team: str | None
) -> None:
    """The view's own text, on two columns instead of a table."""
    (view,) = [view for view in VIEWS if view.name == "cost_charges"]
    expression = view.text[view.text.index("NULLIF(") : view.text.index(" AS team")]
    literals = [f"PARSE_JSON('{_json(value)}')" if value is not None else "NULL" for value in (tags, allocated)]
    source = f"SELECT CAST({literals[0]} AS JSON) AS Tags, CAST({literals[1]} AS JSON) AS AllocatedTags"
    (row,) = warehouse.query(f"SELECT {expression} AS team FROM ({source})")
    assert row["team"] == team


def _json(value: Any) -> str:
    import json

    return json.dumps(value)


def test_a_month_is_carried_forward_at_the_mean_of_the_last_seven_days(dataset: Dataset) -> None:
    """Worked out by hand; October has 31 days, and the last day with data is the 10th.

    Steady: 10+20+30 + 10+20+30+10+20+30+20 = 200, less a credit of 5. The last 7 days are 140, so 20 a day: 21 days of
    that are 420. Late: 7 days of 7, two days behind: 23 are left. Silent was last seen 9 days before. New has 2 days,
    3 and 5. Rare has cost on 2 of its 6 days, 6 each: 2 a day, 0 at least, 6 at most.
    """
    ninth = date(2026, 10, 9)
    dataset.put(
        [
            *spent("Steady", daily(OCTOBER, "10", "20", "30", "10", "20", "30", "10", "20", "30", "20")),
            *spent("Steady", {date(2026, 9, 30): "8"}, service="Old"),
            on(date(2026, 10, 6), _credit("Steady")),
            *spent("Late", daily(date(2026, 10, 2), *["7"] * 7)),
            *spent("Silent", {OCTOBER: "4"}),
            *spent("New", daily(ninth, "3", "5")),
            *spent("Rare", {date(2026, 10, 5): "6", date(2026, 10, 10): "6"}),
            *spent("Prophet", {date(2099, 1, 1): "99"}),
        ]
    )
    rows = dataset.ask("cost_months", "SELECT * FROM cost_months ORDER BY month, provider")
    columns = ("effective_to_date", "days_left", "forecast", "forecast_low", "forecast_high")
    found = {(r["provider"], r["month"].month): tuple(int(r[name]) for name in columns) for r in rows}
    assert found == {
        ("Steady", 9): (8, 0, 8, 8, 8),
        ("Steady", 10): (195, 21, 615, 405, 825),
        ("Late", 10): (49, 23, 210, 210, 210),
        ("Silent", 10): (4, 0, 4, 4, 4),
        ("New", 10): (8, 21, 92, 71, 113),
        ("Rare", 10): (12, 21, 54, 12, 138),
    }
    assert all(r[name] == int(r[name]) for r in rows for name in columns)


def _credit(provider: str) -> Row:
    more = {"ServiceProviderName": provider, "ServiceName": "Machines", "ServiceCategory": "Compute"}
    return charge("credit", "-5", ChargeCategory="Credit", ChargeFrequency="One-Time", **more)


def test_a_provider_that_is_a_few_days_behind_has_a_line_for_the_new_month(dataset: Dataset) -> None:
    """1 a day until 29 September; the other provider is at 2 October: 31 days of 1 are to come."""
    dataset.put([*spent("Ahead", {date(2026, 10, 2): "1"}), *spent("Behind", daily(date(2026, 9, 20), *["1"] * 10))])
    rows = dataset.ask("cost_months", "SELECT * FROM cost_months WHERE provider = 'Behind' ORDER BY month")
    assert [(r["month"].month, r["effective_to_date"], r["forecast"]) for r in rows] == [(9, 10, 10), (10, 0, 31)]


def test_a_thousand_tokens_cost_what_all_of_them_cost_a_thousandth_of(dataset: Dataset) -> None:
    """12,000 for 0.03 are 0.0025 a thousand; 40,000 for 0.05 are 0.00125; 3,000 for 0.03 are 0.01."""
    dataset.put(clean_rows())
    rows = dataset.ask("cost_per_1k_tokens", "SELECT * FROM cost_per_1k_tokens ORDER BY token_type")
    assert [(r["token_type"], r["tokens"], r["effective_cost"], r["cost_per_1k"]) for r in rows] == [
        ("input_cached_text", 40000, Decimal("0.05"), Decimal("0.00125")),
        ("input_text", 12000, Decimal("0.03"), Decimal("0.0025")),
        ("output_text", 3000, Decimal("0.03"), Decimal("0.01")),
    ]


def test_a_day_that_is_far_from_the_28_before_is_told_and_what_is_usual_or_small_is_not(dataset: Dataset) -> None:
    """28 days of 10 and 11 in turn: median 10.5, MAD 0.5, so 2.59455 off is still usual."""
    first, last = date(2026, 9, 1), date(2026, 9, 29)
    turns = ["10", "11"] * 14
    services = {
        "dear": [*turns, "13.1"],
        "usual": [*turns, "13.09"],
        "steady, a fifth more": [*["100"] * 28, "120"],
        "steady, over a fifth more": [*["100"] * 28, "120.01"],
        "small": [*["0.1"] * 28, "1.05"],
        "stopped": ["50"] * 28,
    }
    rows = [row for name, costs in services.items() for row in spent("Cloud", daily(first, *costs), service=name)]
    rows += spent("Cloud", daily(last - timedelta(days=13), *["1"] * 13, "999"), service="too new")
    dataset.put(rows)
    found = dataset.ask("cost_anomalies", "SELECT * FROM cost_anomalies ORDER BY service")
    assert [(r["service"], r["day"], r["cost"], r["expected"], r["difference"], r["tolerance"]) for r in found] == [
        ("dear", last, Decimal("13.1"), Decimal("10.5"), Decimal("2.6"), Decimal("2.59455")),
        ("steady, over a fifth more", last, Decimal("120.01"), 100, Decimal("20.01"), 20),
        ("stopped", last, 0, 50, -50, 10),
    ]


def test_costs_without_a_team_are_listed_by_month_account_and_kind_of_charge(dataset: Dataset) -> None:
    dataset.put(clean_rows())
    order = "ORDER BY provider, category, service, sub_account"
    rows = dataset.ask("cost_unallocated", f"SELECT * FROM cost_unallocated {order}")
    assert [(r["month"], r["category"], r["sub_account"], r["effective_cost"], r["charges"]) for r in rows] == [
        (OCTOBER, "Credit", None, Decimal("-1"), 1),
        (OCTOBER, "Purchase", "Shop", 0, 1),
        (OCTOBER, "Tax", None, Decimal("0.57"), 1),
        (OCTOBER, "Usage", "Shop", Decimal("2.1"), 4),
        (OCTOBER, "Usage", "Support", Decimal("0.08"), 2),
    ]


def test_bootstrap_sync_makes_views_that_answer_and_remakes_those_whose_text_has_changed(
    warehouse: BigQueryWarehouse, tmp_path: Path
) -> None:
    settings = Settings(project_id=PROJECT, state_dir=tmp_path)

    def synced(*, apply: bool) -> list[tuple[str, str]]:
        found = sync(warehouse, settings, ["viewed"], apply=apply)
        return [(one.table, one.change.action) for one in found if one.table in {view.name for view in VIEWS}]

    made = [(view.name, "create") for view in VIEWS]
    assert synced(apply=False) == made and synced(apply=True) == made and synced(apply=True) == []
    dataset = f"{PROJECT}.viewed_local"
    fill(warehouse, tmp_path, f"{dataset}.{FOCUS.table}", FOCUS, clean_rows())
    (row,) = warehouse.query(f"SELECT SUM(billed_cost) AS billed FROM `{dataset}.cost_daily`")
    assert row["billed"] == sum(one["BilledCost"] for one in clean_rows())
    found = warehouse.connection.client.get_table(f"{dataset}.cost_daily")
    assert found.description.startswith("What was spent on each day") and '"' in _description(warehouse, dataset)

    target = f"{dataset}.cost_daily"
    warehouse.tables.make_view(target, "SELECT 1 AS n", description="by hand", state="other")
    assert synced(apply=True) == [("cost_daily", "replace")]
    assert next(warehouse.query(f"SELECT COUNT(*) AS n FROM `{target}`"))["n"] == 6


def _description(warehouse: BigQueryWarehouse, dataset: str) -> str:
    return str(warehouse.connection.client.get_table(f"{dataset}.cost_charges").description)


def test_a_table_in_the_place_of_a_view_is_left_alone(warehouse: BigQueryWarehouse, tmp_path: Path) -> None:
    target = f"{PROJECT}.taken_local.cost_daily"
    warehouse.ensure_table(target, FOCUS.model_copy(update={"table": "cost_daily"}))
    with pytest.raises(PermanentError, match="is a table, no view"):
        warehouse.tables.make_view(target, "SELECT 1 AS n", description="", state="s")
    differences = sync(warehouse, Settings(project_id=PROJECT, state_dir=tmp_path), ["taken"], apply=True)
    refused = [one.table for one in differences if one.change.action == "refused"]
    assert refused == ["cost_daily"] and warehouse.tables.find(target) is not None


def test_a_view_comes_after_those_it_reads_and_a_circle_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "sql" / "views"
    folder.mkdir(parents=True)
    for name, reads in (("a", "c"), ("b", "costs"), ("c", "b")):
        (folder / f"{name}.sql").write_text(f"-- {name} is {name}.\nSELECT * FROM `{{dataset}}.{reads}`\n")
    assert [view.name for view in load_views(tmp_path)] == ["b", "c", "a"]
    text = " ".join(alone(load_views(tmp_path), "c", "p.d").split())
    assert text == "WITH b AS ( -- b is b. SELECT * FROM `p.d.costs` ), c AS ( -- c is c. SELECT * FROM b )"
    with pytest.raises(ConfigError, match=r"no view 'aa'\. Did you mean 'a'\?"):
        alone(load_views(tmp_path), "aa", "p.d")
    (folder / "b.sql").write_text("SELECT * FROM `{dataset}.a`\n")
    with pytest.raises(ConfigError, match="form a cycle"):
        load_views(tmp_path)


def test_the_description_of_a_view_is_the_comment_at_its_head() -> None:
    view = View("v", "-- What it is,\n-- in two lines.\n--\n-- And more.\nSELECT 1 -- not this\n")
    assert view.description == "What it is, in two lines.\n\nAnd more."
    assert all(view.description for view in VIEWS)
