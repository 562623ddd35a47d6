"""The command line program: the group, with every command registered on it."""

from common.cli import (
    admin,
    bootstrap_sync,
    conform,
    control,
    doctor,
    genai,
    keys,
    notifications,
    overview,
    replay,
    report,
    runs,
    schedules,
    verify,
)
from common.cli.base import cli

__all__ = [
    "admin",
    "bootstrap_sync",
    "cli",
    "conform",
    "control",
    "doctor",
    "genai",
    "keys",
    "notifications",
    "overview",
    "replay",
    "report",
    "runs",
    "schedules",
    "verify",
]
