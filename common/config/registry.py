"""What the configuration has to know of processors. It is handed in, so that configs import no processor."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

FileCheck = tuple[Path, Callable[[], object]]
"""A file of the tree, and what reads it: raises InvalidFileError with all that is wrong in it."""


class Registry(Protocol):
    """The processors that a step's ``ps_type`` may name (``common/processors/registry.py``)."""

    @property
    def ps_types(self) -> Collection[str]:
        """Every registered name."""

    def params_type(self, ps_type: str) -> type[BaseModel]:
        """Return the model of a processor's ``config:`` block.

        Raises ConfigError if nothing registers it, which names the nearest one, or if its module can't be loaded.
        """

    def file_checks(self, configs: Path) -> Iterator[FileCheck]:
        """Yield the files that belong to processors alone (prices, subscriptions), each with its check."""
