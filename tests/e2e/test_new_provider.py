"""Another provider, added by the letter of docs/providers.md and docs/providers-cloud.md to a checkout of its own.

What the documents promise is held here: a GenAI provider is a module, a pipeline and an entry in the registry; a cloud
is one line and one command more. After that every repository-wide check is green, and the new pipelines run.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from common.adapters.bigquery import BigQueryWarehouse
from common.config.json_schema import SCHEMA_FILE
from common.platform.paths import PROJECT_ROOT
from infra.local.emulator import BigQueryEmulator
from infra.local.sandbox.exchange import Answer, Request
from infra.local.sandbox.server import SandboxServer
from tests.conftest import PROJECT
from tests.e2e.acme_runs import KEY

ORG = "globex"
FIRST, LAST = date(2026, 11, 17), date(2026, 11, 18)

GENAI = PROJECT_ROOT / "docs" / "providers.md"
CLOUD = PROJECT_ROOT / "docs" / "providers-cloud.md"
BLOCK = re.compile(r"```(?:python|yaml)\n# ([^\n]+)\n(.*?)```", re.DOTALL)
BELOW = "below providers:"
INSIDE = "in PROCESSORS"

REPOSITORY_WIDE = (
    "tests/unit/test_config_repository.py",
    "tests/unit/test_config_json_schema.py",
    "tests/unit/test_demo.py",
    "tests/unit/test_docs_pains.py",
    "tests/unit/test_docs_pipelines.py",
    "tests/unit/test_docs_providers.py",
    "tests/unit/test_docs_schemas.py",
    "tests/unit/test_service_categories.py",
    "tests/functions/test_imports.py::test_every_processor_type_has_its_function",
    "tests/functions/test_template_bounds.py::test_no_text_of_a_step_can_be_sql_a_path_or_an_address",
    "tests/functions/test_template_bounds.py::test_every_field_of_free_text_is_there_and_has_its_reason",
    "tests/functions/test_template_bounds.py::test_no_step_can_name_the_address_it_reads_from",
    "tests/processors/test_meters.py::test_every_meter_has_a_price_or_a_reason_for_having_none",
    "tests/processors/test_meters.py::test_every_provider_names_its_meters",
    "tests/processors/test_openai_costs.py::test_every_report_that_a_provider_lacks_is_refused_with_the_reason",
    "tests/processors/test_openai_costs.py::test_a_good_credential_is_proved_by_one_small_call_and_a_bad_one_refused",
    "tests/contract/test_conformance.py::test_every_pipeline_that_writes_focus_rows_says_what_its_source_bills",
)
"""Tests that go over all providers, processors or pipelines: what would be red for a newcomer."""


def follow(document: Path, checkout: Path) -> list[str]:
    """Do what the document's last chapter says, in a checkout. Returns the files that were written, in order."""
    chapter = document.read_text("utf-8").rsplit("\n## Another", 1)[1]
    written = []
    for title, code in BLOCK.findall(chapter):
        name, _, where = title.partition(", ")
        path = checkout / name
        if where == BELOW:
            path.write_text(path.read_text("utf-8") + code, "utf-8")
        elif where == INSIDE:
            before, end, after = path.read_text("utf-8").partition("\n}\n")
            path.write_text(f"{before}\n{code.rstrip()}{end}{after}", "utf-8")
        else:
            assert not where and not path.exists(), title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code, "utf-8")
        written.append(name)
    return written


def acme(request: Request) -> Answer:
    """What the providers of both documents answer."""
    if request.headers.get("authorization") != f"Bearer {KEY}":
        return Answer(401, {"error": {"message": "no such key"}})
    day = dict(request.query).get("day", "")
    if request.path == "/v1/me":
        return Answer(200, {"account": "acme-7"})
    if request.path == "/v1/usage" and FIRST.isoformat() <= day <= LAST.isoformat():
        return Answer(200, {"models": [{"model": "acme-large", "input_tokens": 1_000, "output_tokens": 10}]})
    if request.path == "/v1/costs" and FIRST.isoformat() <= day <= LAST.isoformat():
        cost = {"organization": "acme-7", "service": "Runner", "amount": "1.25", "currency": "EUR"}
        return Answer(200, {"costs": [cost]})
    return Answer(400, {"error": {"message": f"nothing is known of {request.path} on {day}"}})


