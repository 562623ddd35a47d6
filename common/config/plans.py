"""Plan limits from ``configs/system/plans.yml``: the embedded mode's source of truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from common.config.memo import Memo
from common.config.model import IDENTIFIER
from common.config.money import Usd
from common.config.problems import InvalidFileError, findings_of
from common.config.yaml_source import read
from common.domain.quota import Limits
from common.platform.errors import NotFoundError, nearest
from common.platform.strict import StrictModel
from common.ports.store import PLANS_PAGE

PLANS_FILE = Path("system") / "plans.yml"

Name = Annotated[str, StringConstraints(pattern=IDENTIFIER)]


class Plan(StrictModel):
    """The limits of a plan."""

    daily: int = Field(ge=0, strict=True, description="Runs per UTC day.")
    monthly: int = Field(ge=0, strict=True, description="Runs per UTC month.")
    concurrent: int = Field(ge=0, strict=True, description="Concurrent runs.")
    money_usd: Usd | None = Field(None, description="Cost of the runs of a UTC month in US dollars, in quotes.")
    weight: int = Field(
        1, ge=1, le=1000, strict=True, description="Weight in the queue, if several organisations wait."
    )


class Organisation(StrictModel):
    """An organisation's subscription."""

    plan: str
    status: Literal["ACTIVE", "TRIAL", "PAST_DUE", "SUSPENDED", "CANCELLED"]


class PlansFile(StrictModel):
    """The file: plans by name, the organisations' subscriptions, and the limit of concurrent runs of all of them."""

    global_concurrent: int | None = Field(None, ge=1, strict=True, description="Concurrent runs of all organisations.")
    plans: dict[Name, Plan] = Field(min_length=1)
    organisations: dict[Name, Organisation]


def load_plans(root: Path) -> PlansFile:
    """Read the plans of the tree ``root``. Raises InvalidFileError with every problem of the file."""
    source = read(root / PLANS_FILE, str(root.resolve().name / PLANS_FILE))
    try:
        file = PlansFile.model_validate(source.data)
    except ValidationError as error:
        findings = findings_of(error, PlansFile)
        raise InvalidFileError(source.problem(location, message) for location, message in findings) from None
    unknown = [
        source.problem(
            ("organisations", name, "plan"),
            f"no plan is named {organisation.plan[:80]!r}.{nearest(organisation.plan, file.plans)}",
        )
        for name, organisation in file.organisations.items()
        if organisation.plan not in file.plans
    ]
    if unknown:
        raise InvalidFileError(unknown)
    return file


class YamlPlans:
    """The PlanLimits port on the YAML file, which is read again when it changes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._file = Memo[PlansFile]()

    def limits(self, org_slug: str) -> Limits:
        """Return the organisation's limits. Raises NotFoundError, or ConfigError if the file is invalid."""
        file = self._read()
        organisation = file.organisations.get(org_slug)
        if organisation is None:
            raise NotFoundError(f"There is no organisation {org_slug!r}.{nearest(org_slug, file.organisations)}")
        return _limits(file, organisation)

    def page(self, after: str = "", *, size: int = PLANS_PAGE) -> Sequence[tuple[str, Limits]]:
        """Return organisations behind ``after`` with their limits. Raises ConfigError if the file is invalid."""
        file = self._read()
        names = sorted(name for name in file.organisations if name > after)
        return [(name, _limits(file, file.organisations[name])) for name in names[:size]]

    def _read(self) -> PlansFile:
        return self._file.get([self._root / PLANS_FILE], lambda: load_plans(self._root))


def _limits(file: PlansFile, organisation: Organisation) -> Limits:
    plan = file.plans[organisation.plan]
    return Limits(
        organisation.status,
        plan.daily,
        plan.monthly,
        plan.concurrent,
        money_usd=plan.money_usd,
        weight=plan.weight,
        global_concurrent=file.global_concurrent,
    )
