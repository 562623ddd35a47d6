"""What configs need to know about processors. It is passed in, so that ``common.config`` imports no processor."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

FileCheck = tuple[Path, Callable[[], object]]
"""A file of the tree, and its check, which raises InvalidFileError with every problem."""


class Registry(Protocol):
    """The processors that a step's ``ps_type`` may name (``common/processors/registry.py``)."""

    @property
    def ps_types(self) -> Collection[str]:
        """Every registered name."""

    def params_type(self, ps_type: str) -> type[BaseModel]:
        """Return the model of a processor's ``config:`` block.

        Raises ConfigError if nothing registers it, with the nearest name, or if its module can't be loaded.
        """

    def file_checks(self, configs: Path) -> Iterator[FileCheck]:
        """Yield the files that only processors read (prices, subscriptions), each with its check."""
