"""An organisation's own prices, ``configs/system/prices/<org>.yml``: negotiated, discounted, or in no list at all."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from common.config.model import IDENTIFIER
from common.config.money import Money, Usd
from common.config.problems import Finding, InvalidFileError, Problem, findings_of
from common.config.yaml_source import YamlFile, read
from common.platform.strict import StrictModel
from common.processors.genai.registry import ProviderKey

PRICES_FOLDER = Path("system") / "prices"


def _day_from_text(value: object) -> object:
    # pydantic would read a number as a Unix time: 86400 would be the second day of 1970.
    if not isinstance(value, str):
        raise ValueError('must be a day in quotes, such as "2026-01-31".')
    return value


Share = Annotated[Money, Field(ge=0, le=100, max_digits=9)]
Day = Annotated[date, BeforeValidator(_day_from_text)]


class PriceRule(StrictModel):
    """One price or discount, and the usage that it applies to. A field that is left out matches everything."""

    provider: ProviderKey = Field(description="Provider of the usage, e.g. openai.")
    model: str | None = Field(None, min_length=1, description="The provider's model name; a trailing * is a wildcard.")
    meter: str | None = Field(None, min_length=1, description="What is counted, e.g. output_text.")
    variant: str | None = Field(None, min_length=1, description="Price variant, e.g. batch.")
    since: Day | None = Field(None, alias="from", description="First day that the rule applies to.")
    to: Day | None = Field(None, description="Last day that the rule applies to, inclusive.")
    unit_price: Usd | None = Field(None, description="Price of `per` units in US dollars, as text.")
    per: Literal[1, 1_000, 1_000_000] = Field(1, description="Number of units that unit_price is for.")
    discount_percent: Share | None = Field(None, description="Discount on the list price, in percent, as text.")
    note: str = Field("", max_length=100, description="The contract it comes from; shown on each priced row.")

    @model_validator(mode="after")
    def _one_price(self) -> Self:
        if (self.unit_price is None) == (self.discount_percent is None):
            raise ValueError("needs either unit_price or discount_percent, not both.")
        if self.discount_percent is not None and self.per != 1:
            raise ValueError("per applies to unit_price only.")
        if self.since is not None and self.to is not None and self.to < self.since:
            raise ValueError(f"to {self.to} is before from {self.since}.")
        return self

    def fits(self, provider: str, model: str | None, meter: str, variant: str, day: date) -> bool:
        """Whether the rule applies to this usage."""
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
        """Return the price of one unit; None for a discount on an unknown list price."""
        if self.unit_price is not None:
            return self.unit_price.scaleb({1: 0, 1_000: -3, 1_000_000: -6}[self.per])
        assert self.discount_percent is not None
        return None if listed is None else listed * (100 - self.discount_percent).scaleb(-2)

    def covers(self, other: "PriceRule") -> bool:
        """Whether this rule matches everything that ``other`` matches, so that ``other`` is never used after it."""
        return (
            self.provider == other.provider
            and (self.model is None or self.model == other.model or self._fits_model((other.model or "").rstrip("*")))
            and self.meter in (None, other.meter)
            and self.variant in (None, other.variant)
            and (self.since is None or (other.since is not None and self.since <= other.since))
            and (self.to is None or (other.to is not None and other.to <= self.to))
        )


class PriceFile(StrictModel):
    """The file: rules in order; the first that matches is used."""

    organisation: str = Field(pattern=IDENTIFIER, description="Organisation, same as the name of the file.")
    rules: tuple[PriceRule, ...] = Field(min_length=1, description="Tried in this order; the first match is used.")


@dataclass(frozen=True, slots=True)
class PriceRules:
    """An organisation's rules; empty if it has no file."""

    organisation: str
    rules: tuple[PriceRule, ...] = ()

    def find(self, provider: str, model: str | None, meter: str, variant: str, day: date) -> PriceRule | None:
        """Return the first rule that matches, or None: then the list price is used."""
        return next((rule for rule in self.rules if rule.fits(provider, model, meter, variant, day)), None)

    def source(self, rule: PriceRule) -> str:
        """Return the ``price_source`` of rows priced by a rule."""
        return f"prices of {self.organisation}" + (f": {rule.note}" if rule.note else "")


def load_price_rules(root: Path, org_slug: str) -> PriceRules:
    """Read an organisation's rules below ``root``. Raises InvalidFileError with every problem of the file."""
    path = root / PRICES_FOLDER / f"{org_slug}.yml"
    if not path.is_file():
        return PriceRules(org_slug)
    source = read(path, f"{root.resolve().name}/{PRICES_FOLDER.as_posix()}/{path.name}")
    problems = [source.problem(*finding) for finding in _findings(source, org_slug)]
    if problems:
        raise InvalidFileError(sorted(problems, key=lambda problem: problem.line))
    return PriceRules(org_slug, PriceFile.model_validate(source.data).rules)


def _findings(source: YamlFile, org_slug: str) -> Iterator[Finding]:
    try:
        file = PriceFile.model_validate(source.data)
    except ValidationError as error:
        yield from findings_of(error, PriceFile)
        return
    if file.organisation != org_slug:
        # The file is looked up by its name: one organisation's prices must not apply to another after a copy.
        yield ("organisation",), f"must be {org_slug!r}, the name of its file."
    for i, rule in enumerate(file.rules):
        earlier: Any = next((n for n, other in enumerate(file.rules[:i]) if other.covers(rule)), None)
        if earlier is not None:
            line = source.problem(("rules", earlier), "").line
            yield ("rules", i), f"is never used: the rule in line {line} matches the same usage. Put this rule first."


def price_files(root: Path) -> list[Path]:
    """Return the organisations' price files, including misnamed ones, which ``check_price_file`` reports."""
    return sorted((root / PRICES_FOLDER).glob("*.y*ml"))


def check_price_file(root: Path, path: Path) -> None:
    """Raise InvalidFileError with every problem of the file, or of its name."""
    if path.suffix != ".yml":
        shown = path.resolve().relative_to(root.resolve().parent).as_posix()
        raise InvalidFileError([Problem(shown, 1, "(path)", "prices must be in <organisation>.yml. Rename the file.")])
    load_price_rules(root, path.stem)
