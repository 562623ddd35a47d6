"""Fixtures of the contract suites."""

from tests.contract.stores import adapter
from tests.contract.writes import target

__all__ = ["adapter", "target"]
