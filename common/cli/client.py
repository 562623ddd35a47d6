"""Client of the API: over HTTP if a stack runs, else of the function in this process."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from common.platform.errors import PipelineOpsError
from common.platform.problems import in_words

TIMEOUT_S = 30.0
"""Longer than any request but those below takes: a stack that does not respond in it is stuck."""

DECISION_TIMEOUT_S = 600.0
"""For requests that compare tables or commit to them: BigQuery's jobs run while the client waits."""


class ApiError(PipelineOpsError):
    """An error response of the API; the message comes from its problem document."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(in_words(problem))
        self.status, self.problem = status, problem


class ApiClient:
    """One method per endpoint. Without a ``url`` it calls ``application``, the API as WSGI, without a server.

    ``token`` is the stack's operator token, which opens every organisation.
    """

    def __init__(self, url: str | None, token: str | None, *, application: Any = None) -> None:
        import httpx2

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if url is None:
            transport = httpx2.WSGITransport(app=application)
            self._http = httpx2.Client(transport=transport, base_url="http://in-process", headers=headers)
        else:
            # Without the environment's proxies: the stack is on this machine, and a proxy would get its token.
            self._http = httpx2.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False, headers=headers)

    def start(self, org: str, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """Start a run; return its id and links."""
        return self._json("POST", f"/pipelines/run/{org}/{route}", json=body)

    def cancel(self, org: str, run_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Cancel a run; return it."""
        return self._json("POST", f"/pipelines/cancel/{org}/{run_id}", json=body)

    def rerun(self, org: str, run_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Run an ended run again; return the new run's id and links."""
        return self._json("POST", f"/pipelines/rerun/{org}/{run_id}", json=body)

    def preview(self, org: str, run_id: str) -> dict[str, Any]:
        """Return what promoting a preview would change."""
        return self._json("GET", f"/pipelines/preview/{org}/{run_id}", timeout=DECISION_TIMEOUT_S)

    def decide(self, decision: str, org: str, run_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Promote or discard a preview; return its run."""
        return self._json("POST", f"/pipelines/{decision}/{org}/{run_id}", json=body, timeout=DECISION_TIMEOUT_S)

    def skip(self, org: str, run_id: str, step_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Skip a step; return the run."""
        return self._json("POST", f"/pipelines/skip/{org}/{run_id}/{step_id}", json=body)

    def status(self, org: str, run_id: str) -> dict[str, Any]:
        """Return the run as it is now."""
        return self._json("GET", f"/pipelines/status/{org}/{run_id}")

    def history(self, org: str, **query: str) -> dict[str, Any]:
        """Return a page of runs."""
        return self._json("GET", f"/pipelines/history/{org}", params=query)

    def logs(self, org: str, run_id: str, part: str = "", **query: str) -> dict[str, Any]:
        """Return log lines, or with ``part`` the steps or transitions."""
        return self._json("GET", f"/pipelines/logs/{org}/{run_id}{part}", params=query)

    def download(self, org: str, run_id: str, **query: str) -> Iterator[str]:
        """Yield the whole log, one line of NDJSON at a time."""
        with self._http.stream("GET", f"/pipelines/logs/{org}/{run_id}/download", params=query) as response:
            if response.status_code >= 400:
                response.read()
                raise ApiError(response.status_code, response.json())
            yield from response.iter_lines()

    def follow(self, org: str, run_id: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yield log lines as they arrive, until the run has ended; reconnects and resumes when the stream is closed."""
        headers: dict[str, str] = {}
        while True:
            path = f"/pipelines/logs/{org}/{run_id}"
            with self._http.stream("GET", path, params={**query, "follow": "1"}, headers=headers) as response:
                if response.status_code >= 400:
                    response.read()
                    raise ApiError(response.status_code, response.json())
                for event in _events(response.iter_lines()):
                    if event["event"] == "end":
                        return
                    headers = {"Last-Event-ID": event["id"]}  # the next connection resumes after this line
                    yield json.loads(event["data"])

    def usage(self, org: str) -> dict[str, Any]:
        """Return the organisation's limits and usage."""
        return self._json("GET", f"/pipelines/usage/{org}")

    def pipelines(self, org: str) -> dict[str, Any]:
        """Return all pipelines with their schedules."""
        return self._json("GET", f"/pipelines/configs/{org}")

    def watch(
        self, org: str, run_id: str, see: Callable[[dict[str, Any]], None], every_s: float = 0.2
    ) -> dict[str, Any]:
        """Poll the run and pass it to ``see`` until it has ended; return it then."""
        while True:
            run = self.status(org, run_id)
            see(run)
            if run["ended_at"]:
                return run
            time.sleep(every_s)

    def _json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        import httpx2

        try:
            response = self._http.request(method, path, **more)
            body: dict[str, Any] = response.json()
        except httpx2.TransportError as error:
            raise PipelineOpsError(
                f"The stack does not respond ({type(error).__name__}). Is `main.py serve` running?"
            ) from error
        except ValueError as error:
            raise PipelineOpsError(
                f"{path} responded {response.status_code} without JSON. Is another server on the stack's port?"
            ) from error
        if response.status_code >= 400:
            raise ApiError(response.status_code, body)
        return body


def _events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Yield the fields of each server-sent event that has a name, which comments and ``retry`` do not have."""
    event: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name:
            event[name] = value
        elif event:
            if "event" in event:
                yield event
            event = {}
