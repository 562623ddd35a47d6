"""A delivery that is read part by part: what the steps say together is what one step would have said."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from common.platform.errors import DriftError, PermanentError
from common.platform.paths import CONFIGS
from common.processors.bills.deliveries import ExportParams
from common.processors.clouds.aws.export import AwsExportExtractor
from common.tables.contract import load_table
from common.writes.batch import Batch
from common.writes.parts import LIST, PartRead, StagedPart, WholeDelivery, chosen
from common.writes.spool import Spool
from tests.processors.bill_files import rows_of
from tests.processors.test_aws_export import DATA, FIRST, LAST, billed, deliver, of_days, sandbox

TABLE = "cloud_focus_export"
Told = list[Batch | PartRead | WholeDelivery]


def step(context: Any, task: str, **config: Any) -> Told:
    if task == "commit":
        config["destination_table"] = TABLE
    return list(AwsExportExtractor().run(context, ExportParams.model_validate({"task": task} | config)))


def test_parts_add_up_to_what_one_step_reads_and_the_commit_checks_their_days() -> None:
    outputs: dict[str, Any] = {}
    with sandbox(put_out=outputs.__setitem__) as (bucket, context):
        deliver(bucket, of_days(*range(1, 15)), of_days(*range(16, 31)))  # the 15th is missing
        assert step(context, "list") == []
        assert outputs["parts"] == [f"{DATA}/part-{number}.csv.gz" for number in (0, 1)]
        told = [step(context, "part", part=name) for name in outputs["parts"]]
        (whole,) = step(context, "commit")
    assert isinstance(whole, WholeDelivery)
    ends = [part[-1] for part in told]
    assert [end.part for end in ends if isinstance(end, PartRead) and end.delivery == whole.delivery] == whole.parts
    facts = [end.facts for end in ends if isinstance(end, PartRead)]
    with pytest.raises(PermanentError, match="none for 2026-09-15. Nothing is replaced"):
        whole.check(facts)

    rows = [row for part in told for batch in part if isinstance(batch, Batch) for row in rows_of(batch)]
    billed_then = billed(FIRST, LAST) - billed(date(2026, 9, 15), date(2026, 9, 15))
    assert sum((row["BilledCost"] for row in rows), Decimal(0)) == billed_then


def test_the_commit_says_what_was_billed_and_that_columns_changed() -> None:
    outputs: dict[str, Any] = {}
    newer = [{k: v for k, v in row.items() if k != "x_Operation"} | {"x_New": "1"} for row in of_days(*range(16, 31))]
    with sandbox(put_out=outputs.__setitem__) as (bucket, context):
        deliver(bucket, of_days(*range(1, 16)), newer)
        names = [f"{DATA}/part-{number}.csv.gz" for number in (0, 1)]
        facts = [one.facts for name in names for one in step(context, "part", part=name) if isinstance(one, PartRead)]
        (whole,) = step(context, "commit")
        assert isinstance(whole, WholeDelivery)
        whole.check(facts)
    assert {currency: Decimal(total) for currency, total in outputs["billed"].items()} == {"USD": billed(FIRST, LAST)}
    assert "part-1.csv.gz is without x_Operation and has x_New" in context.warnings[0]


def test_a_delivery_that_is_refreshed_between_the_steps_has_another_identity_and_lost_parts_are_named() -> None:
    with sandbox() as (bucket, context):
        deliver(bucket, of_days(*range(1, 31)))
        (before,) = step(context, "commit")
        deliver(bucket, of_days(*range(1, 16)), of_days(*range(16, 31)))
        (after,) = step(context, "commit")
        assert isinstance(before, WholeDelivery) and isinstance(after, WholeDelivery)
        assert before.delivery != after.delivery
        with pytest.raises(PermanentError, match=r"part-9.csv.gz' is not in the newest manifest any more"):
            step(context, "part", part=f"{DATA}/part-9.csv.gz")


@pytest.mark.parametrize("task", ["all", "part"])
def test_a_damaged_part_is_named_and_nothing_is_said_of_its_rows(task: str) -> None:
    with sandbox() as (bucket, context):
        deliver(bucket, *[of_days(day) for day in range(10, 18)])
        key = f"{DATA}/part-6.csv.gz"
        bucket.extra[key] = bucket.extra[key][:-200]
        config = {"part": key} if task == "part" else {"destination_table": TABLE}
        with pytest.raises(PermanentError, match=r"part-6\.csv\.gz: the gzip data ends too early"):
            step(context, task, **config)


def test_a_column_that_changes_its_type_in_the_seventh_part_refuses_the_whole_and_names_the_part(
    tmp_path: Path,
) -> None:
    parts = [of_days(day) for day in range(10, 18)]
    for row in parts[6]:
        row["BilledCost"] = "USD " + row["BilledCost"]
    spool = Spool(tmp_path / "rows.parquet", load_table(CONFIGS, TABLE), FIRST, LAST, (76, 38), org_slug="acme_corp")
    with sandbox() as (bucket, context):
        deliver(bucket, *parts)
        params = ExportParams.model_validate({"destination_table": TABLE})
        with pytest.raises(DriftError, match=r"part-6\.csv\.gz.*line 2.*BilledCost.*USD "):
            for batch in AwsExportExtractor().run(context, params):
                assert isinstance(batch, Batch)
                spool.write(batch)


def test_the_latest_of_two_attempts_at_a_part_counts() -> None:
    rows = [StagedPart("p", fence, f"staged {fence}", 1, "2:0", 0, "{}") for fence in (2, 3, 1)]
    listed = iter([{name: getattr(row, name) for name in LIST.names} for row in rows])
    assert [part.staging for part in chosen(listed, ["p"])] == ["staged 3"]


@pytest.mark.parametrize(
    "config", [{"task": "all"}, {"task": "commit"}, {"task": "part"}, {"task": "list", "destination_table": TABLE}]
)
def test_a_task_has_what_it_needs_and_nothing_else(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="belongs to"):
        ExportParams.model_validate(config)
