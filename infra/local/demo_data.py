"""What ``make demo`` and the tests of the FOCUS table run every provider's pipeline on: sandboxes, files and a table.

All of it is made up from a seed, and is the same for the same seed and days.
"""

import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from common.platform.settings import Settings
from common.ports.secrets import CredentialInfo, Credentials
from common.runs.landing import place
from infra.local import gcp_export
from infra.local.deepseek_export import write_deepseek_export
from infra.local.focus_export import write_focus_export
from infra.local.sandbox import bills, oci
from infra.local.sandbox.server import SandboxServer

AWS_ROWS_PER_DAY = 120
GCP_ROWS_PER_DAY = 40
GCP_TABLE = ("billing_export", "gcp_billing_export_resource_v1_010101_F0FFF0_61C528")
MONTH = 31
"""So many days have a charge of every monthly subscription among them."""
BY_GEMINI = ("Vertex AI",)
"""The pipeline of Gemini brings it: with the billing export's it would be counted twice (docs/providers.md)."""


@dataclass(frozen=True)
class Scene:
    """Days of an organisation, and where its pipelines find what they read."""

    settings: Settings
    sandbox: SandboxServer
    org: str
    seed: int
    first: date
    days: int

    @property
    def last(self) -> date:
        """The last of the days."""
        return self.first + timedelta(days=self.days - 1)

    def gcp_rows(self) -> list[tuple[gcp_export.Row, Decimal]]:
        """The rows of Google's billing export, and what each adds to the invoice."""
        rows = gcp_export.export_rows(
            seed=self.seed, first_day=self.first, days=self.days, rows_per_day=GCP_ROWS_PER_DAY, without=BY_GEMINI
        )
        return list(rows)


class Made(NamedTuple):
    """What a pipeline reads: the name of a landed file if it is one; and the bill's sum where whoever made it knows."""

    source: str | None = None
    billed: Decimal | None = None


class Play(NamedTuple):
    """A pipeline, whose credential it takes (none: it needs none), and what it is run on.

    ``days`` are how many it needs at least, up to the scene's last.
    """

    route: str
    provider: str = ""
    secret: Callable[[Scene], str] = lambda _scene: ""
    make: Callable[[Scene], Made] = lambda _scene: Made()
    days: int = 0

    @property
    def credential_id(self) -> str:
        """The name of its credential."""
        return f"cred_{self.provider}_sandbox"

    def body(self, scene: Scene, made: Made) -> dict[str, Any]:
        """Return the request that runs it on the scene's days."""
        first = min(scene.first, scene.last - timedelta(days=self.days - 1))
        body = {"start_date": first.isoformat(), "end_date": scene.last.isoformat()}
        given = {"credential_id": self.credential_id if self.provider else None, "source": made.source}
        return body | {name: value for name, value in given.items() if value is not None}


def secret_of(sandbox: str) -> Callable[[Scene], str]:
    """Return what gives the credential that a sandbox accepts, by the sandbox's key."""
    return lambda scene: scene.sandbox.secrets[sandbox]


def _gcp_secret(scene: Scene) -> str:
    dataset, table = GCP_TABLE
    where = {"project": scene.settings.project_id, "dataset": dataset, "table": table}
    return json.dumps({"service_account": json.loads(scene.sandbox.secrets["gcp_token"]), **where})


def _deepseek(scene: Scene) -> Made:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "usage_data_demo.zip"
        billed = write_deepseek_export(path, seed=scene.seed, first_day=scene.first, days=scene.days)
        return Made(place(scene.settings.landing / scene.org, path), billed.paid)


def _aws(scene: Scene) -> Made:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "aws-focus-demo.csv.gz"
        billed = write_focus_export(
            path, seed=scene.seed, first_day=scene.first, days=scene.days, rows_per_day=AWS_ROWS_PER_DAY
        )
        return Made(place(scene.settings.landing / scene.org, path), billed)


PLAYS = (
    Play("genai/payg/openai", "openai", secret_of("openai")),
    Play("genai/payg/anthropic", "anthropic", secret_of("anthropic")),
    Play("genai/payg/gemini", "gemini", secret_of("gemini")),
    Play("genai/payg/deepseek", "deepseek", secret_of("deepseek"), _deepseek),
    Play("aws/cost/billing", make=_aws),
    Play(
        "azure/cost/billing",
        "azure",
        secret_of("azure_blob"),
        lambda scene: Made(billed=bills.billed("azure", scene.seed, scene.first, scene.last)),
    ),
    Play(
        "gcp/cost/billing",
        "gcp",
        _gcp_secret,
        lambda scene: Made(billed=sum((amount for _, amount in scene.gcp_rows()), Decimal(0))),
    ),
    Play(
        "oci/cost/billing",
        "oci",
        secret_of("oci_objectstorage"),
        lambda scene: Made(billed=oci.billed(scene.seed, scene.first, scene.last)),
    ),
    Play("subscription/costs/subscription_cost", days=MONTH),
)
"""One route to each provider's bill; AWS, Azure and OCI have others, which bring the same bill again."""


def add_credentials(credentials: Credentials, scene: Scene, plays: Iterable[Play] = PLAYS) -> None:
    """Store what the sandboxes accept. Keys of theirs may differ from process to process, so this replaces."""
    for play in plays:
        if play.provider:
            info = CredentialInfo(scene.org, play.credential_id, play.provider, datetime.now(UTC))
            credentials.add(info, play.secret(scene))


def add_gcp_export(scene: Scene, bigquery_url: str) -> None:
    """Put the days of Google's billing export that are not there yet into its table on the emulator."""
    rows = [row for row, _ in scene.gcp_rows()]
    table_id = ".".join((scene.settings.project_id, *GCP_TABLE))
    gcp_export.add_days(gcp_export.emulator_client(scene.settings.project_id, bigquery_url), table_id, rows)
