"""Puts a bill where its organisation's pipelines may read it, under a name that is its content's."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from common.config.loader import ConfigTree
from common.errors import PipelineOpsError
from common.processors.external_file import ExternalFileParams, date_span
from common.settings import Settings

PS_TYPE = "ExternalFileExtractor"


def land(settings: Settings, org: str, route: str, source: Path, *, dated: bool) -> dict[str, Any]:
    """Copy the file into the landing folder; return the request's ``source`` and, unless dated, its dates.

    The name is the content's hash, so the file a run started with is the one it ends with, and landing the same
    bill twice keeps one copy.
    """
    tree = ConfigTree(settings.configs)
    step = next((s for s in tree.load(route).config.steps if s.ps_type == PS_TYPE), None)
    if step is None:
        raise PipelineOpsError(f"--source: {route} reads no file (it has no {PS_TYPE} step).")
    body: dict[str, Any] = {"source": place(settings.landing / org, source)}
    if not dated:
        params = ExternalFileParams.model_validate(dict(step.config))
        first, last = date_span(settings.landing / org / body["source"], params)
        body |= {"start_date": first.isoformat(), "end_date": last.isoformat()}
    return body


def place(folder: Path, source: Path) -> str:
    """Copy a file into the folder whole or not at all; return its name there."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in source.name)[-120:]
    target = folder / f"{digest}-{stem.lstrip('.')}"
    if not target.exists():
        handle, partial = tempfile.mkstemp(dir=folder)
        os.close(handle)
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    return target.name
