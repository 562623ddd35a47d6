"""The command line program: the group, with every command registered on it."""

from common.cli import admin, control, replay, runs, verify
from common.cli.base import cli

__all__ = ["admin", "cli", "control", "replay", "runs", "verify"]
