"""Inputs of every provider's pipeline for ``make demo`` and the tests of the FOCUS table: sandboxes, files, a table.

Everything is generated from a seed: the same seed and days give the same data.
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
"""Days that include a charge of every monthly subscription."""
BY_GEMINI = ("Vertex AI",)
"""Services that Gemini's pipeline loads: from the billing export too, they would count twice (docs/providers.md)."""


@dataclass(frozen=True)
class DemoSetup:
    """An organisation, its days, and the sandboxes and settings of its pipelines."""

    settings: Settings
    sandbox: SandboxServer
    org: str
    seed: int
    first: date
    days: int

    @property
    def last(self) -> date:
        """The last day."""
        return self.first + timedelta(days=self.days - 1)

    def gcp_rows(self) -> list[tuple[gcp_export.Row, Decimal]]:
        """Return the rows of Google's billing export, each with the amount that it adds to the invoice."""
        rows = gcp_export.export_rows(
            seed=self.seed, first_day=self.first, days=self.days, rows_per_day=GCP_ROWS_PER_DAY, without=BY_GEMINI
        )
        return list(rows)


class DemoInput(NamedTuple):
    """A pipeline's input: the name of a landed file, if it reads one; the bill's total, if the generator knows it."""

    source: str | None = None
    billed: Decimal | None = None


class DemoPipeline(NamedTuple):
    """A pipeline, the provider of its credential (empty: it needs none), and its input.

    ``days`` is the smallest number of days that it needs, up to the setup's last.
    """

    route: str
    provider: str = ""
    secret: Callable[[DemoSetup], str] = lambda _setup: ""
    make: Callable[[DemoSetup], DemoInput] = lambda _setup: DemoInput()
    days: int = 0

    @property
    def credential_id(self) -> str:
        """The id of its credential."""
        return f"cred_{self.provider}_sandbox"

    def body(self, setup: DemoSetup, made: DemoInput) -> dict[str, Any]:
        """Return the body of the request that runs it for the setup's days."""
        first = min(setup.first, setup.last - timedelta(days=self.days - 1))
        body = {"start_date": first.isoformat(), "end_date": setup.last.isoformat()}
        optional = {"credential_id": self.credential_id if self.provider else None, "source": made.source}
        return body | {name: value for name, value in optional.items() if value is not None}


def secret_of(sandbox: str) -> Callable[[DemoSetup], str]:
    """Return a function that looks up the credential that a sandbox accepts, by the sandbox's key."""
    return lambda setup: setup.sandbox.secrets[sandbox]


def _gcp_secret(setup: DemoSetup) -> str:
    dataset, table = GCP_TABLE
    where = {"project": setup.settings.project_id, "dataset": dataset, "table": table}
    return json.dumps({"service_account": json.loads(setup.sandbox.secrets["gcp_token"]), **where})


def _deepseek(setup: DemoSetup) -> DemoInput:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "usage_data_demo.zip"
        billed = write_deepseek_export(path, seed=setup.seed, first_day=setup.first, days=setup.days)
        return DemoInput(place(setup.settings.landing / setup.org, path), billed.paid)


def _aws(setup: DemoSetup) -> DemoInput:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "aws-focus-demo.csv.gz"
        billed = write_focus_export(
            path, seed=setup.seed, first_day=setup.first, days=setup.days, rows_per_day=AWS_ROWS_PER_DAY
        )
        return DemoInput(place(setup.settings.landing / setup.org, path), billed)


DEMO_PIPELINES = (
    DemoPipeline("genai/payg/openai", "openai", secret_of("openai")),
    DemoPipeline("genai/payg/anthropic", "anthropic", secret_of("anthropic")),
    DemoPipeline("genai/payg/gemini", "gemini", secret_of("gemini")),
    DemoPipeline("genai/payg/deepseek", "deepseek", secret_of("deepseek"), _deepseek),
    DemoPipeline("aws/cost/billing", make=_aws),
    DemoPipeline(
        "azure/cost/billing",
        "azure",
        secret_of("azure_blob"),
        lambda setup: DemoInput(billed=bills.billed("azure", setup.seed, setup.first, setup.last)),
    ),
    DemoPipeline(
        "gcp/cost/billing",
        "gcp",
        _gcp_secret,
        lambda setup: DemoInput(billed=sum((amount for _, amount in setup.gcp_rows()), Decimal(0))),
    ),
    DemoPipeline(
        "oci/cost/billing",
        "oci",
        secret_of("oci_objectstorage"),
        lambda setup: DemoInput(billed=oci.billed(setup.seed, setup.first, setup.last)),
    ),
    DemoPipeline("subscription/costs/subscription_cost", days=MONTH),
)
"""One pipeline per provider's bill. AWS, Azure and OCI have others, which would load the same bill again."""


def add_credentials(
    credentials: Credentials, setup: DemoSetup, pipelines: Iterable[DemoPipeline] = DEMO_PIPELINES
) -> None:
    """Store the credentials that the sandboxes accept. Replaces old ones, because some keys are new in each process."""
    for pipeline in pipelines:
        if pipeline.provider:
            info = CredentialInfo(setup.org, pipeline.credential_id, pipeline.provider, datetime.now(UTC))
            credentials.add(info, pipeline.secret(setup))


def add_gcp_export(setup: DemoSetup, bigquery_url: str) -> None:
    """Add the missing days of Google's billing export to its table on the emulator."""
    rows = [row for row, _ in setup.gcp_rows()]
    table_id = ".".join((setup.settings.project_id, *GCP_TABLE))
    gcp_export.add_days(gcp_export.emulator_client(setup.settings.project_id, bigquery_url), table_id, rows)
