"""What a module of ``common/processors/genai/providers/`` declares: the provider's reports and its FOCUS names."""

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
"""Yields bounded lists of rows, only of the run's days. Its second argument lists the ``usage`` endpoints to read."""

TryCredential = Callable[[Caller, str], str]
"""Makes the cheapest call that proves a secret; returns its owner in a few words. Raises as ProviderClient does."""


@dataclass(frozen=True, slots=True)
class FocusNames:
    """Names for the FOCUS columns of a charge. ``account`` and ``project`` are the provider's own terms.

    ``services`` overrides ``service`` for usage that is read from some endpoints.
    """

    provider: str
    service: str
    account: str = "Organization"
    project: str = "Project"
    services: Mapping[str, str] = field(default_factory=dict)

    def columns(self, endpoint: str = "") -> dict[str, str]:
        """Return the names as columns of a row with money."""
        return {
            "provider_name": self.provider,
            "service_name": self.services.get(endpoint, self.service),
            "account_type": self.account,
            "project_type": self.project,
        }


@dataclass(frozen=True, slots=True)
class GenaiProvider:
    """A provider's reports and names. ``price_key`` is its id in the price library.

    ``reports`` maps to a report, or to the sentence that says why the provider has none. ``meters`` maps each usage
    endpoint, in reading order, to every meter that it can yield. ``page_days`` is the number of days per call. For a
    provider whose usage comes in files, ``file_days`` returns a file's first and last day.
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
        """Return a report. Raises ConfigError with the reason if there is none."""
        report = self.reports.get(name, f"{self.names.provider} has no {name} report.")
        if isinstance(report, str):
            raise ConfigError(report)
        return report
