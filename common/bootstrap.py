"""Wires adapters to the engine. The only place that names both; one engine a process, made on first use."""

import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from common.access.api_keys import Keys
from common.access.audit import Audit
from common.access.cached_plans import CachedPlans
from common.access.credentials import SealedCredentials
from common.access.invokers import Invokers
from common.access.sealing import NoKey, Sealer
from common.config.bigquery_prices import load_prices
from common.config.check import SqlCheck
from common.config.hosts import load_hosts
from common.config.loader import ConfigTree
from common.config.plans import YamlPlans
from common.config.providers import load_providers, provider_url
from common.meta.archive import WarehouseArchive
from common.notify.failure_limit import FailureLimit
from common.notify.notifications import Notifications
from common.notify.settings import SettingsStore
from common.platform.settings import POSTGRES_DSN, SUPABASE_DSN, Settings
from common.ports.bus import EventBus
from common.ports.google import GoogleCloud
from common.ports.logs import RunLogs
from common.ports.records import Records
from common.ports.secrets import TokenCheck
from common.ports.store import PlanLimits, RunStore
from common.ports.warehouse import Warehouse
from common.processors.registry import REGISTRY
from common.runs.attempt import AttemptRunner
from common.runs.engine import NO_ARCHIVE, Engine
from common.runs.estimate import Estimator

if TYPE_CHECKING:
    from common.adapters.bigquery.doctor import Doctor
    from common.adapters.google.scheduler import SchedulerJobs

STORE_FILE = "pipeline-ops.db"
KEY_FILE = "credentials.key"
PLAN_CONNECTIONS = 2
"""Most requests need none: limits are cached."""

Clock = Callable[[], datetime]
Adapters = tuple[RunStore, EventBus, RunLogs, Records]

_current: Engine | None = None
_lock = threading.Lock()  # two first requests must not make two engines, each with its own caches and connections


def sql_check() -> SqlCheck | None:
    """Return the check of SQL files by Google's analyzer, or None where that is not installed."""
    from common.adapters.googlesql import is_installed

    if not is_installed():
        return None
    from common.adapters.googlesql.configs import sql_problems

    return sql_problems


def engine() -> Engine:
    """Return this process's engine, made from the environment on first use."""
    global _current
    with _lock:
        if _current is None:
            _current = build(Settings.from_env())
        return _current


def use(built: Engine | None) -> None:
    """Make ``built`` this process's engine (None: the next ``engine()`` makes one from the environment)."""
    global _current
    with _lock:
        _current = built


def build(settings: Settings, *, now: Clock | None = None) -> Engine:
    """Return an engine on the adapters that the settings name."""
    clock = now or _utc_now
    shared_warehouse = cache(lambda: warehouse(settings))
    store, bus, logs, records = STACKS[settings.store](settings, clock)
    sealer, audit, configs = _sealer(settings), Audit(records, clock), ConfigTree(settings.configs, REGISTRY)
    credentials = SealedCredentials(records, sealer)
    notification_settings = SettingsStore(
        records, sealer, audit, clock, lambda: load_hosts(settings.configs), configs.find
    )
    return Engine(
        settings=settings,
        store=store,
        bus=bus,
        logs=logs,
        plans=plans(settings, clock),
        records=records,
        credentials=credentials,
        audit=audit,
        invokers=_invokers(settings),
        keys=Keys(records, audit, clock, settings.operator_token),
        notifications=Notifications(notification_settings, records, logs, FailureLimit(records, clock)),
        configs=configs,
        attempts=AttemptRunner(
            settings=settings,
            warehouse=shared_warehouse,
            credentials=credentials,
            logs=logs,
            now=clock,
            provider_url=lambda name: _provider_url(settings, name),
            google=cache(lambda: _google_cloud(settings)),
        ),
        now=clock,
        owner=f"process-{uuid.uuid4().hex[:12]}",
        archive=WarehouseArchive(settings, shared_warehouse) if settings.keeps_runs else NO_ARCHIVE,
        estimates=Estimator(settings, shared_warehouse),
    )


def _sqlite(settings: Settings, clock: Clock) -> Adapters:
    # Adapters are imported where they are used: a cold start must not load the libraries of other stacks.
    from common.adapters.sql.records import SqlRecords
    from common.adapters.sql.run_logs import SqlLogs
    from common.adapters.sql.sqlite.bus import SqliteBus
    from common.adapters.sql.sqlite.database import Database
    from common.adapters.sql.sqlite.run_store import SqliteRunStore

    database = Database(settings.state_dir / STORE_FILE)
    bus = SqliteBus(database, clock)
    return SqliteRunStore(database, bus), bus, SqlLogs(database), SqlRecords(database)


