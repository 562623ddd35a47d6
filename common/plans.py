"""Plan limits from ``configs/system/plans.yml``: the embedded mode's source of truth."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.domain.quota import Limits
from common.errors import ConfigError, NotFoundError, nearest


class _Plan(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    daily: int = Field(ge=0)
    monthly: int = Field(ge=0)
    concurrent: int = Field(ge=0)


class _Organisation(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    plan: str
    status: Literal["ACTIVE", "TRIAL", "PAST_DUE", "SUSPENDED", "CANCELLED"]


class _Plans(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    plans: dict[str, _Plan]
    organisations: dict[str, _Organisation]


class YamlPlans:
    """The plan limits port on a YAML file. Read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, _Plans] | None = None

    def limits(self, org_slug: str) -> Limits:
        plans = self._plans()
        organisation = plans.organisations.get(org_slug)
        if organisation is None:
            raise NotFoundError(f"There is no organisation {org_slug!r}.{nearest(org_slug, plans.organisations)}")
        plan = plans.plans.get(organisation.plan)
        if plan is None:
            raise ConfigError(
                f"{self._path}: organisations.{org_slug}.plan: no plan {organisation.plan!r}."
                f"{nearest(organisation.plan, plans.plans)}"
            )
        return Limits(organisation.status, plan.daily, plan.monthly, plan.concurrent)

    def _plans(self) -> _Plans:
        try:
            changed = self._path.stat().st_mtime_ns
            if self._read is None or self._read[0] != changed:
                self._read = changed, _Plans.model_validate(yaml.safe_load(self._path.read_text("utf-8")))
        except (OSError, yaml.YAMLError, ValidationError) as error:
            raise ConfigError(f"{self._path}: {error}") from error
        return self._read[1]
