"""A StepContext for tests of processors: time stands still, sleeping moves it, and what is said is kept."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from common.platform.paths import CONFIGS
from common.ports.warehouse import Warehouse
from common.processors.base import StepContext

NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
SECRET = "sk-admin-sandbox"


@dataclass(slots=True)
class FakeTime:
    """A clock that only moves when something sleeps (or the test says so)."""

    at: datetime = NOW
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += timedelta(seconds=seconds)


@dataclass(slots=True)
class FakeWarehouse:
    """Answers every query with the same rows and keeps the queries."""

    rows: Sequence[Mapping[str, Any]] = ()
    queries: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        self.queries.append((sql, dict(params or {})))
        for row in self.rows:
            yield dict(row)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingContext(StepContext):
    """A StepContext that shows what was said (``infos``, ``warnings``) and how long was slept (``time.slept``)."""

    infos: list[str]
    warnings: list[str]
    time: FakeTime


def make_context(**overrides: Any) -> RecordingContext:
    """Return a context of organisation ``acme_corp`` for 2026-11-18, with 300 s left; any field can be overridden."""
    time, infos, warnings = FakeTime(), list[str](), list[str]()
    fields: dict[str, Any] = {
        "org_slug": "acme_corp",
        "pipeline_id": "genai_payg_openai",
        "credential_id": "cred_openai",
        "run_id": "run_1",
        "step_id": "extract",
        "attempt": 1,
        "start_date": date(2026, 11, 18),
        "end_date": date(2026, 11, 18),
        "source": None,
        "project_id": "test-project",
        "dataset": "test-project.acme_corp_local",
        "configs": CONFIGS,
        "table": lambda name: f"test-project.acme_corp_local.{name}",
        "staging": lambda: "test-project.acme_corp_local.staging_1",
        "landing": Path("/nonexistent/landing/acme_corp"),
        "deadline": NOW + timedelta(seconds=300),
        "warehouse": cast(Warehouse, FakeWarehouse()),
        "provider_url": lambda key: f"http://127.0.0.1:1/{key}",
        "secret": lambda: SECRET,
        "info": infos.append,
        "warn": warnings.append,
        "put_out": lambda name, value: None,
        "sleep": time.sleep,
        "now": time.now,
        "infos": infos,
        "warnings": warnings,
        "time": time,
    }
    return RecordingContext(**fields | overrides)
