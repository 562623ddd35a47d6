"""``genai.payg_usage``: an organisation's daily usage of a GenAI provider, as the provider reports it.

The same processor reads a provider's other reports: money (``report: cost``), which is kept apart from our own figures
and reconciled with them, and prepaid balances (``report: balance``).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from common.platform.errors import ConfigError, nearest
from common.processors.base import Caller, Params, StepContext, TableParams
from common.processors.genai.provider import ReportName
from common.processors.genai.registry import ProviderKey, genai_provider
from common.writes.batch import Batch


class GenaiPaygUsageParams(TableParams):
    """``config:`` of a ``genai.payg_usage`` step."""

    provider: ProviderKey = Field(
        description="Provider whose report is read, e.g. openai; the credential must be this provider's."
    )
    report: ReportName = Field(
        default="usage",
        description="usage: quantities. cost: money as the provider reports it. balance: prepaid money that is left.",
    )
    endpoints: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Usage endpoints to read, e.g. completions; all if left out."
    )

    @model_validator(mode="after")
    def _known_report(self) -> Self:
        try:
            genai_provider(self.provider).report(self.report)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _known_endpoints(self) -> Self:
        if self.endpoints is None:
            return self
        if self.report != "usage":
            raise ValueError("endpoints apply to the usage report only: leave them out.")
        names = genai_provider(self.provider).endpoints
        for name in self.endpoints:
            if name not in names:
                raise ValueError(
                    f"{self.provider} has no usage endpoint {name!r}.{nearest(name, names)} Known: {', '.join(names)}."
                )
        if len(set(self.endpoints)) != len(self.endpoints):
            raise ValueError("an endpoint is listed twice: its usage would be counted twice.")
        return self


class GenaiPaygUsage:
    """Reads a provider's report, a batch per page. Raises what the report raises."""

    params_type: ClassVar[type[Params]] = GenaiPaygUsageParams
    needs_credential: ClassVar[bool] = True
    credential_field: ClassVar[str] = ""

    def run(self, context: StepContext, params: Any) -> Iterator[Batch]:
        provider = genai_provider(params.provider)
        # The FOCUS SQL reads reported money as it is, and needs the names; usage gets them when it is priced.
        names = provider.names.columns() if params.report == "cost" else {}
        for rows in provider.report(params.report)(context, params.endpoints or provider.endpoints):
            if rows:
                yield Batch([{**row, **names} for row in rows] if names else rows)

    def try_credential(self, caller: Caller, secret: str, configured: Sequence[Params]) -> str:
        """Try the secret with each provider that the steps name; return whose it is."""
        providers = dict.fromkeys(params.provider for params in configured if isinstance(params, GenaiPaygUsageParams))
        return "; ".join(genai_provider(key).try_credential(caller, secret) for key in providers)

    def calls(self, params: Any, days: int) -> Mapping[str, int]:
        """Return the number of pages of one step, over all endpoints; none for a provider that is read from files."""
        provider = genai_provider(params.provider)
        if provider.page_days is None:
            return {}
        pages = -(-days // provider.page_days)  # rounded up: the last page is a call too
        return {params.provider: pages * len(params.endpoints or provider.endpoints)}
