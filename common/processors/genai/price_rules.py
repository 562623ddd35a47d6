"""An organisation's own prices, ``configs/system/prices/<org>.yml``: negotiated, discounted, or in no list at all."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from common.config.model import IDENTIFIER
from common.config.money import Money, Usd
from common.config.problems import Finding, InvalidFileError, findings_of
from common.config.yaml_source import Source, read
from common.platform.errors import nearest
from common.platform.strict import StrictModel
from common.processors.genai.sources import known

PRICES_FOLDER = Path("system") / "prices"


def _day_from_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError('must be a day in quotes, such as "2026-01-31".')
    return value


def _known_provider(key: str) -> str:
    if key not in known():
        raise ValueError(
            f"no GenAI provider is named {key[:80]!r}.{nearest(key, known())} Known: {', '.join(known())}."
        )
    return key


Share = Annotated[Money, Field(ge=0, le=100, max_digits=9)]
Day = Annotated[date, BeforeValidator(_day_from_text)]
Provider = Annotated[str, AfterValidator(_known_provider)]


class PriceRule(StrictModel):
    """One price or discount, and what it is for. What it does not name, it is for all of."""

    provider: Provider = Field(description="Whose usage, e.g. openai.")
    model: str | None = Field(
        None, min_length=1, description="The provider's model name; with * at its end, a beginning."
    )
    meter: str | None = Field(None, min_length=1, description="What is counted, e.g. output_text.")
    variant: str | None = Field(None, min_length=1, description="Price variant, e.g. batch.")
    since: Day | None = Field(None, alias="from", description="First day that it is for.")
    to: Day | None = Field(None, description="Last day that it is for, inclusive.")
    unit_price: Usd | None = Field(None, description="Price in US dollars of `per` units, as text.")
    per: Literal[1, 1_000, 1_000_000] = Field(1, description="For how many units the price is.")
    discount_percent: Share | None = Field(None, description="What is taken off the list price, in percent, as text.")
    note: str = Field("", max_length=100, description="Which contract it is from; it stands on each priced row.")

    @model_validator(mode="after")
    def _one_price(self) -> Self:
        if (self.unit_price is None) == (self.discount_percent is None):
            raise ValueError("needs either unit_price or discount_percent, and not both.")
        if self.discount_percent is not None and self.per != 1:
            raise ValueError("per goes with unit_price only.")
        if self.since is not None and self.to is not None and self.to < self.since:
            raise ValueError(f"to {self.to} is before from {self.since}.")
        return self

    def fits(self, provider: str, model: str | None, meter: str, variant: str, day: date) -> bool:
        """Whether it is for this usage."""
        return (
            self.provider == provider
            and self._fits_model(model)
            and self.meter in (None, meter)
            and self.variant in (None, variant)
            and (self.since is None or self.since <= day)
            and (self.to is None or day <= self.to)
        )

    def _fits_model(self, model: str | None) -> bool:
        if self.model is None or model is None:
            return self.model is None
        return model.startswith(self.model[:-1]) if self.model.endswith("*") else model == self.model

    def price(self, listed: Decimal | None) -> Decimal | None:
        """Return the price of one unit, exactly; None for a discount on a list price that nobody knows."""
        if self.unit_price is not None:
            return self.unit_price.scaleb({1: 0, 1_000: -3, 1_000_000: -6}[self.per])
        assert self.discount_percent is not None
        return None if listed is None else listed * (100 - self.discount_percent).scaleb(-2)

    def covers(self, other: "PriceRule") -> bool:
        """Whether it fits all that the other does, so that the other never has a turn after it."""
        return (
            self.provider == other.provider
            and (self.model is None or self.model == other.model or self._fits_model((other.model or "").rstrip("*")))
            and self.meter in (None, other.meter)
            and self.variant in (None, other.variant)
            and (self.since is None or (other.since is not None and self.since <= other.since))
            and (self.to is None or (other.to is not None and other.to <= self.to))
        )


class PriceFile(StrictModel):
    """The file: rules in the order they are tried, the first that fits holds."""

    organisation: str = Field(pattern=IDENTIFIER, description="Whose prices these are: the name of the file.")
    rules: tuple[PriceRule, ...] = Field(min_length=1, description="Tried in this order; the first that fits holds.")


@dataclass(frozen=True, slots=True)
class PriceRules:
    """An organisation's rules; none where it has no file."""

    organisation: str
    rules: tuple[PriceRule, ...] = ()

    def find(self, provider: str, model: str | None, meter: str, variant: str, day: date) -> PriceRule | None:
        """Return the first rule that fits, or None: then the list price holds."""
        return next((rule for rule in self.rules if rule.fits(provider, model, meter, variant, day)), None)

    def named(self, rule: PriceRule) -> str:
        """Say where a price is from."""
        return f"prices of {self.organisation}" + (f": {rule.note}" if rule.note else "")


def load_price_rules(root: Path, org_slug: str) -> PriceRules:
    """Read an organisation's rules below ``root``. Raises InvalidFileError with all that is wrong in the file."""
    path = root / PRICES_FOLDER / f"{org_slug}.yml"
    if not path.is_file():
        return PriceRules(org_slug)
    source = read(path, f"{root.resolve().name}/{PRICES_FOLDER.as_posix()}/{path.name}")
    problems = [source.problem(*finding) for finding in _findings(source, org_slug)]
    if problems:
        raise InvalidFileError(sorted(problems, key=lambda problem: problem.line))
    return PriceRules(org_slug, PriceFile.model_validate(source.data).rules)


def _findings(source: Source, org_slug: str) -> Iterator[Finding]:
    try:
        file = PriceFile.model_validate(source.data)
    except ValidationError as error:
        yield from findings_of(error, PriceFile)
        return
    if file.organisation != org_slug:
        yield ("organisation",), f"must be {org_slug!r}, the name of its file."
    for i, rule in enumerate(file.rules):
        before: Any = next((n for n, other in enumerate(file.rules[:i]) if other.covers(rule)), None)
        if before is not None:
            line = source.problem(("rules", before), "").line
            yield ("rules", i), f"never has a turn: the rule in line {line} fits all of it. Put this one first."
