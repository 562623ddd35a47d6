"""What a function imports before its first event: cold starts pay for it."""

import subprocess
import sys

import pytest

from common.platform.paths import PROJECT_ROOT

CLIENTS = (
    "google.cloud.bigquery",
    "google.cloud.firestore",
    "google.cloud.pubsub_v1",
    "google.cloud.kms_v1",
    "google.auth",
    "google.api_core",
    "grpc",
)
HEAVY = (*CLIENTS, "flask_openapi", "pyarrow", "numpy", "genai_prices", "httpx2", "fsspec", "duckdb", "rich", "psycopg")
MODULES = ("advance", "api", "cron", "run_finished", "run_step", "start_run", "sweep")


@pytest.mark.parametrize("module", [f"functions.{name}" for name in MODULES] + ["main"])
def test_a_functions_module_imports_no_client_and_no_data_library(module: str) -> None:
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_processor_type_has_its_function() -> None:
    import main
    from common.processors.registry import PROCESSORS
    from functions.run_step import function_name

    assert function_name("genai.payg_usage") == "step_genai_payg_usage"
    assert function_name("ExternalFileExtractor") == "step_external_file_extractor"
    for ps_type in PROCESSORS:
        assert callable(getattr(main, function_name(ps_type)))
