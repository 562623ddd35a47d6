"""The tree of pipelines below ``configs/``: finds them by route, reads and checks them."""

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.config.memo import Memo
from common.config.model import PipelineConfig, StepConfig
from common.config.params import dump_params, mapped_findings
from common.config.problems import Finding, InvalidFileError, Location, Problem, findings_of
from common.config.registry import Registry
from common.config.rules import check
from common.config.templates import ITEM, TEMPLATE, strings, substitute, unresolved
from common.config.yaml_source import YamlFile, read
from common.domain.model import MapSpec, Pipeline, RetryPolicy, StepSpec, WriteSpec
from common.platform.errors import ConfigError, NotFoundError, nearest

NOT_PIPELINES = frozenset({"schemas", "sql", "system", "environments"})
"""Folders below the root that have no pipelines."""

ROUTE_PARTS = 3
"""``provider/domain/pipeline``, as in ``POST /pipelines/run/{org}/{provider}/{domain}/{pipeline}``."""

_PART = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PipelineFile:
    """A valid pipeline. ``text_hash`` is the SHA-256 of the file's bytes."""

    path: Path
    route: str
    text_hash: str
    config: PipelineConfig
    source: YamlFile = field(repr=False, compare=False)
    constant: dict[str, StepSpec] = field(default_factory=dict, repr=False, compare=False)
    """Steps without templates, which are the same in every run: resolved once."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The files of the tree by route, and the problems of their names, by path."""

    routes: Mapping[str, Path]
    problems: Mapping[Path, Problem]


