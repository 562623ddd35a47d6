"""Copies a bill into its organisation's landing folder, under a name derived from its content."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from common.config.loader import ConfigTree
from common.config.model import StepConfig
from common.config.params import read_params
from common.platform.errors import PipelineOpsError
from common.platform.settings import Settings
from common.processors.bills.file_extractor import ExternalFileParams, date_span
from common.processors.genai.registry import genai_provider
from common.processors.registry import REGISTRY

FILE_STEP, GENAI_STEP = "ExternalFileExtractor", "genai.payg_usage"


def land(settings: Settings, org: str, route: str, source: Path, *, dated: bool) -> dict[str, Any]:
    """Copy the file into the landing folder; return the request's ``source`` and, unless dated, its dates.

    The name has the content's hash: a file can't change while a run reads it, and landing the same bill twice keeps
    one copy.
    """
    steps = ConfigTree(settings.configs, REGISTRY).load(route).config.steps
    days = next((of for step in steps if (of := _days_of(step, settings.configs)) is not None), None)
    if days is None:
        raise PipelineOpsError(f"--source: no step of {route} reads a file. Leave the option out.")
    body: dict[str, Any] = {"source": place(settings.landing / org, source)}
    if not dated:
        first, last = days(settings.landing / org / body["source"])
        body |= {"start_date": first.isoformat(), "end_date": last.isoformat()}
    return body


def _days_of(step: StepConfig, configs: Path) -> Callable[[Path], tuple[date, date]] | None:
    """Return the function that finds a file's first and last day for this step; None if it reads no file."""
    if step.ps_type == FILE_STEP:
        return lambda path: date_span(path, read_params(ExternalFileParams, step.config, configs), configs)
    return genai_provider(str(step.config["provider"])).file_days if step.ps_type == GENAI_STEP else None


def place(folder: Path, source: Path) -> str:
    """Copy a file into the folder whole or not at all; return its name there."""
    # Bills are confidential: no other account of this machine may list them.
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in source.name)[-120:]
    target = folder / f"{digest}-{stem.lstrip('.')}"
    if not target.exists():  # copied beside it and renamed, so that no run reads half a file
        handle, partial = tempfile.mkstemp(dir=folder)
        os.close(handle)
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    return target.name
