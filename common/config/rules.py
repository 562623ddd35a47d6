"""What a pipeline's parts mean to each other: every mistake of a file at once, each with its place.

The rules look at the plain data and not at validated models, so that one mistake does not hide the next. They are
generators: a hostile file with ten thousand mistakes is given up after the first few.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common.config.contracts import check_contract
from common.config.model import OUTPUT, PipelineConfig
from common.config.params import mapped_findings, params_findings
from common.config.problems import MAX_PROBLEMS, Finding, InvalidFileError, Location, findings_of
from common.config.providers import load_providers, unknown_provider
from common.config.registry import Registry
from common.config.templates import ITEM, NAMES, TEMPLATE, strings, substitute, unresolved
from common.config.writes import destination, write_findings
from common.config.yaml_source import YamlFile
from common.domain.condition import ConditionError, parse
from common.platform.errors import ConfigError, nearest

PLACEHOLDERS: Mapping[str, str] = {
    "org_slug": "acme_corp",
    "project_id": "acme-project",
    "org_dataset": "acme_corp_prod",
    "start_date": "2026-01-15",
    "end_date": "2026-01-15",
    "credential_id": "cred_abc123",
    "pipeline_id": "genai_openai_payg",
    "run_id": "run_abc123",
}
"""Stand-ins (the examples of FR-PIP-006) with which a ``config:`` block is checked while there is no run."""

TABLE_KEYS = ("source_table", "destination_table")


@dataclass(frozen=True)
class Draft:
    """A file that has not been found right yet. ``steps`` are those that are mappings at all, with their place."""

    source: YamlFile
    root: Path
    registry: Registry

    @cached_property
    def steps(self) -> list[tuple[Location, dict[str, Any]]]:
        steps = self.source.data.get("steps")
        listed = enumerate(steps) if isinstance(steps, list) else ()
        return [(("steps", i), step) for i, step in listed if isinstance(step, dict)]

    @cached_property
    def step_ids(self) -> list[str]:
        return [step["step_id"] for _, step in self.steps if isinstance(step.get("step_id"), str)]


def check(source: YamlFile, root: Path, registry: Registry) -> PipelineConfig:
    """Return the pipeline, or raise InvalidFileError with all its problems, in the order of their lines."""
    draft = Draft(source, root, registry)
    found: dict[Location, str] = {}
    for location, message in islice(_findings(draft), MAX_PROBLEMS):
        found.setdefault(location, message)  # the first rule that objects to a place says it best
    if found:
        problems = (source.problem(location, message) for location, message in found.items())
        raise InvalidFileError(sorted(problems, key=lambda problem: problem.line))
    return PipelineConfig.model_validate(source.data)


def _findings(draft: Draft) -> Iterator[Finding]:
    yield from _templates_outside_config(draft)
    yield from _shape(draft)
    yield from _provider(draft)
    yield from _repeated_step_ids(draft)
    yield from _dependencies(draft)
    yield from _cycle(draft)
    yield from _retried_kinds(draft)
    yield from _conditions(draft)
    yield from _maps(draft)
    yield from _step_configs(draft)
    yield from _tables(draft)
    yield from _shared_destinations(draft)
    yield from _read_before_written(draft)
    yield from write_findings(draft.steps, draft.root)


def _templates_outside_config(draft: Draft) -> Iterator[Finding]:
    # Ids name things in the store, in logs and in topics: the same in every run, so they can't depend on one.
    for location, text in strings(draft.source.data):
        if not (location[0] == "steps" and location[2:3] == ("config",)) and TEMPLATE.search(text):
            yield location, "templates are resolved inside config: only. Write the value itself."


def _shape(draft: Draft) -> Iterator[Finding]:
    try:
        PipelineConfig.model_validate(draft.source.data)
    except ValidationError as error:
        yield from findings_of(error, PipelineConfig)


def _provider(draft: Draft) -> Iterator[Finding]:
    key = draft.source.data.get("provider")
    if not isinstance(key, str):
        return
    try:
        providers = load_providers(draft.root)
    except InvalidFileError as error:
        yield ("provider",), f"can't be checked, mend the provider registry first: {error.problems[0]}"
        return
    if key not in providers:
        yield ("provider",), unknown_provider(providers, key)


def _repeated_step_ids(draft: Draft) -> Iterator[Finding]:
    counts = Counter[str]()
    for location, step in draft.steps:
        step_id = step.get("step_id")
        if isinstance(step_id, str):
            counts[step_id] += 1
            if counts[step_id] > 1:
                yield (*location, "step_id"), f"another step is named {step_id[:80]!r} too. Rename one."


def _dependencies(draft: Draft) -> Iterator[Finding]:
    known = set(draft.step_ids)
    for location, step in draft.steps:
        seen = set[str]()
        for i, name in enumerate(_depends_on(step)):
            if name not in known:
                yield (*location, "depends_on", i), _unknown("no step is named", name, known, "Steps")
            elif name in seen:
                yield (*location, "depends_on", i), f"{name[:80]!r} is listed twice. Remove one."
            seen.add(name)


def _cycle(draft: Draft) -> Iterator[Finding]:
    graph = {step["step_id"]: _depends_on(step) for _, step in draft.steps if isinstance(step.get("step_id"), str)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        names: list[str] = list(reversed(error.args[1]))  # graphlib lists what comes before first
        place = next(location for location, step in draft.steps if step.get("step_id") == names[0])
        shown = " -> ".join(name[:80] for name in names[:20])
        yield (*place, "depends_on"), f"waits for itself, step by step: {shown}. Remove one of these."


def _retried_kinds(draft: Draft) -> Iterator[Finding]:
    for location, step in draft.steps:
        retry = step.get("retry")
        kinds = retry.get("retry_on") if isinstance(retry, dict) else None
        if not isinstance(retry, dict) or not isinstance(kinds, list):
            continue
        place = (*location, "retry", "retry_on")
        if kinds and retry.get("max_attempts", 1) == 1:
            yield (
                place,
                "nothing is tried again while max_attempts is 1. Set max_attempts to 2 or more, or remove this.",
            )
        for i, kind in enumerate(kinds):
            if isinstance(kind, str) and kind in kinds[:i]:
                yield (*place, i), f"{kind[:80]!r} is listed twice. Remove one."


def _conditions(draft: Draft) -> Iterator[Finding]:
    for location, step in draft.steps:
        text = step.get("condition")
        if not isinstance(text, str):
            continue
        try:
            condition = parse(text)
        except ConditionError as error:
            yield (*location, "condition"), str(error)
            continue
        for step_id in condition.step_ids:
            yield from _comes_before(draft, step, step_id, (*location, "condition"))


def _maps(draft: Draft) -> Iterator[Finding]:
    for location, step in draft.steps:
        mapping, config = step.get("map"), step.get("config")
        if not isinstance(mapping, dict):
            continue
        over = mapping.get("over")
        if isinstance(over, str) and re.fullmatch(OUTPUT, over):
            yield from _comes_before(draft, step, over.split(".")[0], (*location, "map", "over"))
        # Rows are replaced by day: items of one day would delete each other's.
        table = config.get("destination_table") if isinstance(config, dict) else None
        if table is not None and mapping.get("dates", False) is False:
            message = "must be true in a step that writes a table: without a day of its own, each item would replace "
            yield (*location, "map", "dates"), f"{message}the rows of the others. Map over days and set dates: true."


def _comes_before(draft: Draft, step: dict[str, Any], step_id: str, place: Location) -> Iterator[Finding]:
    before, known = _depends_on(step), set(draft.step_ids)
    if step_id not in known:
        yield place, _unknown("no step is named", step_id, known, "Steps")
    elif step_id not in before:
        close = nearest(step_id, before)
        yield place, f"{step_id!r} is not in this step's depends_on, so it may not have ended by then. Add it.{close}"


def _step_configs(draft: Draft) -> Iterator[Finding]:
    for location, step in draft.steps:
        ps_type, config = step.get("ps_type"), step.get("config", {})
        if not isinstance(ps_type, str) or TEMPLATE.search(ps_type):
            continue
        try:
            params_type = draft.registry.params_type(ps_type)
        except ConfigError as error:
            yield (*location, "ps_type"), str(error)
            continue
        place, mapping = (*location, "config"), step.get("map")
        for inner, message in unresolved(config, NAMES if mapping is None else (*NAMES, ITEM)):
            yield (*place, *inner), message
        config = substitute(config, PLACEHOLDERS)
        if isinstance(config, dict) and isinstance(mapping, dict):
            yield from mapped_findings(
                params_type, config, place, configs=draft.root, dates=mapping.get("dates") is True
            )
        else:
            yield from params_findings(params_type, config, place, configs=draft.root)


def _tables(draft: Draft) -> Iterator[Finding]:
    known = {path.stem for path in (draft.root / "schemas").glob("*.yml")}
    for location, step in draft.steps:
        for key, name in _named_tables(step.get("config")):
            place = (*location, "config", *key)
            if name not in known:
                yield place, _unknown("no contract in schemas/ is for table", name, known, "Tables")
                continue
            try:
                check_contract(
                    draft.root / "schemas" / f"{name}.yml", f"{draft.root.resolve().name}/schemas/{name}.yml"
                )
            except InvalidFileError as error:
                yield place, f"mend the contract first: {error.problems[0]}"


def _named_tables(config: Any) -> Iterator[tuple[Location, str]]:
    """Yield the tables that a ``config:`` block names, with their place in it."""
    if not isinstance(config, dict):
        return
    further = config.get("further_tables")
    named = [((key,), config.get(key)) for key in TABLE_KEYS]
    listed = [(("further_tables", i), name) for i, name in enumerate(further if isinstance(further, list) else ())]
    yield from ((place, name) for place, name in (*named, *listed) if isinstance(name, str))


def _shared_destinations(draft: Draft) -> Iterator[Finding]:
    # The composite key of a row (FR-PIP-007) has no step in it: the later step would delete the rows of the earlier.
    writer: dict[str, Location] = {}
    for location, step in draft.steps:
        config = step.get("config")
        table = config.get("destination_table") if isinstance(config, dict) else None
        if not isinstance(table, str):
            continue
        if table in writer:
            line = draft.source.problem((*writer[table], "config", "destination_table"), "").line
            yield (
                (*location, "config", "destination_table"),
                f"the step in line {line} writes {table[:80]!r} too: it would be overwritten. Use another table.",
            )
        writer.setdefault(table, location)


def _read_before_written(draft: Draft) -> Iterator[Finding]:
    # The order of the list means nothing: steps that do not depend on each other start together, so such a step reads
    # what the run before has written, or nothing.
    after = {step["step_id"]: _depends_on(step) for _, step in draft.steps if isinstance(step.get("step_id"), str)}
    writers: dict[str, str] = {}
    for _, step in draft.steps:
        table = destination(step)
        if table is not None and isinstance(step.get("step_id"), str):
            writers.setdefault(table, step["step_id"])
    for location, step in draft.steps:
        before = _all_before(step, after)
        step_id = step.get("step_id")
        if before - after.keys() or not isinstance(step_id, str) or step_id in before:  # other rules say what is wrong
            continue
        for key, table in _named_tables(step.get("config")):
            writer = writers.get(table)
            if key == ("destination_table",) or writer is None or writer in (step_id, *before):
                continue
            yield (
                (*location, "config", *key),
                f"step {writer[:80]!r} writes {table[:80]!r}, and this step does not wait for it: both may start at "
                f"once, whatever their order in the file. Add {writer[:80]!r} to depends_on.",
            )


def _all_before(step: Mapping[str, Any], after: Mapping[str, list[str]]) -> set[str]:
    """Return the steps that a step waits for, directly or by way of others."""
    found, waiting = set[str](), _depends_on(step)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(after.get(name, ()))
    return found


def _depends_on(step: Mapping[str, Any]) -> list[str]:
    names = step.get("depends_on")
    return [name if isinstance(name, str) else "" for name in names] if isinstance(names, list) else []


def _unknown(what: str, name: str, known: set[str], title: str) -> str:
    listed = ", ".join(sorted(item[:80] for item in known)[:20]) or "none"
    return f"{what} {name[:80]!r}.{nearest(name, known)} {title}: {listed}."
