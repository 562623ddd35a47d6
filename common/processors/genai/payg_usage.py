"""``genai.payg_usage``: what an organisation used of a GenAI provider, day by day, as the provider reports it.

The same processor reads what a provider reports besides quantities: money (``report: cost``), which stands beside our
own figures and is compared with them, and prepaid balances (``report: balance``).
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
        description="Whose report is read, e.g. openai; the credential has to be this provider's."
    )
    report: ReportName = Field(
        default="usage", description="usage: quantities. cost: money as the provider reports it. balance: what is left."
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
            raise ValueError("endpoints are those of usage: leave them out of another report.")
        names = genai_provider(self.provider).endpoints
        for name in self.endpoints:
            if name not in names:
                raise ValueError(
                    f"{self.provider} has no usage endpoint {name!r}.{nearest(name, names)} Known: {', '.join(names)}."
                )
        if len(set(self.endpoints)) != len(self.endpoints):
            raise ValueError("each endpoint must be named once only: its usage would count twice.")
        return self


class GenaiPaygUsage:
    """Reads a provider's report; one batch a page. Raises what the report raises."""

    params_type: ClassVar[type[Params]] = GenaiPaygUsageParams
    needs_credential: ClassVar[bool] = True
    credential_field: ClassVar[str] = ""

    def run(self, context: StepContext, params: Any) -> Iterator[Batch]:
        its = genai_provider(params.provider)
        named = its.names.columns() if params.report == "cost" else {}
        for rows in its.report(params.report)(context, params.endpoints or its.endpoints):
            if rows:
                yield Batch([{**row, **named} for row in rows] if named else rows)

    def try_credential(self, caller: Caller, secret: str, configured: Sequence[Params]) -> str:
        """Ask the provider of the steps whose secret it is."""
        providers = dict.fromkeys(params.provider for params in configured if isinstance(params, GenaiPaygUsageParams))
        return "; ".join(genai_provider(key).try_credential(caller, secret) for key in providers)

    def calls(self, params: Any, days: int) -> Mapping[str, int]:
        """Return the calls of one step: so many pages for each endpoint; none where a file is read."""
        its = genai_provider(params.provider)
        if its.page_days is None:
            return {}
        return {params.provider: -(-days // its.page_days) * len(params.endpoints or its.endpoints)}
