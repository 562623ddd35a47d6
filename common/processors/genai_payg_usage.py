"""``genai.payg_usage``: what an organisation used of a GenAI provider, day by day, as the provider reports it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, Self

from pydantic import Field, model_validator

from common.errors import nearest
from common.processors.base import Batch, Params, Row, StepContext, TableParams
from common.processors.openai_usage import OpenAIUsage


class UsageSource(Protocol):
    """One provider's usage API. Adding a provider is one file with one of these, and one line in ``SOURCES``."""

    endpoints: Sequence[str]
    """Names of everything it can read, in the order it is read."""

    page_days: int
    """Days that one call answers for."""

    def pages(self, context: StepContext, endpoints: Sequence[str]) -> Iterator[Sequence[Row]]:
        """Yield bounded lists of rows of ``genai_payg_usage``, from ``start_date`` to ``end_date`` inclusive."""


SOURCES: dict[str, UsageSource] = {"openai": OpenAIUsage()}


class GenaiPaygUsageParams(TableParams):
    """``config:`` of a ``genai.payg_usage`` step."""

    provider: Literal["openai"] = Field(description="Whose usage is read; the credential has to be this provider's.")
    endpoints: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Usage endpoints to read, e.g. completions; all if left out."
    )

    @model_validator(mode="after")
    def _known_endpoints(self) -> Self:
        known = SOURCES[self.provider].endpoints
        for name in self.endpoints or ():
            if name not in known:
                raise ValueError(
                    f"{self.provider} has no usage endpoint {name!r}.{nearest(name, known)} Known: {', '.join(known)}."
                )
        if len(set(self.endpoints or ())) != len(self.endpoints or ()):
            raise ValueError("each endpoint must be named once only: its usage would count twice.")
        return self


class GenaiPaygUsage:
    """Reads a provider's usage; one batch a page. Raises what its UsageSource raises."""

    params_type: ClassVar[type[Params]] = GenaiPaygUsageParams
    needs_credential: ClassVar[bool] = True

    def run(self, context: StepContext, params: Any) -> Iterator[Batch]:
        source = SOURCES[params.provider]
        for rows in source.pages(context, params.endpoints or source.endpoints):
            if rows:
                yield Batch(rows)

    def calls(self, params: Any, days: int) -> Mapping[str, int]:
        """Return the calls of one step: so many pages for each endpoint."""
        source = SOURCES[params.provider]
        pages = -(-days // source.page_days)
        return {params.provider: pages * len(params.endpoints or source.endpoints)}