class ConfigTree:
    """Pipelines by route. Each call looks for changed files, so no restart is needed; unchanged files are cached."""

    def __init__(self, root: Path, registry: Registry) -> None:
        self.root, self.registry = root, registry
        self._folders: list[str] = []
        self._scanned = Memo[Scan]()
        self._referenced = Memo[list[Path]]()
        self._loaded: dict[str, Memo[PipelineFile]] = defaultdict(Memo)
        self._concurrency: dict[str, Memo[int | None]] = defaultdict(Memo)

    @cached_property
    def _title(self) -> str:
        return self.root.resolve().name

    def shown(self, path: Path) -> str:
        """Return the path as messages show it, ``configs/genai/payg/openai.yml``, without this machine's folders."""
        return str(self._title / path.relative_to(self.root))

    def scan(self) -> Scan:
        """Find all files of the tree by name; reads none of them."""
        return self._scanned.get(self._folders, self._scan)

    def _scan(self) -> Scan:
        self._folders = [folder for folder, _, _ in os.walk(self.root)]
        by_route: dict[str, list[Path]] = defaultdict(list)
        problems: dict[Path, Problem] = {}
        for path in sorted(p for suffix in ("yml", "yaml") for p in self.root.rglob(f"*.{suffix}")):
            parts = path.relative_to(self.root).with_suffix("").parts
            if parts[0] in NOT_PIPELINES or any(part.startswith(".") for part in parts) or not path.is_file():
                continue
            route = parts[-ROUTE_PARTS:]
            if len(route) < ROUTE_PARTS:
                problems[path] = self._misplaced(path, "must be in provider/domain/pipeline.yml. Move it.")
            elif bad := next((part for part in route if not _PART.fullmatch(part)), None):
                message = f"{bad[:80]!r} can't be part of a route: use lower-case letters, digits, - and _. Rename it."
                problems[path] = self._misplaced(path, message)
            else:
                by_route["/".join(route)].append(path)
        for route_name, paths in by_route.items():
            for path in paths if len(paths) > 1 else ():
                others = ", ".join(self.shown(other) for other in paths if other != path)
                problems[path] = self._misplaced(path, f"has the same route as {others}: {route_name}. Rename one.")
        return Scan({route: paths[0] for route, paths in by_route.items() if len(paths) == 1}, problems)

    def _misplaced(self, path: Path, message: str) -> Problem:
        return Problem(self.shown(path), 1, "(path)", message)

    def routes(self) -> Mapping[str, Path]:
        """Return the path of every route. Raises ConfigError if a file has no route, or the same as another."""
        scan = self.scan()
        if scan.problems:
            raise InvalidFileError(scan.problems.values())
        return scan.routes

    def find(self, route: str) -> Path:
        """Return the path of a route. Raises NotFoundError that suggests the nearest one.

        Raises ConfigError if two files have the route; problems elsewhere in the tree do not stop this pipeline.
        """
        scan = self.scan()
        if route in scan.routes:
            return scan.routes[route]
        clashes = [problem for path, problem in scan.problems.items() if self._route_of(path) == route]
        if clashes:
            raise InvalidFileError(clashes)
        hint = nearest(route, scan.routes) or f" Pipelines: {', '.join(sorted(scan.routes)[:20]) or 'none'}."
        raise NotFoundError(f"No pipeline has the route {route[:200]!r}.{hint}")

    def _route_of(self, path: Path) -> str:
        return "/".join(path.relative_to(self.root).with_suffix("").parts[-ROUTE_PARTS:])

    def load(self, route: str) -> PipelineFile:
        """Read and check one pipeline. Raises NotFoundError, or ConfigError that lists all problems of its file."""
        path = self.find(route)
        schemas = self.root / "schemas"
        # The files that the rules compare a pipeline with: a changed contract can make it invalid.
        referenced = self._referenced.get(
            [schemas], lambda: [schemas, *schemas.glob("*.yml"), self.root / "system" / "providers.yml"]
        )
        return self._loaded[route].get([path, *referenced], lambda: self._read(path, route))

    def concurrency(self, route: str) -> int | None:
        """Return how many live runs of the pipeline an organisation may have; None without such a limit.

        Reads this one field only, because it is on the path of every request. A missing or invalid file has no limit:
        its runs fail at validation.
        """
        try:
            path = self.find(route)
            return self._concurrency[route].get([path], lambda: _concurrency(read(path, self.shown(path))))
        except (NotFoundError, ConfigError):
            return None

    def _read(self, path: Path, route: str) -> PipelineFile:
        source = read(path, self.shown(path))
        return PipelineFile(path, route, source.sha256, check(source, self.root, self.registry), source)

    def resolve(self, file: PipelineFile, variables: Mapping[str, str]) -> Pipeline:
        """Return the pipeline with its templates replaced and its steps' configs validated again.

        ``variables`` are those of ``common.config.templates.NAMES``; ``pipeline_id`` comes from the file. The configs
        are plain JSON data; that of a step with ``map:`` still has ``{item}``, which
        ``common.domain.mapping.item_config`` replaces for each item. Raises ConfigError with every problem, without the
        values of variables.
        """
        known = {**variables, "pipeline_id": file.config.pipeline_id}
        specs: list[StepSpec] = []
        problems: list[Problem] = []
        for i, step in enumerate(file.config.steps):
            if step.step_id in file.constant:
                specs.append(file.constant[step.step_id])
                continue
            try:
                specs.append(self._spec(step, known, ("steps", i, "config")))
            except _StepError as error:
                problems.extend(file.source.problem(*finding) for finding in error.findings)
            else:
                if not any(TEMPLATE.search(text) for _, text in strings(step.config)):
                    file.constant[step.step_id] = specs[-1]
        if problems:
            raise InvalidFileError(problems)
        return Pipeline(file.config.pipeline_id, file.config.provider, tuple(specs), file.text_hash)

    def _spec(self, step: StepConfig, variables: Mapping[str, str], place: Location) -> StepSpec:
        known = (*variables, ITEM) if step.map else tuple(variables)
        findings = [((*place, *inner), message) for inner, message in unresolved(step.config, known)]
        if findings:
            raise _StepError(findings)
        return StepSpec(
            step.step_id,
            step.ps_type,
            step.depends_on,
            step.timeout_seconds,
            RetryPolicy(**step.retry.model_dump()),
            step.max_wait_seconds,
            condition=step.condition or "",
            map=MapSpec(**step.map.model_dump()) if step.map else None,
            allow_failure=step.allow_failure,
            always=step.run_if == "always",
            write=WriteSpec(**step.write.model_dump()),
            config=self._plain_config(step, substitute(step.config, variables), place),
        )

    def _plain_config(self, step: StepConfig, config: dict[str, Any], place: Location) -> dict[str, Any]:
        """Return a valid config as JSON data: with its params' defaults, or, of a step with ``map:``, as it is.

        What ``{item}`` becomes is known only item by item, and the params can't be dumped with the template in them.
        """
        params_type = self.registry.params_type(step.ps_type)
        if step.map:
            findings = list(mapped_findings(params_type, config, place, configs=self.root, dates=step.map.dates))
            if findings:
                raise _StepError(findings)
            return config
        try:
            return dump_params(params_type, config, self.root)
        except ValidationError as error:
            raise _StepError(list(findings_of(error, params_type, place))) from None
        except ConfigError as error:
            raise _StepError([(place, str(error))]) from None


def _concurrency(source: YamlFile) -> int | None:
    value = source.data.get("concurrency") if isinstance(source.data, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


class _StepError(Exception):
    """One step can't be resolved."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__()
        self.findings = findings
