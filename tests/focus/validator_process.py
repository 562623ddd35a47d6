"""Runs the focus-validator's program again and again in one process: its imports alone take as long as a small file.

Started by ``validator.py`` with the validator's own Python, so it imports nothing of the project. A line of JSON in,
with a folder and the arguments; a line out, with why the program broke down if it did.
"""

import json
import os
import sys
import traceback

from focus_validator.main import main


def run(arguments: list[str]) -> str:
    """Run the program; return why it broke down, an empty text if it did not."""
    sys.argv = ["focus-validator", *arguments]
    try:
        main()
    except SystemExit as ended:
        return "" if not ended.code else f"it ended with {ended.code}"
    except Exception:
        return traceback.format_exc()
    return ""


def serve() -> None:
    """Answer each line until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the validator prints is no answer
    for line in sys.stdin:
        asked = json.loads(line)
        os.chdir(asked["folder"])
        answers.write(json.dumps({"problem": run(asked["arguments"])}) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
