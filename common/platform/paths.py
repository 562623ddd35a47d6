"""Where the project's own files are."""

import os
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
"""The checkout: where ``main.py`` is."""


def configs_dir() -> Path:
    """Return the folder of pipelines, schemas and SQL: ``PIPELINE_OPS_CONFIGS``, else ``configs/`` of this checkout."""
    configured = os.environ.get("PIPELINE_OPS_CONFIGS")
    return Path(configured) if configured else PROJECT_ROOT / "configs"
