"""A run's config and credential, resolved and checked before its first step."""

from contextlib import suppress
from copy import replace
from dataclasses import dataclass
from datetime import date, timedelta

from common.config.loader import ConfigTree
from common.config.providers import find_provider, load_providers
from common.domain.messages import RunValidated
from common.domain.model import NO_CREDENTIAL, Pipeline, Run, RunRequest
from common.platform.errors import ConfigError, NotFoundError, nearest
from common.platform.settings import Settings
from common.ports.secrets import Credentials
from common.processors.registry import processor
from common.runs.codec import encode_run

MAX_RUN_BYTES = 800_000
"""A run is one document with its pinned pipeline, and Firestore's hold 1 MiB, the run's history included."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Resolves a run's pipeline from the configs and its credential from those of its organisation."""

    settings: Settings
    configs: ConfigTree
    credentials: Credentials

    def days(self, route: str, today: date) -> tuple[date, date]:
        """Return the first and last day, inclusive, of a run without dates: yesterday, and the days before it that the
        pipeline's provider may still correct.

        For a pipeline that reads a file (a step's ``source``) it is yesterday only: the file need not have every day
        that its provider could correct, and the rows of a missing day would be deleted. The same for a route without
        a valid pipeline: its run is refused, or fails, for that reason.
        """
        yesterday = today - timedelta(days=1)
        with suppress(NotFoundError, ConfigError):
            config = self.configs.load(route).config
            if not any(step.config.get("source") for step in config.steps):
                return find_provider(load_providers(self.settings.configs), config.provider).window(today)
        return yesterday, yesterday

    def validated(self, run: Run) -> RunValidated:
        """Return the pipeline as the run will use it from now on. Raises ConfigError, RequestError."""
        if run.specs:  # a rerun keeps the pinned config of the run it repeats
            return RunValidated(Pipeline(run.pipeline_id, "", run.specs, run.config_hash), run.credential_id)
        request = run.request
        file = self.configs.load(request.route)
        needs = any(processor(step.ps_type).needs_credential for step in file.config.steps)
        credential_id = self._credential(request, file.config.provider) if needs else NO_CREDENTIAL
        pipeline: Pipeline = self.configs.resolve(
            file,
            {
                "org_slug": request.org_slug,
                "project_id": self.settings.project_id,
                "org_dataset": self.settings.dataset(request.org_slug),
                "start_date": request.start_date.isoformat(),
                "end_date": request.end_date.isoformat(),
                "credential_id": credential_id,
                "pipeline_id": file.config.pipeline_id,
                "run_id": run.run_id,
            },
        )
        size = len(encode_run(replace(run, specs=pipeline.steps)))
        if size > MAX_RUN_BYTES:
            raise ConfigError(
                f"{request.route}: the pipeline has {size:,} bytes once its templates are filled in, and a run holds "
                f"{MAX_RUN_BYTES:,}. Split it into several pipelines."
            )
        return RunValidated(pipeline, credential_id)

    def _credential(self, request: RunRequest, provider: str) -> str:
        """Return the run's credential: the one it names, else the only one there is for the provider."""
        if request.credential_id is not None:
            return self.named_credential(request, provider)
        matching = [c.credential_id for c in self.credentials.list(request.org_slug) if c.provider == provider]
        if len(matching) == 1:
            return matching[0]
        if not matching:
            raise ConfigError(
                f"{request.org_slug} has no credential for {provider}. "
                f"Add one: main.py credentials add {request.org_slug} {provider}"
            )
        raise ConfigError(
            f"{request.org_slug} has {len(matching)} credentials for {provider} ({', '.join(matching)}): "
            "name one of them as credential_id."
        )

    def named_credential(self, request: RunRequest, provider: str | None = None) -> str:
        """Return the credential that the request names. Raises NotFoundError, or ConfigError if it is for another
        provider."""
        assert request.credential_id is not None
        known = {c.credential_id: c.provider for c in self.credentials.list(request.org_slug)}
        if request.credential_id not in known:
            raise NotFoundError(
                f"{request.org_slug} has no credential {request.credential_id!r}."
                f"{nearest(request.credential_id, known)} See: main.py credentials list {request.org_slug}"
            )
        actual = known[request.credential_id]
        if provider is not None and actual != provider:
            raise ConfigError(f"Credential {request.credential_id!r} is for {actual}, the pipeline needs {provider}.")
        return request.credential_id
