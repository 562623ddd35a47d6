"""What a run's config and credential are: read, resolved and checked before its first step."""

from contextlib import suppress
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


@dataclass(frozen=True, slots=True)
class Validation:
    """Finds what a run needs in the tree of configs and among its organisation's credentials."""

    settings: Settings
    configs: ConfigTree
    credentials: Credentials

    def days(self, route: str, today: date) -> tuple[date, date]:
        """Return the first and the last day, inclusive, of a run that nobody has dated: yesterday, and the days before
        it that the pipeline's provider may still correct.

        Of a pipeline that reads a file (a step's ``source``) it is yesterday alone: a file need not hold every day
        that its provider could correct, and a day that it does not hold would be emptied. So it is of a route that
        leads to no valid pipeline: the run is refused for that, or ends with it.
        """
        yesterday = today - timedelta(days=1)
        with suppress(NotFoundError, ConfigError):
            config = self.configs.load(route).config
            if not any(step.config.get("source") for step in config.steps):
                return find_provider(load_providers(self.settings.configs), config.provider).window(today)
        return yesterday, yesterday

    def validated(self, run: Run) -> RunValidated:
        """Return the pipeline as the run will use it from now on. Raises ConfigError, RequestError."""
        if run.specs:  # a rerun: its config is that of the run before
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
        return RunValidated(pipeline, credential_id)

    def _credential(self, request: RunRequest, provider: str) -> str:
        """Return the run's credential: the one it names, else the only one there is for the provider."""
        if request.credential_id is not None:
            return self.named_credential(request, provider)
        found = [c.credential_id for c in self.credentials.list(request.org_slug) if c.provider == provider]
        if len(found) == 1:
            return found[0]
        if not found:
            raise ConfigError(
                f"{request.org_slug} has no credential for {provider}. "
                f"Add one: main.py credentials add {request.org_slug} {provider}"
            )
        raise ConfigError(
            f"{request.org_slug} has {len(found)} credentials for {provider} ({', '.join(found)}): "
            "name one of them as credential_id."
        )

    def named_credential(self, request: RunRequest, provider: str | None = None) -> str:
        """Return the credential that the request names, if there is one, and of the provider. Raises NotFoundError,
        ConfigError."""
        assert request.credential_id is not None
        known = {c.credential_id: c.provider for c in self.credentials.list(request.org_slug)}
        if request.credential_id not in known:
            raise NotFoundError(
                f"{request.org_slug} has no credential {request.credential_id!r}."
                f"{nearest(request.credential_id, known)} See: main.py credentials list {request.org_slug}"
            )
        found = known[request.credential_id]
        if provider is not None and found != provider:
            raise ConfigError(f"Credential {request.credential_id!r} is for {found}, the pipeline needs {provider}.")
        return request.credential_id
