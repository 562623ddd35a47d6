"""Every cloud function, for functions-framework; run as a program, the command line.

functions-framework --target api        serves one function, as Google Cloud does
python main.py --help                   serve, run, status, history, logs, validate, credentials, demo
"""

import sys

if sys.version_info < (3, 13):  # noqa: UP036 - an old interpreter gets a sentence, not a traceback
    sys.exit(
        f"Pipeline Ops needs Python 3.13 or newer, this is {sys.version.split()[0]}. `make demo` finds one itself."
    )

from functions.advance import advance
from functions.api import api
from functions.cron import cron
from functions.dead_letter import dead_letter
from functions.framework import take_pushes, use_problem_documents
from functions.run_finished import run_finished
from functions.run_step import STEP_FUNCTIONS
from functions.start_run import start_run
from functions.sweep import sweep

globals().update(STEP_FUNCTIONS)
use_problem_documents()
take_pushes()

__all__ = ["advance", "api", "cron", "dead_letter", "run_finished", "start_run", "sweep", *STEP_FUNCTIONS]

if __name__ == "__main__":
    from common.cli.main import cli

    cli()
