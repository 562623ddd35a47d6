"""Where the project's own files are."""

import os
from pathlib import Path


def configs_dir() -> Path:
    """Return the folder of pipelines, schemas and SQL: ``PIPELINE_OPS_CONFIGS``, else ``configs/`` of this checkout."""
    configured = os.environ.get("PIPELINE_OPS_CONFIGS")
    return Path(configured) if configured else Path(__file__).resolve().parent.parent / "configs"
