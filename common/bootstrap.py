"""Wires adapters to the engine. The only place that names both; one engine a process, made on first use."""

import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache

from common.attempt import AttemptRunner
from common.config.loader import ConfigTree
from common.config.plans import YamlPlans
from common.config.providers import load_providers, provider_url
from common.engine import NO_ARCHIVE, Engine
from common.meta.archive import WarehouseArchive
from common.ports import Credentials, EventBus, GoogleCloud, RunLogs, RunStore, Warehouse
from common.settings import Settings

STORE_FILE = "pipeline-ops.db"
KEY_FILE = "credentials.key"

Clock = Callable[[], datetime]
Adapters = tuple[RunStore, EventBus, RunLogs, Credentials]

_current: Engine | None = None
_lock = threading.Lock()


def engine() -> Engine:
    """Return this process's engine, made from the environment on first use."""
    global _current
    with _lock:
        if _current is None:
            _current = build(Settings.from_env())
        return _current


def use(built: Engine | None) -> None:
    """Make ``built`` this process's engine (None: forget it, and make one from the environment when asked)."""
    global _current
    with _lock:
        _current = built


def build(settings: Settings, *, now: Clock | None = None) -> Engine:
    """Return an engine on the adapters that the settings name."""
    clock = now or _utc_now
    its_warehouse = cache(lambda: warehouse(settings))
    store, bus, logs, credentials = (_google if settings.store == "google" else _sqlite)(settings, clock)
    return Engine(
        settings=settings,
        store=store,
        bus=bus,
        logs=logs,
        plans=YamlPlans(settings.configs),
        credentials=credentials,
        configs=ConfigTree(settings.configs),
        attempts=AttemptRunner(
            settings=settings,
            warehouse=its_warehouse,
            credentials=credentials,
            logs=logs,
            now=clock,
            provider_url=lambda name: _provider_url(settings, name),
            google=cache(lambda: _google_cloud(settings)),
        ),
        now=clock,
        owner=f"process-{uuid.uuid4().hex[:12]}",
        archive=WarehouseArchive(settings, its_warehouse) if settings.keeps_runs else NO_ARCHIVE,
    )


def _sqlite(settings: Settings, clock: Clock) -> Adapters:
    from common.adapters.sqlite.bus import SqliteBus
    from common.adapters.sqlite.credentials import SqliteCredentials
    from common.adapters.sqlite.database import Database
    from common.adapters.sqlite.logs import SqliteLogs
    from common.adapters.sqlite.run_store import SqliteRunStore

    database = Database(settings.state_dir / STORE_FILE)
    bus = SqliteBus(database, clock)
    credentials = SqliteCredentials(database, settings.state_dir / KEY_FILE)
    return SqliteRunStore(database, bus), bus, SqliteLogs(database), credentials


def _google(settings: Settings, clock: Clock) -> Adapters:
    from common.adapters.google.firestore_credentials import FirestoreCredentials
    from common.adapters.google.firestore_logs import FirestoreLogs
    from common.adapters.google.firestore_store import FirestoreRunStore
    from common.adapters.google.pubsub import PubSubBus

    project, firestore = settings.project_id, settings.firestore_host
    bus = PubSubBus(project, settings.pubsub_host, clock)
    credentials = FirestoreCredentials(project, settings.state_dir / KEY_FILE, firestore)
    return FirestoreRunStore(project, bus, firestore), bus, FirestoreLogs(project, firestore), credentials


def warehouse(settings: Settings) -> Warehouse:
    """Return the warehouse; its client is imported here, so that only functions that write pay for it."""
    from common.adapters.bigquery import BigQueryWarehouse

    return BigQueryWarehouse(settings.project_id, location=settings.location, emulator_url=settings.bigquery_url)


def _google_cloud(settings: Settings) -> GoogleCloud:
    from common.adapters.google.cloud import GoogleCloudAdapter

    return GoogleCloudAdapter(
        settings.project_id, lambda: _provider_url(settings, "gcp.token"), bigquery_url=settings.bigquery_url
    )


def _provider_url(settings: Settings, name: str) -> str:
    override = settings.provider_urls.get(name.replace(".", "_"))
    return override or provider_url(load_providers(settings.configs), name)


def _utc_now() -> datetime:
    return datetime.now(UTC)