class Checkout:
    """A copy of the repository's files, and its command line."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIPELINE_OPS_", "PYTEST_"))}
        self.environ = kept | environ
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        done = subprocess.run(listed, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
        for name in done.stdout.splitlines():
            if (PROJECT_ROOT / name).is_file():  # one that is deleted and not yet committed is listed all the same
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT_ROOT / name, folder / name)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Python in the checkout."""
        command = [sys.executable, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environ, text=True, stdout=pipe, stderr=subprocess.STDOUT
        )

    def python(self, *arguments: str) -> str:
        """Run Python in the checkout; return what it printed."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        return output


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(fail_with=acme) as server:
        yield server


@pytest.fixture
def checkout(tmp_path: Path, sandbox: SandboxServer, bigquery_emulator: BigQueryEmulator) -> Checkout:
    origin = sandbox.urls["anthropic"]
    return Checkout(
        tmp_path / "checkout",
        PIPELINE_OPS_STATE_DIR=str(tmp_path / "state"),
        PIPELINE_OPS_PROJECT=PROJECT,
        PIPELINE_OPS_PROVIDER_URL_ACME_LLM=origin,
        PIPELINE_OPS_PROVIDER_URL_ACME_CLOUD=origin,
        BIGQUERY_EMULATOR_HOST=bigquery_emulator.url,
    )


def test_a_provider_is_added_with_what_the_documents_say_and_nothing_else(
    checkout: Checkout, warehouse: BigQueryWarehouse
) -> None:
    assert follow(GENAI, checkout.folder) == [
        "common/processors/genai/providers/acme_llm.py",
        "configs/genai/payg/acme_llm.yml",
        "configs/system/providers.yml",
    ]

    assert follow(CLOUD, checkout.folder) == [
        "common/processors/clouds/acme.py",
        "configs/cloud/acme/cost/billing.yml",
        "configs/system/providers.yml",
        "common/processors/registry.py",
    ]
    assert "\n```bash\npython main.py schema " in CLOUD.read_text("utf-8").rsplit("\n## Another", 1)[1]
    checkout.python("main.py", "schema")
    schema = (checkout.folder / "configs" / SCHEMA_FILE).read_text("utf-8")
    assert "AcmeCost" in schema and "acme_llm" not in schema, "a GenAI provider would need a new schema, too"
    assert ", 0 wrong" in checkout.python("main.py", "validate")

    suite = checkout.start("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *REPOSITORY_WIDE)
    try:
        run_pipelines(checkout, warehouse)
        output, _ = suite.communicate(timeout=120)
        assert suite.returncode == 0, output
    finally:
        suite.kill()
        suite.wait()


def run_pipelines(checkout: Checkout, warehouse: BigQueryWarehouse) -> None:
    """Run both pipelines as a person would; the rows in the FOCUS table are the provider's."""
    price = 'rules:\n  - {provider: acme_llm, unit_price: "2", per: 1000000}\n'
    (checkout.folder / "configs" / "system" / "prices" / f"{ORG}.yml").write_text(f"organisation: {ORG}\n{price}")
    days = (FIRST.isoformat(), LAST.isoformat())
    output = checkout.python("-m", "tests.e2e.acme_runs", ORG, *days, "genai/payg/acme_llm", "acme/cost/billing")
    assert json.loads(output.splitlines()[-1]) == {
        "tried": {"acme_llm": "acme-7", "acme_cloud": "acme_cloud has nothing that could be asked."},
        "ended": {"genai/payg/acme_llm": "completed", "acme/cost/billing": "completed"},
    }
    sql = (
        "SELECT ServiceProviderName AS provider, ServiceName AS service, BillingCurrency AS currency, "
        f"SUM(BilledCost) AS billed, COUNT(*) AS n FROM `{PROJECT}.{ORG}_local.cost_data_standard_1_3` GROUP BY 1, 2, 3"
    )
    found = {
        row["service"]: (row["provider"], row["currency"], row["billed"], row["n"]) for row in warehouse.query(sql)
    }
    assert found == {
        "Acme LLM": ("Acme", "USD", Decimal("0.00404"), 4),  # 1,010 tokens a day at 2 dollars a million, 2 days
        "Runner": ("Acme Cloud", "EUR", Decimal("2.5"), 2),
    }
