"""Client of the API: over HTTP if a stack runs, else of the function in this process."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from common.platform.errors import PipelineOpsError
from common.platform.problems import in_words
from common.platform.retry import Backoff, retried

TIMEOUT_S = 60.0
"""Longer than any request but those below takes, and than ``BUSY_TIMEOUT_S``, for which the stack waits for its store:
with a shorter one the client would give up on requests that still succeed."""

DECISION_TIMEOUT_S = 600.0
"""For requests that compare tables or commit to them: BigQuery's jobs run while the client waits."""

TRIES = 4
AGAIN = Backoff(1.0, 4.0, jitter=False)
"""Between tries of a request that starts a run: with these, a restart of the stack is waited for."""


class _UnknownOutcomeError(Exception):
    """A try of a request after which nobody knows whether it took effect: no response, or a 5xx."""


class _NoResponseError(PipelineOpsError):
    """The connection broke, or the response is none of the API's. Nobody knows whether the request took effect."""


class ApiError(PipelineOpsError):
    """An error response of the API; the message comes from its problem document."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(in_words(problem))
        self.status, self.problem = status, problem


class ApiClient:
    """One method per endpoint. Without a ``url`` it calls ``application``, the API as WSGI, without a server.

    ``token`` is the stack's operator token, which opens every organisation. ``transport`` replaces the network.
    """

    def __init__(
        self,
        url: str | None,
        token: str | None,
        *,
        application: Any = None,
        transport: Any = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import httpx2

        self._sleep = sleep
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if url is None:
            transport = httpx2.WSGITransport(app=application)
            self._http = httpx2.Client(transport=transport, base_url="http://in-process", headers=headers)
        else:
            # Without the environment's proxies: the stack is on this machine, and a proxy would get its token.
            self._http = httpx2.Client(
                base_url=url, timeout=TIMEOUT_S, trust_env=False, headers=headers, transport=transport
            )

    def start(self, org: str, route: str, body: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Start a run, once for each idempotency ``key`` (None: a new one); return its id and links."""
        return self._once(f"/pipelines/run/{org}/{route}", body, key)

    def cancel(self, org: str, run_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Cancel a run; return it."""
        return self._json("POST", f"/pipelines/cancel/{org}/{run_id}", json=body)

    def rerun(self, org: str, run_id: str, body: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Run an ended run again, once for each idempotency ``key``; return the new run's id and links."""
        return self._once(f"/pipelines/rerun/{org}/{run_id}", body, key)

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

    def _once(self, path: str, body: dict[str, Any], key: str | None) -> dict[str, Any]:
        """POST what starts a run, again while it is not known whether it took effect.

        All tries have one Idempotency-Key, so that the run of a try whose response was lost is returned, not a second.
        """
        key = key or uuid.uuid4().hex
        headers = {"Idempotency-Key": key}

        def ask() -> dict[str, Any]:
            try:
                return self._json("POST", path, json=body, headers=headers)
            except ApiError as error:
                if error.status >= 500:
                    raise _UnknownOutcomeError(error) from error
                raise
            except _NoResponseError as error:
                raise _UnknownOutcomeError(error) from error

        try:
            return retried(ask, on=_UnknownOutcomeError, backoff=AGAIN, tries=TRIES, sleep=self._sleep)
        except _UnknownOutcomeError as failed:
            raise PipelineOpsError(
                f"{failed} It was asked {TRIES} times, and the run may have started all the same. "
                f"Repeat the command with --idempotency-key {key}: that starts no second run."
            ) from failed

    def _json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        import httpx2

        try:
            response = self._http.request(method, path, **more)
            body: dict[str, Any] = response.json()
        except httpx2.TransportError as error:
            raise _NoResponseError(
                f"The stack does not respond ({type(error).__name__}). Is `main.py serve` running?"
            ) from error
        except ValueError as error:
            raise _NoResponseError(
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
