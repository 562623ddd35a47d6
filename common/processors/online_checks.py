"""Whether stored credentials still open what they are for: one small call to each provider.

What is asked is the matter of the processors of the provider's pipelines (``TriesCredential``): another provider needs
no line here.
"""

import time
from collections.abc import Callable, Iterator, Sequence
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
"""Longest time for one credential, all tries and waits included."""

NEEDS = "Paste a JSON object with the fields that docs/providers-cloud.md names."


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check of one credential found. ``is_good`` is None if its provider has nothing to ask."""

    credential: CredentialInfo
    is_good: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class _CheckCaller:
    """Who calls, as a provider's client wants it."""

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


@dataclass(frozen=True, slots=True)
class OnlineChecks:
    """Tries stored credentials with what the provider's pipelines would do with them."""

    settings: Settings
    configs: ConfigTree
    credentials: Credentials
    provider_url: Callable[[str], str]
    google: Callable[[], GoogleCloud]

    def verdicts(self, orgs: Sequence[str]) -> Iterator[Verdict]:
        """Yield a verdict for each credential of these organisations. Nothing that is wrong with one raises."""
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
        return Verdict(info, True, "; ".join(its.try_credential(caller, secret, configured) for its in fitting))

    def _used_by(self, info: CredentialInfo) -> tuple[list[TriesCredential], list[Params]]:
        """Return what can try a credential, and the params of all steps of the provider's pipelines.

        Pipelines are the same for every organisation, so each of them may be this one's.
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
    """Return those that the credential has the fields for. Raises PermanentError if it has them for none."""
    if not any(its.credential_field for its in processors):
        return list(processors)
    stored = StoredSettings(credential_id, secret, NEEDS)
    fitting = [its for its in processors if not its.credential_field or its.credential_field in stored.values]
    if not fitting:
        stored.wrong(f"has none of {', '.join(its.credential_field for its in processors)}")
    return fitting
