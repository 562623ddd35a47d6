"""Fixtures of the contract suites."""

from tests.contract.stores import adapter

__all__ = ["adapter"]
