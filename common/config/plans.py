"""Plan limits from ``configs/system/plans.yml``: the embedded mode's source of truth."""

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

PLANS_FILE = Path("system") / "plans.yml"

Name = Annotated[str, StringConstraints(pattern=IDENTIFIER)]


class Plan(StrictModel):
    """What a plan admits."""

    daily: int = Field(ge=0, strict=True, description="Runs a UTC day.")
    monthly: int = Field(ge=0, strict=True, description="Runs a UTC month.")
    concurrent: int = Field(ge=0, strict=True, description="Runs at the same time.")
    money_usd: Usd | None = Field(None, description="US dollars that its runs of a UTC month may cost, in quotes.")
    weight: int = Field(1, ge=1, le=1000, strict=True, description="Share of the slots that several wait for.")


class Organisation(StrictModel):
    """An organisation's subscription."""

    plan: str
    status: Literal["ACTIVE", "TRIAL", "PAST_DUE", "SUSPENDED", "CANCELLED"]


class PlansFile(StrictModel):
    """The file: plans by name, which organisation has which, and how many runs of all of them may be live."""

    global_concurrent: int | None = Field(None, ge=1, strict=True, description="Runs of all organisations at a time.")
    plans: dict[Name, Plan] = Field(min_length=1)
    organisations: dict[Name, Organisation]


def load_plans(root: Path) -> PlansFile:
    """Read the plans of the tree ``root``, or raise InvalidFileError with all that is wrong in the file."""
    source = read(root / PLANS_FILE, str(root.resolve().name / PLANS_FILE))
    try:
        file = PlansFile.model_validate(source.data)
    except ValidationError as error:
        findings = findings_of(error, PlansFile)
        raise InvalidFileError(source.problem(location, message) for location, message in findings) from None
    unknown = [
        source.problem(
            ("organisations", name, "plan"), f"no plan is named {its.plan[:80]!r}.{nearest(its.plan, file.plans)}"
        )
        for name, its in file.organisations.items()
        if its.plan not in file.plans
    ]
    if unknown:
        raise InvalidFileError(unknown)
    return file


class YamlPlans:
    """The plan limits port on the YAML file, which is read again when it changes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._file = Memo[PlansFile]()

    def limits(self, org_slug: str) -> Limits:
        """Return the organisation's limits; raise NotFoundError, or ConfigError if the file is wrong."""
        file = self._file.get([self._root / PLANS_FILE], lambda: load_plans(self._root))
        organisation = file.organisations.get(org_slug)
        if organisation is None:
            raise NotFoundError(f"There is no organisation {org_slug!r}.{nearest(org_slug, file.organisations)}")
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