def _google(settings: Settings, clock: Clock) -> Adapters:
    from common.adapters.google.firestore_logs import FirestoreLogs
    from common.adapters.google.firestore_records import FirestoreRecords
    from common.adapters.google.firestore_store import FirestoreRunStore
    from common.adapters.google.pubsub import PubSubBus

    project, firestore = settings.project_id, settings.firestore_host
    bus = PubSubBus(project, settings.pubsub_host, clock)
    records = FirestoreRecords(project, firestore)
    return FirestoreRunStore(project, bus, firestore), bus, FirestoreLogs(project, firestore), records


def _invokers(settings: Settings) -> Invokers:
    @cache
    def tokens() -> TokenCheck:
        from common.adapters.google.oidc import Certificates, GoogleTokens

        return GoogleTokens(settings.audiences, settings.invokers, Certificates(), iam_checked=settings.iam_checked)

    is_set = bool(settings.audiences and settings.invokers)
    return Invokers(settings.invoker_token, tokens if is_set else None)


def _postgres(settings: Settings, clock: Clock) -> Adapters:
    from common.adapters.google.pubsub import PubSubBus
    from common.adapters.sql.postgres.client import Postgres
    from common.adapters.sql.postgres.run_store import PostgresRunStore
    from common.adapters.sql.records import SqlRecords
    from common.adapters.sql.run_logs import SqlLogs

    assert settings.postgres_dsn is not None
    database = Postgres(settings.postgres_dsn, POSTGRES_DSN)
    bus = PubSubBus(settings.project_id, settings.pubsub_host, clock)
    return PostgresRunStore(database, bus), bus, SqlLogs(database), SqlRecords(database)


STACKS = {"sqlite": _sqlite, "google": _google, "postgres": _postgres}


def plans(settings: Settings, now: Clock | None = None) -> PlanLimits:
    """Return the plans that the settings name: the only source of which organisations there are."""
    if settings.supabase_dsn is None:
        return YamlPlans(settings.configs)
    from common.adapters.sql.postgres.client import Postgres
    from common.adapters.sql.postgres.plans import PostgresPlans

    database = Postgres(settings.supabase_dsn, SUPABASE_DSN, connections=PLAN_CONNECTIONS)
    return CachedPlans(PostgresPlans(database), now or _utc_now)


def _sealer(settings: Settings) -> Sealer:
    if settings.kms_key is not None:
        from common.adapters.google.kms import CloudKms

        return Sealer(CloudKms(settings.kms_key))
    if settings.is_cloud:  # no key file: it would be lost with the instance, and every secret with it
        return Sealer(NoKey())
    from common.adapters.key_file import KeyFile

    return Sealer(KeyFile(settings.state_dir / KEY_FILE))


def warehouse(settings: Settings) -> Warehouse:
    """Return the warehouse; its client is imported here, so that only functions that write pay for it."""
    from common.adapters.bigquery import BigQueryWarehouse

    return BigQueryWarehouse(settings.project_id, location=settings.location, emulator_url=settings.bigquery_url)


def doctor(settings: Settings, dataset: str | None) -> "Doctor":
    """Return the check of a project, in a dataset of its own; see ``common/adapters/bigquery/doctor``."""
    from common.adapters.bigquery import BigQueryWarehouse
    from common.adapters.bigquery.doctor import Doctor

    def made() -> BigQueryWarehouse:
        return BigQueryWarehouse(settings.project_id, location=settings.location, emulator_url=settings.bigquery_url)

    prices = load_prices(settings.configs)
    return Doctor(made, settings.project_id, dataset, prices.usd_per_tib.get(settings.location) if prices else None)


def scheduler_jobs(settings: Settings, location: str) -> "SchedulerJobs":
    """Return the jobs of Cloud Scheduler that call this stack. Their names say which stack's they are: the environment
    has no hyphen, so no prefix begins another."""
    from common.adapters.google.scheduler import SchedulerJobs

    return SchedulerJobs(settings.project_id, location, f"pipeline-ops-{settings.environment}-")


def _google_cloud(settings: Settings) -> GoogleCloud:
    from common.adapters.google.cloud import GoogleCloudAdapter

    return GoogleCloudAdapter(
        settings.project_id, lambda: _provider_url(settings, "gcp.token"), bigquery_url=settings.bigquery_url
    )


def _provider_url(settings: Settings, name: str) -> str:
    override = settings.provider_urls.get(name.partition("/")[0].replace(".", "_"))
    return override or provider_url(load_providers(settings.configs), name)


def _utc_now() -> datetime:
    return datetime.now(UTC)
