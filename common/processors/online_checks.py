"""Whether stored credentials still open what they are for: one small call to each provider."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from common.platform.errors import PipelineOpsError, StepTimeoutError
from common.ports.secrets import CredentialInfo, Credentials
from common.processors.clouds.checks import cloud_check
from common.processors.genai.sources import Check, known, source

TIMEOUT = timedelta(seconds=60)
"""Longest time for one credential, all tries and waits included."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out for one credential. ``is_good`` is None where its provider has nothing to ask."""

    credential: CredentialInfo
    is_good: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who calls, as a provider's client wants it."""

    credential_id: str
    provider_url: Callable[[str], str]
    deadline: datetime
    info: Callable[[str], None] = lambda _text: None
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def remaining_s(self) -> float:
        left = (self.deadline - self.now()).total_seconds()
        if left <= 0:
            raise StepTimeoutError(f"no answer within {TIMEOUT.total_seconds():.0f} s.")
        return left


def check_credentials(
    credentials: Credentials, orgs: Sequence[str], provider_url: Callable[[str], str]
) -> Iterator[Verdict]:
    """Yield a verdict for each credential of these organisations. Nothing that is wrong with one raises."""
    for org in orgs:
        for info in credentials.list(org):
            check = _check_of(info.provider)
            if check is None:
                yield Verdict(info, None, f"{info.provider} has nothing that could be asked.")
                continue
            calls = _Caller(info.credential_id, provider_url, datetime.now(UTC) + TIMEOUT)
            try:
                whose = check(calls, credentials.secret(org, info.credential_id))
            except PipelineOpsError as error:
                yield Verdict(info, False, str(error))
            else:
                yield Verdict(info, True, whose)


def _check_of(provider: str) -> Check | None:
    return source(provider).check if provider in known() else cloud_check(provider)
