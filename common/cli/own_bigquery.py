"""Which BigQuery a state directory's runs are in: a project of the user's own, if one was chosen, or the emulator.

A state directory belongs to one of them for good: its runs' receipts name tables, which commands such as ``verify``
have to find again. So the choice is kept there, and every later command on the directory follows it.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from common.platform.errors import ConfigError
from common.platform.settings import Settings

FILE = "bigquery-project.json"


@dataclass(frozen=True, slots=True)
class Choice:
    """A project, the location of its datasets, and the end of their names."""

    project: str
    location: str
    environment: str

    def of(self, settings: Settings) -> Settings:
        """Return the settings with this project in place of the emulator."""
        return replace(
            settings,
            project_id=self.project,
            location=self.location,
            environment=self.environment,
            own_bigquery=True,
        )


def followed(settings: Settings) -> Settings:
    """Return the settings with the project that was chosen for the state directory, if one was."""
    choice = read(settings.state_dir)
    return settings if choice is None else choice.of(settings)


def read(state_dir: Path) -> Choice | None:
    """Return what was chosen for a state directory. Raises ConfigError if it can't be read."""
    try:
        stored: dict[str, Any] = json.loads((state_dir / FILE).read_text("utf-8"))
        return Choice(**stored)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{state_dir / FILE} can't be read. Choose again: remove it, and name the project with --bigquery-project."
        ) from error


def keep(state_dir: Path, choice: Choice) -> None:
    """Keep the choice for all later commands on the state directory."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    (state_dir / FILE).write_text(json.dumps(asdict(choice), indent=2) + "\n", "utf-8")
