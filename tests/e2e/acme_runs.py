"""What ``test_new_provider.py`` runs in its checkout: the pipelines of the documents, at once on one embedded stack.

    python -m tests.e2e.acme_runs ORG FIRST LAST ROUTE...

Prints how each credential was tried and how each run ended, as JSON.
"""

import json
import sys
import time
from datetime import UTC, datetime

from common.platform.settings import Settings
from common.ports.secrets import CredentialInfo
from common.processors.online_checks import OnlineChecks
from common.runs.request import run_request
from infra.local.stack import EmbeddedStack

KEY = "key-1"
DEADLINE_S = 100.0


def main(org: str, first: str, last: str, *routes: str) -> None:
    """Try the credentials, run the routes, and wait for the runs' ends."""
    with EmbeddedStack(Settings.from_env()) as stack:
        engine = stack.engine
        for route in routes:
            provider = engine.configs.load(route).config.provider
            engine.credentials.add(CredentialInfo(org, f"cred_{provider}", provider, datetime.now(UTC)), KEY)
        attempts = engine.attempts
        checks = OnlineChecks(
            engine.settings, engine.configs, engine.credentials, attempts.provider_url, attempts.google
        )
        tried = {verdict.credential.provider: verdict.text for verdict in checks.verdicts([org])}
        body = {"start_date": first, "end_date": last}
        asked = [run_request(org, route, body, now=datetime.now(UTC), trigger="test") for route in routes]
        runs = [engine.request_run(request).run_id for request in asked]
        deadline = time.monotonic() + DEADLINE_S
        while not all(engine.store.load(run_id).status.is_terminal for run_id in runs):
            assert time.monotonic() < deadline, "a run does not end"
            time.sleep(0.1)
        ended = [engine.store.load(run_id) for run_id in runs]
    result = {run.request.route: run.error or run.status for run in ended}
    sys.stdout.write(json.dumps({"tried": tried, "ended": result}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
