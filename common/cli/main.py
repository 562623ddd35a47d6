"""The command line program: the group, with every command registered on it."""

from common.cli import admin, bootstrap_sync, control, genai, replay, runs, verify
from common.cli.base import cli

__all__ = ["admin", "bootstrap_sync", "cli", "control", "genai", "replay", "runs", "verify"]
