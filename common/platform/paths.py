"""Paths of the project's own files."""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
"""The checkout: where ``main.py`` is."""

CONFIGS = PROJECT_ROOT / "configs"
"""The pipelines, schemas and SQL of this checkout, which a stack uses unless ``PIPELINE_OPS_CONFIGS`` is set."""
