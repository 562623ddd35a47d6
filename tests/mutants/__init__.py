"""Mutation testing (``make mutants``): without any one guard of these, a test fails."""

from tests.mutants.api import API
from tests.mutants.locks import LOCKS
from tests.mutants.postgres import POSTGRES
from tests.mutants.quota import QUOTA
from tests.mutants.runs import RUNS
from tests.mutants.schedules import SCHEDULES
from tests.mutants.writes import WRITES

GROUPS = {
    "runs": RUNS,
    "quota": QUOTA,
    "locks": LOCKS,
    "postgres": POSTGRES,
    "api": API,
    "writes": WRITES,
    "schedules": SCHEDULES,
}
