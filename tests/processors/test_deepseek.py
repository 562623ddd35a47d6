"""DeepSeek: the documented balance, exports as they really are, and an honest error where there is no API."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.config.loader import ConfigTree
from common.platform.errors import PermanentError, TransientError
from common.platform.paths import CONFIGS
from common.platform.settings import Settings
from common.processors.genai.payg_usage import GenaiPaygUsage, GenaiPaygUsageParams
from common.processors.genai.providers import deepseek
from common.processors.registry import REGISTRY
from common.runs.landing import land
from common.tables.contract import load_table
from infra.local.deepseek_export import write_deepseek_export
from infra.local.sandbox.deepseek import API_KEY, DeepSeekSandbox
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.server import SandboxServer
from tests.processors.context import NOW, RecordingContext, make_context

DAY = date(2026, 6, 3)
AMOUNT_HEADER = "user_id,utc_date,model,api_key_name,api_key,type,price,amount"
COST_HEADER = "user_id,utc_date,model,wallet_type,cost,currency"
# The rows of a real export in public code, ids shortened.
AMOUNTS = (
    "8ff3052b,2026-06-03,deepseek-v4-pro,my-key,sk-b6d90***52b1,output_tokens,0.00000087,23547",
    "8ff3052b,2026-06-03,deepseek-v4-pro,my-key,sk-b6d90***52b1,request_count,,5",
    "8ff3052b,2026-06-03,deepseek-v4-pro,my-key,sk-b6d90***52b1,input_cache_hit_tokens,0.000000003625,54400",
    "8ff3052b,2026-06-03,deepseek-v4-pro,my-key,sk-b6d90***52b1,input_cache_miss_tokens,0.000000435,39339",
)
COSTS = ("8ff3052b,2026-06-03,deepseek-v4-pro,Paid,0.0377955550000000,USD",)


def export(
    folder: Path,
    amounts: tuple[str, ...] = (AMOUNT_HEADER, *AMOUNTS),
    costs: tuple[str, ...] = (COST_HEADER, *COSTS),
    **more: str,
) -> Path:
    path = folder / "usage_data_2026_6.zip"
    files = {"amount-2026-6.csv": "\n".join(amounts), "cost-2026-6.csv": "\n".join(costs)} | more
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def read(folder: Path, report: str = "usage", **more: Any) -> list[dict[str, Any]]:
    of_context = {"start_date": DAY, "end_date": DAY, "landing": folder, "source": "usage_data_2026_6.zip"} | more
    return rows_of(make_context(**of_context), report)


def rows_of(context: RecordingContext, report: str) -> list[dict[str, Any]]:
    params = GenaiPaygUsageParams.model_validate({"destination_table": "t", "provider": "deepseek", "report": report})
    return [dict(row) for batch in GenaiPaygUsage().run(context, params) for row in batch.rows]


def test_a_real_export_becomes_tokens_with_the_price_that_it_states(tmp_path: Path) -> None:
    export(tmp_path)
    rows = read(tmp_path)
    assert {row["meter"]: (row["quantity"], row["stated_price"]) for row in rows} == {
        "output_text": (23547, Decimal("0.00000087")),
        "input_cached_text": (54400, Decimal("0.000000003625")),
        "input_text": (39339, Decimal("0.000000435")),
    }
    assert rows[0] == {
        "provider": "deepseek",
        "account_id": "8ff3052b",
        "endpoint": "export",
        "bucket_start": datetime(2026, 6, 3, tzinfo=UTC),
        "bucket_end": datetime(2026, 6, 4, tzinfo=UTC),
        "api_key_id": "my-key",
        "model": "deepseek-v4-pro",
        "meter": "output_text",
        "quantity": Decimal(23547),
        "unit": "Tokens",
        "requests": 5,
        "price_variant": "standard",
        "stated_price": Decimal("0.00000087"),
        "stated_currency": "USD",
        "x_pipeline_run_date": DAY,
    }
    assert set(rows[0]) <= {*load_table(CONFIGS, "genai_payg_usage").names, "x_pipeline_run_date"}


def test_its_prices_times_amounts_are_its_cost(tmp_path: Path) -> None:
    # 23547 x 0.00000087 + 54400 x 0.000000003625 + 39339 x 0.000000435 = 0.02048589 + 0.0001972 + 0.017112465
    export(tmp_path)
    (cost,) = read(tmp_path, "cost")
    assert sum(row["quantity"] * row["stated_price"] for row in read(tmp_path)) == cost["amount"]
    assert cost["amount"] == Decimal("0.037795555") and cost["credit"] is None


def test_what_granted_money_paid_is_a_credit(tmp_path: Path) -> None:
    export(tmp_path, costs=(COST_HEADER, *COSTS, "8ff3052b,2026-06-03,deepseek-v4-pro,granted,0.5,USD"))
    paid, granted = read(tmp_path, "cost")
    assert (paid["credit"], granted["amount"], granted["credit"]) == (None, Decimal("0.5"), Decimal("-0.5"))
    assert set(paid) <= {*load_table(CONFIGS, "genai_reported_cost").names, "x_pipeline_run_date"}


def test_the_api_key_of_an_export_is_never_read(tmp_path: Path) -> None:
    export(tmp_path, amounts=(AMOUNT_HEADER, *(line.replace("sk-b6d90***52b1", "sk-canary-1f2e") for line in AMOUNTS)))
    assert "sk-canary" not in str(read(tmp_path))


def test_a_day_may_have_two_prices_of_one_kind(tmp_path: Path) -> None:
    busy = AMOUNTS[0].replace("0.00000087,23547", "0.00000174,100")
    export(tmp_path, amounts=(AMOUNT_HEADER, *AMOUNTS, busy))
    assert sorted(r["stated_price"] for r in read(tmp_path) if r["meter"] == "output_text") == [
        Decimal("0.00000087"),
        Decimal("0.00000174"),
    ]


def test_older_layouts_are_read_too(tmp_path: Path) -> None:
    amounts = ("utc_date,model,type,price,amount", "20260603,deepseek-chat,input_tokens,0.00000014,7")
    export(tmp_path, amounts=amounts, costs=("utc_date,model,wallet_type,cost,currency", "20260603,m,Paid,1,CNY"))
    (row,) = read(tmp_path)
    assert (row["account_id"], row["meter"], row["requests"]) == ("cred_openai", "input_text", None)
    assert row["stated_currency"] == "CNY"


@pytest.mark.parametrize(
    ("amounts", "costs", "says"),
    [
        ([AMOUNT_HEADER + ",interval_start", AMOUNTS[0] + ",x"], None, "column 'interval_start' is not known"),
        (["utc_date,model,type,amount", "2026-06-03,m,output_tokens,1"], None, "column price is missing"),
        ([AMOUNT_HEADER, AMOUNTS[0].replace("output_tokens", "thought_tokens")], None, "column type: 'thought_tokens'"),
        ([AMOUNT_HEADER, AMOUNTS[0].replace("2026-06-03", "03.06.2026")], None, "column utc_date: '03.06.2026'"),
        ([AMOUNT_HEADER, AMOUNTS[0].replace("23547", "-1")], None, "column amount: '-1'"),
        ([AMOUNT_HEADER, AMOUNTS[0].replace("23547", "1.5")], None, "only whole tokens"),
        ([AMOUNT_HEADER, AMOUNTS[0].replace("0.00000087", "")], None, "column price: ''"),
        ([AMOUNT_HEADER], None, "has no amount row"),
        (None, [COST_HEADER], "has no cost row"),
        (None, [COST_HEADER, COSTS[0].replace("Paid", "loan")], "column wallet_type: 'loan'"),
        (None, [COST_HEADER, *COSTS, COSTS[0].replace("USD", "CNY")], "in which currency deepseek-v4-pro is priced"),
    ],
)
def test_what_can_not_be_read_for_sure_is_refused_with_its_place(
    tmp_path: Path, amounts: list[str] | None, costs: list[str] | None, says: str
) -> None:
    export(tmp_path, tuple(amounts or (AMOUNT_HEADER, *AMOUNTS)), tuple(costs or (COST_HEADER, *COSTS)))
    with pytest.raises(PermanentError) as caught:
        read(tmp_path)
    assert says in str(caught.value)


def test_a_file_that_is_no_whole_export_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PermanentError, match="not a whole ZIP file"):
        read(tmp_path)
    export(tmp_path, **{"readme-2026.csv": "x"})
    with pytest.raises(PermanentError, match=r"an export has amount-….csv and cost-….csv"):
        read(tmp_path)
    export(tmp_path)
    monkeypatch.setattr(deepseek, "MAX_BYTES", 10)
    with pytest.raises(PermanentError, match="unpacks to more than"):
        read(tmp_path)


def test_days_beyond_the_run_are_refused_with_the_dates_to_use(tmp_path: Path) -> None:
    export(tmp_path)
    with pytest.raises(PermanentError, match="--start-date 2026-06-03 --end-date 2026-06-03"):
        read(tmp_path, start_date=date(2026, 6, 1), end_date=date(2026, 6, 2))


@pytest.mark.parametrize("report", ["usage", "cost"])
def test_without_an_export_it_is_said_that_there_is_no_api(tmp_path: Path, report: str) -> None:
    with pytest.raises(PermanentError, match=r"no API for usage or cost.*--source"):
        read(tmp_path, report, source=None)


def test_a_generated_export_adds_up(tmp_path: Path) -> None:
    days = {"start_date": date(2026, 6, 1), "end_date": date(2026, 6, 30)}
    billed = write_deepseek_export(tmp_path / "usage_data_2026_6.zip", seed=1, first_day=days["start_date"], days=30)
    costs = read(tmp_path, "cost", **days)
    gross = sum(row["quantity"] * row["stated_price"] for row in read(tmp_path, **days))
    assert gross == sum(row["amount"] for row in costs) == billed.paid + billed.granted
    assert sum(row["credit"] or 0 for row in costs) == -billed.granted < 0


def test_landing_an_export_takes_its_days(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    body = land(settings, "acme_corp", "genai/payg/deepseek", export(tmp_path), dated=False)
    assert (body["start_date"], body["end_date"]) == ("2026-06-03", "2026-06-03")
    assert (settings.landing / "acme_corp" / body["source"]).is_file()


# The balance


@contextmanager
def sandbox(*answers: Answer, **more: Any) -> Iterator[tuple[RecordingContext, dict[str, Any]]]:
    outputs: dict[str, Any] = {}
    today = {"start_date": NOW.date(), "end_date": NOW.date()}
    with SandboxServer(1, fail_with=list(answers), rate_limit_every=0) as server:
        urls = {"provider_url": lambda key: server.urls[key], "put_out": outputs.__setitem__}
        yield make_context(**{"secret": lambda: API_KEY, **urls, **today, **more}), outputs


DOCUMENTED = {
    "is_available": True,
    "balance_infos": [
        {"currency": "CNY", "total_balance": "110.00", "granted_balance": "10.00", "topped_up_balance": "100.00"}
    ],
}


def test_the_documented_balance_becomes_a_row_of_the_runs_last_day() -> None:
    with sandbox(Answer(200, DOCUMENTED)) as (context, outputs):
        (row,) = rows_of(context, "balance")
    assert row == {
        "provider": "deepseek",
        "account_id": "cred_openai",
        "taken_at": NOW,
        "currency": "CNY",
        "total": Decimal(110),
        "granted": Decimal(10),
        "topped_up": Decimal(100),
        "is_available": True,
        "x_pipeline_run_date": NOW.date(),
    }
    assert outputs == {"export": False} and context.warnings == []
    assert set(row) == {*load_table(CONFIGS, "genai_balance").names, "x_pipeline_run_date"}


def test_a_used_up_balance_is_a_warning() -> None:
    with sandbox(Answer(200, DOCUMENTED | {"is_available": False})) as (context, _):
        rows_of(context, "balance")
    assert "used up" in context.warnings[0]


def test_of_a_day_that_is_past_there_is_no_balance() -> None:
    past = {"start_date": DAY, "end_date": DAY, "source": "x.zip"}
    with sandbox(Answer(500, {}), **past) as (context, outputs):
        assert rows_of(context, "balance") == []
    assert outputs == {"export": True}


@pytest.mark.parametrize(
    "body", [{}, DOCUMENTED | {"is_available": None}, {"is_available": True, "balance_infos": [{"currency": "CNY"}]}]
)
def test_a_balance_of_another_shape_is_transient(body: dict[str, Any]) -> None:
    with sandbox(Answer(200, body)) as (context, _), pytest.raises(TransientError, match="DeepSeek balance"):
        rows_of(context, "balance")


def test_a_wrong_key_is_explained_and_not_shown() -> None:
    with sandbox(secret=lambda: "sk-wrong-1234") as (context, _), pytest.raises(PermanentError) as caught:
        rows_of(context, "balance")
    assert "platform.deepseek.com/api_keys" in str(caught.value) and "sk-wrong" not in str(caught.value)


def test_the_sandbox_takes_no_parameters_and_knows_one_address() -> None:
    assert DeepSeekSandbox(1).answer(Request("/user/balance", [("currency", "USD")])).status == 422
    assert DeepSeekSandbox(1).answer(Request("/user/usage")).status == 404


def test_without_an_export_the_pipeline_reads_the_balance_alone() -> None:
    steps = ConfigTree(CONFIGS, REGISTRY).load("genai/payg/deepseek").config.steps
    conditions = {step.step_id: step.condition for step in steps}
    assert conditions["balance"] is None
    assert conditions["extract"] == conditions["extract_costs"] == "steps.balance.outputs.export == true"
