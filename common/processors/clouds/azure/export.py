"""``AzureExportExtractor``: Cost Management exports (FocusCost, ActualCost, AmortizedCost) from their container.

A delivery holds a whole month, with a ``manifest.json`` in the folder of its files. Exactly the files that the newest
manifest of each month lists are read: older deliveries stay in the container, and would count a second time.

Facts: microsoft/finops-toolkit, docs-mslearn/toolkit/hubs/data-processing.md, and azure-mgmt-costmanagement 5.0.0.
"""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import ClassVar

from common.config.providers import filled
from common.platform.errors import PermanentError
from common.ports.http import Calls
from common.processors.base import Caller, Params, StepContext
from common.processors.bills.deliveries import (
    ExportParams,
    Manifests,
    Month,
    Part,
    delivered,
    months_of,
    newest,
    shown,
)
from common.processors.bills.layout import LayoutName
from common.processors.clouds.azure.blobs import Container
from common.processors.clouds.azure.login import HELP, STORAGE, azure_client, token
from common.processors.http.object_store import Stored
from common.processors.http.stored_settings import StoredSettings
from common.writes.batch import Batch
from common.writes.parts import PartRead, WholeDelivery

LAYOUTS: dict[str, LayoutName] = {
    "FocusCost": "table",
    "ActualCost": "azure_actual_cost",
    "AmortizedCost": "azure_amortised_cost",
}
"""Layout of each type of export."""

_RANGE = re.compile(r"/(\d{4})(\d{2})\d{2}-\d{8}/")


class AzureExportExtractor:
    """Reads the run's months. A charge outside its billing period belongs to the period's nearest day."""

    params_type: ClassVar[type[Params]] = ExportParams
    needs_credential: ClassVar[bool] = True
    credential_field: ClassVar[str] = "container"

    def run(self, context: StepContext, params: ExportParams) -> Iterator[Batch | PartRead | WholeDelivery]:
        opened, folder = _opened(context, context.secret())
        with opened as container:
            yield from delivered(
                context,
                params,
                "azure",
                find=lambda months, tell: newest(_listed(container, folder), months, tell),
                parts=lambda manifests: _parts(container, folder, manifests, params),
                missing=f"An export delivers one below {folder} within a day after it was made; else check the folder "
                "in the credential.",
            )

    def try_credential(self, caller: Caller, secret: str, configured: Sequence[Params]) -> str:
        """Get a token, list the export's manifests, and return a summary. Raises what ``run`` raises."""
        opened, folder = _opened(caller, secret)
        today = caller.now().date()
        with opened as container:
            months = months_of(today - timedelta(days=31), today)
            manifests = newest(_listed(container, folder), months, lambda _text: None)
        last = f"manifests of {shown(manifests)}" if manifests else "no manifest of this month or the last"
        return f"{folder}: {last}"


def _opened(calls: Calls, secret: str) -> tuple[Container, str]:
    """Return the container and the export's folder in it."""
    stored = StoredSettings(calls.credential_id, secret, HELP)
    account = stored.text("account", r"[a-z0-9]{3,24}")
    name = stored.text("container", r"[a-z0-9](-?[a-z0-9]){2,62}")
    folder = stored.text("folder", r"[ -~]{1,900}").strip("/")
    client = azure_client(stored)
    base = filled(calls.provider_url(client.address("blob")), account=account)
    return Container(calls, token(calls, client, STORAGE), base, account=account, container=name), folder


def _listed(container: Container, folder: str) -> Iterator[tuple[Month, Stored]]:
    for item in container.objects(f"{folder}/"):
        match = _RANGE.search(item.key)
        if match is not None and item.key.endswith("/manifest.json"):
            yield (int(match[1]), int(match[2])), item


def _parts(container: Container, folder: str, manifests: Manifests, params: ExportParams) -> Iterator[Part]:
    """Yield the files that the manifests list; one that is listed twice is read once."""
    for manifest in manifests.values():
        for name in dict.fromkeys(_blobs(container.read(manifest.key), manifest.key, folder, params)):
            yield Part(name, partial(container.download, name))


def _blobs(text: bytes, name: str, folder: str, params: ExportParams) -> list[str]:
    try:
        manifest = json.loads(text.removeprefix(b"\xef\xbb\xbf"))
        kind = manifest["exportConfig"]["type"]
        blobs: list[str] = [str(blob["blobName"]) for blob in manifest["blobs"]]
    except (ValueError, RecursionError, LookupError, TypeError):
        raise PermanentError(f"{name} is no manifest of an export: it lacks exportConfig.type or blobs.") from None
    # ActualCost and AmortizedCost have the same columns: the wrong layout would give wrong costs and no error.
    if LAYOUTS.get(kind) != params.layout:
        fitting = f"set layout: {LAYOUTS[kind]}" if kind in LAYOUTS else f"export one of {', '.join(LAYOUTS)}"
        raise PermanentError(f"{name} is of an export of type {kind!r}, not what the step's layout is for: {fitting}.")
    for blob in blobs:
        # The token may open more than the export: a manifest must not be able to lead to other blobs.
        if not blob.startswith(f"{folder}/") or ".." in blob.split("/"):
            raise PermanentError(f"{name} lists {blob[:200]!r}, which is not below {folder}/.")
    return blobs
