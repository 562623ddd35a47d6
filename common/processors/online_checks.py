"""Checks that stored credentials still work, with one small call to each provider.

The processors of the provider's pipelines make the call (``TriesCredential``): a new provider needs no change here.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common.config.loader import ConfigTree
from common.config.params import ITEM_STAND_IN, read_params
from common.domain.mapping import item_config
from common.platform.errors import PipelineOpsError, StepTimeoutError
from common.platform.settings import Settings
from common.ports.google import GoogleCloud
from common.ports.secrets import CredentialInfo, Credentials
from common.processors import registry
from common.processors.base import Params, TriesCredential
from common.processors.http.stored_settings import StoredSettings

TIMEOUT = timedelta(seconds=60)
"""Time limit for one credential, all tries and waits included: a person waits for the output."""

NEEDS = "Paste a JSON object with the fields that docs/providers-cloud.md names."


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of one credential's check. ``is_good`` is None if no processor of its provider can try it."""

    credential: CredentialInfo
    is_good: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class _CheckCaller:
    """The check in the form that a provider's client needs: a Caller without a step."""

    credential_id: str
    provider_url: Callable[[str], str]
    google: Callable[[], GoogleCloud]
    configs: Path
    deadline: datetime
    info: Callable[[str], None] = lambda _text: None
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def remaining_s(self) -> float:
        left = (self.deadline - self.now()).total_seconds()
        if left <= 0:
            raise StepTimeoutError(f"no answer within {TIMEOUT.total_seconds():.0f} s.")
        return left

    def interrupts(self, call: Callable[[], None]) -> AbstractContextManager[None]:
        return nullcontext()  # a check has no lease that it could lose


@dataclass(frozen=True, slots=True)
class OnlineChecks:
    """Tries stored credentials the way the provider's pipelines would use them."""

    settings: Settings
    configs: ConfigTree
    credentials: Credentials
    provider_url: Callable[[str], str]
    google: Callable[[], GoogleCloud]

    def verdicts(self, orgs: Sequence[str]) -> Iterator[Verdict]:
        """Yield a verdict for each credential of these organisations. A bad one does not raise."""
        for org in orgs:
            for info in self.credentials.list(org):
                try:
                    yield self._verdict(info)
                except PipelineOpsError as error:
                    yield Verdict(info, False, str(error))

    def _verdict(self, info: CredentialInfo) -> Verdict:
        processors, configured = self._used_by(info)
        if not processors:
            return Verdict(info, None, f"{info.provider} has nothing that could be asked.")
        secret = self.credentials.secret(info.org_slug, info.credential_id)
        deadline = datetime.now(UTC) + TIMEOUT
        caller = _CheckCaller(info.credential_id, self.provider_url, self.google, self.configs.root, deadline)
        fitting = _fitting(processors, info.credential_id, secret)
        return Verdict(info, True, "; ".join(each.try_credential(caller, secret, configured) for each in fitting))

    def _used_by(self, info: CredentialInfo) -> tuple[list[TriesCredential], list[Params]]:
        """Return the processors that can try a credential, and the params of all steps of the provider's pipelines.

        Pipelines are the same for every organisation, so any of them may use this credential.
        """
        yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
        variables = {
            "org_slug": info.org_slug,
            "project_id": self.settings.project_id,
            "org_dataset": self.settings.dataset(info.org_slug),
            "start_date": yesterday,
            "end_date": yesterday,
            "credential_id": info.credential_id,
            "run_id": "online_check",
        }
        processors: dict[str, TriesCredential] = {}
        configured: list[Params] = []
        for route in sorted(self.configs.routes()):
            file = self.configs.load(route)
            if file.config.provider != info.provider:
                continue
            for step in self.configs.resolve(file, variables).steps:
                processor = registry.processor(step.ps_type)
                if isinstance(processor, TriesCredential):
                    processors[step.ps_type] = processor
                configured.append(
                    read_params(processor.params_type, item_config(step.config, ITEM_STAND_IN), self.configs.root)
                )
        return [processors[ps_type] for ps_type in registry.PROCESSORS if ps_type in processors], configured


def _fitting(processors: Sequence[TriesCredential], credential_id: str, secret: str) -> list[TriesCredential]:
    """Return the processors that the credential has the field for. Raises PermanentError if there is none."""
    if not any(processor.credential_field for processor in processors):
        return list(processors)
    stored = StoredSettings(credential_id, secret, NEEDS)
    fitting = [p for p in processors if not p.credential_field or p.credential_field in stored.values]
    if not fitting:
        stored.wrong(f"has none of {', '.join(processor.credential_field for processor in processors)}")
    return fitting
