"""Settings that differ between machines. No other module reads ``os.environ`` (tests/unit/test_rooms.py)."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.platform.errors import ConfigError, nearest
from common.platform.paths import CONFIGS

PROVIDER_URL = re.compile(r"^PIPELINE_OPS_PROVIDER_URL_([A-Z0-9_]+)$")
PROJECT = re.compile(r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")
DATASET = re.compile(r"^[A-Za-z0-9_]{1,1024}$", re.ASCII)
STORES = ("sqlite", "google", "postgres")
KMS_KEY = re.compile(r"projects/[^/\s]+/locations/[^/\s]+/keyRings/[^/\s]+/cryptoKeys/[^/\s]+")
MIN_TOKEN_CHARS = 32
SUPABASE_DSN = "PIPELINE_OPS_SUPABASE_DSN"
POSTGRES_DSN = "PIPELINE_OPS_POSTGRES_DSN"
ENVIRONMENT = re.compile(r"^[a-z][a-z0-9_]{0,19}$")


@dataclass(frozen=True, slots=True)
class Settings:
    """One stack's settings.

    ``provider_urls`` replaces addresses of ``configs/system/providers.yml`` by provider key, or by key and name of the
    url (``aws_s3``). An operator points a stack at a sandbox with it; neither a pipeline's config nor a request can.

    ``store`` is where runs and messages are stored: ``sqlite``; ``google`` for Firestore and Pub/Sub (the hosts are
    those of emulators; None is the cloud); or ``postgres`` for the database of ``postgres_dsn`` and Pub/Sub. With
    ``supabase_dsn``, plans come from that database instead of ``configs/system/plans.yml``. Both contain passwords, so
    neither is in the settings' repr.

    With ``archive``, ended runs are kept in BigQuery's ``org_meta_*`` tables. ``operator_token`` opens the API for all
    organisations, like a key of scope admin: local stacks create one at start-up, the cloud has none. A local stack
    calls its own functions with ``invoker_token``, which is never set from outside. In the cloud, functions accept
    Google's OIDC tokens for ``audiences`` by the service accounts ``invokers``; with ``iam_checked``, also those whose
    signature Cloud Run's IAM check has removed. ``kms_key`` is the Cloud KMS key that seals secrets; without it, the
    key is a file in ``state_dir``.

    With ``own_bigquery`` a local stack writes to BigQuery itself, in ``project_id``, and starts no emulator.
    """

    state_dir: Path = Path(".pipeline-ops")
    configs: Path = CONFIGS
    project_id: str = "pipeline-ops-local"
    environment: str = "local"
    location: str = "US"
    bigquery_url: str | None = None
    own_bigquery: bool = False
    store: str = "sqlite"
    firestore_host: str | None = None
    pubsub_host: str | None = None
    supabase_dsn: str | None = field(default=None, repr=False)
    postgres_dsn: str | None = field(default=None, repr=False)
    provider_urls: Mapping[str, str] = field(default_factory=dict)
    archive: bool = True
    operator_token: str | None = field(default=None, repr=False)
    kms_key: str | None = None
    invoker_token: str | None = field(default=None, repr=False)
    audiences: tuple[str, ...] = ()
    invokers: tuple[str, ...] = ()
    iam_checked: bool = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read ``PIPELINE_OPS_*`` and ``BIGQUERY_EMULATOR_HOST``; raise ConfigError for a value that can't be one."""
        settings = cls(
            state_dir=Path(environ.get("PIPELINE_OPS_STATE_DIR", ".pipeline-ops")).absolute(),
            configs=Path(environ.get("PIPELINE_OPS_CONFIGS") or CONFIGS).absolute(),
            project_id=environ.get("PIPELINE_OPS_PROJECT", "pipeline-ops-local"),
            environment=environ.get("PIPELINE_OPS_ENV", "local"),
            location=environ.get("PIPELINE_OPS_LOCATION", "US"),
            bigquery_url=environ.get("BIGQUERY_EMULATOR_HOST") or None,
            store=environ.get("PIPELINE_OPS_STORE", "sqlite"),
            firestore_host=environ.get("FIRESTORE_EMULATOR_HOST") or None,
            pubsub_host=environ.get("PUBSUB_EMULATOR_HOST") or None,
            supabase_dsn=environ.get(SUPABASE_DSN) or None,
            postgres_dsn=environ.get(POSTGRES_DSN) or None,
            provider_urls={
                match[1].lower(): value for name, value in environ.items() if (match := PROVIDER_URL.match(name))
            },
            archive=_switch(environ, "PIPELINE_OPS_ARCHIVE", "on"),
            operator_token=environ.get("PIPELINE_OPS_OPERATOR_TOKEN") or None,
            kms_key=environ.get("PIPELINE_OPS_KMS_KEY") or None,
            audiences=_names(environ.get("PIPELINE_OPS_AUDIENCE", "")),
            invokers=_names(environ.get("PIPELINE_OPS_INVOKERS", "")),
            iam_checked=_switch(environ, "PIPELINE_OPS_IAM_CHECKED", "off"),
        )
        if settings.operator_token is not None and len(settings.operator_token) < MIN_TOKEN_CHARS:
            # The token is compared without a limit on tries, so it must be too long to guess.
            raise ConfigError(
                f"PIPELINE_OPS_OPERATOR_TOKEN: must have {MIN_TOKEN_CHARS} characters at least; "
                "`openssl rand -hex 32` makes one."
            )
        if settings.kms_key is not None and not KMS_KEY.fullmatch(settings.kms_key):
            raise ConfigError(
                f"PIPELINE_OPS_KMS_KEY: {settings.kms_key[:200]!r} must be "
                "projects/<project>/locations/<location>/keyRings/<ring>/cryptoKeys/<key>."
            )
        if not PROJECT.match(settings.project_id):
            raise ConfigError(f"PIPELINE_OPS_PROJECT: {settings.project_id!r} is not a Google Cloud project id.")
        if settings.store not in STORES:
            raise ConfigError(
                f"PIPELINE_OPS_STORE: {settings.store!r} must be one of {', '.join(STORES)}."
                f"{nearest(settings.store, STORES)}"
            )
        if settings.store == "postgres" and settings.postgres_dsn is None:
            raise ConfigError(f"{POSTGRES_DSN}: must be set where PIPELINE_OPS_STORE is postgres (docs/plans.md).")
        if not ENVIRONMENT.match(settings.environment):
            raise ConfigError(f"PIPELINE_OPS_ENV: {settings.environment!r} must be lower-case letters, digits, '_'.")
        return settings

    @property
    def is_cloud(self) -> bool:
        """Whether runs and messages are stored in the cloud, not in a file or an emulator."""
        emulator = {"google": self.firestore_host, "postgres": self.pubsub_host}
        return self.store in emulator and emulator[self.store] is None

    @property
    def keeps_runs(self) -> bool:
        """Whether ended runs are kept in BigQuery: there is one, and ``archive`` is on."""
        return self.archive and (self.bigquery_url is not None or self.needs_no_emulator)

    @property
    def needs_no_emulator(self) -> bool:
        """Whether the warehouse is BigQuery itself."""
        return self.own_bigquery or self.is_cloud

    @property
    def landing(self) -> Path:
        """Folder with one subfolder per organisation, for files that pipelines read."""
        return self.state_dir / "landing"

    @property
    def run_logs(self) -> Path:
        """Folder with one subfolder per run, for files about it."""
        return self.state_dir / "logs" / "runs"

    def dataset(self, org_slug: str) -> str:
        """Return the name of an organisation's dataset, e.g. ``acme_corp_prod``."""
        return f"{org_slug}_{self.environment}"


def environment_variable(name: str) -> str:
    """Return a variable that is not a stack's setting (a secret to store, Java's path), "" if it is not set."""
    return os.environ.get(name, "")


def _switch(environ: Mapping[str, str], name: str, default: str) -> bool:
    value = environ.get(name, default)
    if value not in ("on", "off"):
        raise ConfigError(f"{name}: {value!r} must be on or off.")
    return value == "on"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
