"""What a module of ``common/processors/genai/providers/`` declares: what can be read of a provider, and its names."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

from common.platform.errors import ConfigError
from common.processors.base import Caller, StepContext
from common.writes.batch import Row

ReportName = Literal["usage", "cost", "balance"]
"""``usage``: quantities. ``cost``: money as the provider reports it. ``balance``: prepaid money that is left."""

Report = Callable[[StepContext, Sequence[str]], Iterator[Sequence[Row]]]
"""Yields bounded lists of rows, of the run's days alone. The endpoints are those to read, of ``usage`` only."""

TryCredential = Callable[[Caller, str], str]
"""Makes the cheapest call that proves a secret, and returns in a few words whose it is. Raises as ProviderClient."""


@dataclass(frozen=True, slots=True)
class FocusNames:
    """What FOCUS calls the parties and parts of a charge. ``account`` and ``project`` are the provider's own words.

    ``services`` are names of other services, by the endpoint that their usage is read from.
    """

    provider: str
    service: str
    account: str = "Organization"
    project: str = "Project"
    services: Mapping[str, str] = field(default_factory=dict)

    def columns(self, endpoint: str = "") -> dict[str, str]:
        """Return them as the columns that rows about money have."""
        return {
            "provider_name": self.provider,
            "service_name": self.services.get(endpoint, self.service),
            "account_type": self.account,
            "project_type": self.project,
        }


@dataclass(frozen=True, slots=True)
class GenaiProvider:
    """What can be read of one provider. ``price_key`` is what the price library calls it.

    ``reports`` holds a report, or the sentence that says why the provider has none. ``meters`` names everything that
    usage is read from, in order, and every meter that each can yield. ``page_days`` are the days that one call answers
    for; ``file_days``, of a provider whose usage comes in files, is a file's days.
    """

    names: FocusNames
    price_key: str
    reports: Mapping[ReportName, Report | str]
    try_credential: TryCredential
    meters: Mapping[str, Sequence[str]]
    page_days: int | None = None
    file_days: Callable[[Path], tuple[date, date]] | None = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What usage is read from, in order."""
        return tuple(self.meters)

    def report(self, name: ReportName) -> Report:
        """Return a report, or raise ConfigError with the reason why there is none."""
        report = self.reports.get(name, f"{self.names.provider} has no {name} report.")
        if isinstance(report, str):
            raise ConfigError(report)
        return report
