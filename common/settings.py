"""What differs from one machine to the next, read from the environment. Nothing else reads ``os.environ``."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ConfigError, nearest
from common.paths import configs_dir

PROVIDER_URL = re.compile(r"^PIPELINE_OPS_PROVIDER_URL_([A-Z0-9_]+)$")
PROJECT = re.compile(r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")
STORES = ("sqlite", "google")
ENVIRONMENT = re.compile(r"^[a-z][a-z0-9_]{0,19}$")


@dataclass(frozen=True, slots=True)
class Settings:
    """One stack's settings.

    ``provider_urls`` replaces addresses of ``configs/system/providers.yml`` by provider key, or by key and name of the
    url (``aws_s3``): how an operator points a stack at a sandbox. Neither a pipeline's config nor a request can.
    ``store`` is where runs and messages live: ``sqlite``, or ``google`` for Firestore and Pub/Sub (the hosts are those
    of emulators; None is the cloud). ``archive``: ended runs are kept in the tables ``org_meta_*`` of BigQuery.
    """

    state_dir: Path = Path(".pipeline-ops")
    configs: Path = field(default_factory=configs_dir)
    project_id: str = "pipeline-ops-local"
    environment: str = "local"
    location: str = "US"
    bigquery_url: str | None = None
    store: str = "sqlite"
    firestore_host: str | None = None
    pubsub_host: str | None = None
    provider_urls: Mapping[str, str] = field(default_factory=dict)
    archive: bool = True

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read ``PIPELINE_OPS_*`` and ``BIGQUERY_EMULATOR_HOST``; raise ConfigError for a value that can't be one."""
        settings = cls(
            state_dir=Path(environ.get("PIPELINE_OPS_STATE_DIR", ".pipeline-ops")).absolute(),
            configs=Path(environ.get("PIPELINE_OPS_CONFIGS") or configs_dir()).absolute(),
            project_id=environ.get("PIPELINE_OPS_PROJECT", "pipeline-ops-local"),
            environment=environ.get("PIPELINE_OPS_ENV", "local"),
            location=environ.get("PIPELINE_OPS_LOCATION", "US"),
            bigquery_url=environ.get("BIGQUERY_EMULATOR_HOST") or None,
            store=environ.get("PIPELINE_OPS_STORE", "sqlite"),
            firestore_host=environ.get("FIRESTORE_EMULATOR_HOST") or None,
            pubsub_host=environ.get("PUBSUB_EMULATOR_HOST") or None,
            provider_urls={
                match[1].lower(): value for name, value in environ.items() if (match := PROVIDER_URL.match(name))
            },
            archive=environ.get("PIPELINE_OPS_ARCHIVE", "on") != "off",
        )
        if (archive := environ.get("PIPELINE_OPS_ARCHIVE", "on")) not in ("on", "off"):
            raise ConfigError(f"PIPELINE_OPS_ARCHIVE: {archive!r} must be on or off.")
        if not PROJECT.match(settings.project_id):
            raise ConfigError(f"PIPELINE_OPS_PROJECT: {settings.project_id!r} is not a Google Cloud project id.")
        if settings.store not in STORES:
            raise ConfigError(
                f"PIPELINE_OPS_STORE: {settings.store!r} must be one of {', '.join(STORES)}."
                f"{nearest(settings.store, STORES)}"
            )
        if not ENVIRONMENT.match(settings.environment):
            raise ConfigError(f"PIPELINE_OPS_ENV: {settings.environment!r} must be lower-case letters, digits, '_'.")
        return settings

    @property
    def keeps_runs(self) -> bool:
        """Whether ended runs are kept in BigQuery: there is one, and nobody has switched it off."""
        is_cloud = self.store == "google" and self.firestore_host is None
        return self.archive and (self.bigquery_url is not None or is_cloud)

    @property
    def landing(self) -> Path:
        """Folder with one folder an organisation, for files that pipelines read."""
        return self.state_dir / "landing"

    @property
    def run_logs(self) -> Path:
        """Folder with one folder a run, for files about it."""
        return self.state_dir / "logs" / "runs"

    def dataset(self, org_slug: str) -> str:
        """Return the name of an organisation's dataset, e.g. ``acme_corp_prod``."""
        return f"{org_slug}_{self.environment}"
