"""On Google's emulators, too: a stack that is killed again and again ends every run, with the rows of a calm one.

The emulators stand for Google's services and live on; what dies is every function at once, and with them what they had
in hand.
"""

import os
import random
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from common import bootstrap
from common.ports.secrets import CredentialInfo
from common.ports.store import HistoryQuery
from common.runs.engine import Engine
from infra.local.google_emulators import GoogleEmulators
from infra.local.sandbox.server import SANDBOX_ADMIN_KEY, SandboxServer
from tests.e2e.kills import Asked, Emulator, Place, Served, until, wait_for_all
from tests.seed import replay, seed

ACME, GLOBEX, ROUTE = "acme_corp", "globex", "genai/payg/openai"
DAYS = {"start_date": "2026-11-01", "end_date": "2026-11-02"}
TABLES = ("genai_payg_usage", "genai_reported_cost", "genai_payg_cost", "cost_data_standard_1_3")
MAY_DIFFER = ("x_org_slug", "x_run_id", "x_ingested_at", "x_ingestion_date")


def test_two_kills_on_googles_emulators_lose_and_double_nothing(
    tmp_path: Path, google_emulators: GoogleEmulators
) -> None:
    kill_and_compare(tmp_path, google_emulators, kills=2)


@pytest.mark.slow
def test_six_kills_on_googles_emulators_lose_and_double_nothing(
    tmp_path: Path, google_emulators: GoogleEmulators
) -> None:
    kill_and_compare(tmp_path, google_emulators, kills=6)


def kill_and_compare(tmp_path: Path, google_emulators: GoogleEmulators, kills: int) -> None:
    try:
        _kill_and_compare(tmp_path, google_emulators, kills)
    except BaseException as error:
        error.add_note(f"{replay()}; logs are in {tmp_path}")
        raise


def _kill_and_compare(tmp_path: Path, google_emulators: GoogleEmulators, kills: int) -> None:
    chance = random.Random(seed())
    hosts = {
        "FIRESTORE_EMULATOR_HOST": google_emulators.firestore_host,
        "PUBSUB_EMULATOR_HOST": google_emulators.pubsub_host,
        "PIPELINE_OPS_PROJECT": f"kills-{os.getpid()}",
    }
    with SandboxServer(seed=7, rate_limit_every=25) as sandbox:
        place = Place(tmp_path / "killed", "killed", sandbox.url, hosts)
        place.settings = replace(place.settings, project_id=hosts["PIPELINE_OPS_PROJECT"])
        with Emulator(place) as bigquery:
            engine = _engine(place, google_emulators, bigquery.url())
            for org in (ACME, GLOBEX):
                info = CredentialInfo(org, "cred_openai", "openai", datetime.now(UTC))
                engine.credentials.add(info, SANDBOX_ADMIN_KEY)
            for number in range(kills):
                with Served(place, bigquery.url()) as stack:
                    stack.wait_until_up()
                    if number < 2:
                        run_id = stack.post(Asked(ACME, ROUTE, DAYS))
                        # A start message that is lost with its process is sent again, but only after two minutes.
                        until(lambda s=stack, r=run_id: s.status(ACME, r)["status"] != "pending" or None, "not started")
                    if number == 0:  # of few kills, one at least is to meet a step at work
                        until(lambda s=stack, r=run_id: _at_work(s.status(ACME, r)), "no step has begun")
                        time.sleep(chance.uniform(0.0, 0.3))
                    else:
                        time.sleep(chance.uniform(0.3, 4.0))
                    stack.kill()
            with Served(place, bigquery.url()) as stack:
                stack.wait_until_up()
                wait_for_all(stack, [ACME])
                stack.post(Asked(GLOBEX, ROUTE, DAYS))
                wait_for_all(stack, [GLOBEX])
                stack.end()
            _check(engine)


def _at_work(run: dict[str, Any]) -> bool | None:
    return any(step["status"] == "running" for step in run["steps"]) or None


def _engine(place: Place, google: GoogleEmulators, bigquery_url: str) -> Engine:
    hosts = {"firestore_host": google.firestore_host, "pubsub_host": google.pubsub_host}
    return bootstrap.build(replace(place.settings, store="google", bigquery_url=bigquery_url, **hosts))


def _check(engine: Engine) -> None:
    runs = engine.store.history(HistoryQuery(ACME, 10)).runs
    lost = sum("the process that ran it ended" in c.reason for run in runs for c in engine.store.changes(run.run_id))
    assert lost, "no kill met a step at work: nothing was tested"
    for org, count in ((ACME, 2), (GLOBEX, 1)):
        for run in engine.store.history(HistoryQuery(org, 10)).runs:
            assert run.status == "completed", (run.error, engine.store.changes(run.run_id))
        usage = engine.store.usage(org, datetime.now(UTC))
        assert (usage.concurrent, usage.completed, usage.failed, usage.monthly) == (0, count, 0, count)
    for table in TABLES:
        found, calm = _rows(engine, ACME, table), _rows(engine, GLOBEX, table)
        assert _lasting(found) == _lasting(calm) and found, table
        assert len({(row["x_run_id"], row["x_ingested_at"]) for row in found}) == 1, table


def _rows(engine: Engine, org: str, table: str) -> list[dict[str, Any]]:
    name = f"{engine.settings.project_id}.{engine.settings.dataset(org)}.{table}"
    return list(engine.attempts.warehouse().query(f"SELECT * FROM `{name}`"))


def _lasting(rows: list[dict[str, Any]]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(str(value) for name, value in row.items() if name not in MAY_DIFFER) for row in rows)
