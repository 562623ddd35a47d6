"""``configs/system/service_categories.yml``: FOCUS's ServiceCategory and ServiceSubcategory of providers' services."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from common.config.model import IDENTIFIER
from common.config.problems import InvalidFileError, findings_of
from common.config.yaml_source import read
from common.platform.strict import StrictModel

CATEGORIES_FILE = Path("system") / "service_categories.yml"

CATEGORIES = (
    *("AI and Machine Learning", "Analytics", "Business Applications", "Compute", "Databases", "Developer Tools"),
    *("Multicloud", "Identity", "Integration", "Internet of Things", "Management and Governance", "Media"),
    *("Migration", "Mobile", "Networking", "Security", "Storage", "Web", "Other"),
)
"""ServiceCategory of FOCUS 1.3 (focus.finops.org)."""

UNKNOWN = ("Other", "Other (Other)")


def known_category(value: str) -> str:
    """Return the value if it is a ServiceCategory, else raise ValueError."""
    if value not in CATEGORIES:
        raise ValueError(f"must be one of {', '.join(repr(c) for c in CATEGORIES)}.")
    return value


Category = Annotated[str, AfterValidator(known_category)]
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


class CategoriesFile(StrictModel):
    """The file: names of services by provider, category and subcategory."""

    services: Mapping[Annotated[str, StringConstraints(pattern=IDENTIFIER)], Mapping[Category, Mapping[str, Names]]]


class ServiceCategories:
    """The services of one provider."""

    def __init__(self, names: Mapping[str, tuple[str, str]]) -> None:
        self._names = names
        self._longest_first = sorted(names, key=len, reverse=True)

    def of(self, service: str) -> tuple[str, str]:
        """Return category and subcategory of the name itself, else of the longest name that is a prefix of it."""
        name = service.casefold()
        if name in self._names:
            return self._names[name]
        known = next((known for known in self._longest_first if name.startswith(known)), None)
        return UNKNOWN if known is None else self._names[known]


def load_categories(root: Path) -> CategoriesFile:
    """Read the file of the tree ``root``. Raises InvalidFileError with every problem."""
    source = read(root / CATEGORIES_FILE, str(root.resolve().name / CATEGORIES_FILE))
    try:
        return CategoriesFile.model_validate(source.data)
    except ValidationError as error:
        raise InvalidFileError(source.problem(*finding) for finding in findings_of(error, CategoriesFile)) from None


@lru_cache(maxsize=16)
def service_categories(root: Path, provider: str) -> ServiceCategories:
    """Return the categories of a provider's services in the tree ``root``. Cached: rows are many, providers few."""
    kinds = load_categories(root).services.get(provider, {})
    return ServiceCategories(
        {
            name.casefold(): (category, subcategory)
            for category, subcategories in kinds.items()
            for subcategory, names in subcategories.items()
            for name in names
        }
    )
