"""Names of providers' regions, from ``configs/system/regions.yml``."""

from functools import lru_cache
from pathlib import Path

from pydantic import Field, ValidationError

from common.config.problems import InvalidFileError, findings_of
from common.config.yaml_source import read
from common.platform.strict import StrictModel

REGIONS_FILE = Path("system/regions.yml")


class RegionsFile(StrictModel):
    """The file: for each provider the names of its regions by their ids."""

    regions: dict[str, dict[str, str]] = Field(description="By provider: the name of a region by its id.")


@lru_cache(maxsize=16)
def region_names(root: Path, provider: str) -> dict[str, str]:
    """Return the names of a provider's regions by their ids. Raises InvalidFileError with every problem."""
    source = read(root / REGIONS_FILE, str(root.resolve().name / REGIONS_FILE))
    try:
        return RegionsFile.model_validate(source.data).regions.get(provider, {})
    except ValidationError as error:
        raise InvalidFileError(source.problem(*finding) for finding in findings_of(error, RegionsFile)) from None
