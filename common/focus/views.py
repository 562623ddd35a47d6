"""Views for reports, ``configs/sql/views/*.sql``: read, sorted by dependency, and inlined into single queries."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from hashlib import sha256
from pathlib import Path

from common.platform.errors import ConfigError, nearest

NAME = re.compile(r"[a-z][a-z0-9_]{0,127}")
SOURCE = re.compile(r"`\{dataset\}\.([a-z0-9_]+)`")


@dataclass(frozen=True, slots=True)
class View:
    """One view. ``text`` is a SELECT that refers to tables and views of its dataset as ```{dataset}.name```."""

    name: str
    text: str

    @property
    def description(self) -> str:
        """The comment at the top of the text, which BigQuery shows as the view's description."""
        lines = []
        for line in self.text.splitlines():
            if not line.startswith("--"):
                break
            lines.append(line.removeprefix("--").strip() or "\n")
        return " ".join(lines).replace(" \n ", "\n\n").strip()

    @property
    def reads(self) -> frozenset[str]:
        """Names of the tables and views that the view reads."""
        return frozenset(SOURCE.findall(self.text))

    @property
    def state(self) -> str:
        """A hash of the text. bootstrap-sync stores it as a label to find views that have changed."""
        return sha256(self.text.encode()).hexdigest()[:32]

    def sql(self, dataset: str) -> str:
        """Return the SELECT for a dataset (``project.dataset``)."""
        return self.text.replace("{dataset}", dataset)


def load_views(configs: Path) -> list[View]:
    """Read all views, each after the views that it reads, so that they can be created in order. Raises ConfigError."""
    folder = configs / "sql" / "views"
    views = {path.stem: View(path.stem, path.read_text("utf-8")) for path in sorted(folder.glob("*.sql"))}
    for name in views:
        if not NAME.fullmatch(name):
            raise ConfigError(f"sql/views/{name}.sql: a view's name must be lower-case letters, digits and '_'.")
    try:
        order = TopologicalSorter({name: view.reads & views.keys() for name, view in views.items()}).static_order()
        return [views[name] for name in order]
    except CycleError as error:
        raise ConfigError(f"sql/views: these views form a cycle: {', '.join(error.args[1])}.") from error


def alone(views: Sequence[View], name: str, dataset: str) -> str:
    """Return a ``WITH`` clause that defines a view and the views that it reads, to put before a SELECT.

    It allows queries where the views are not deployed. Raises ConfigError for an unknown view.
    """
    known = {view.name: view for view in views}
    if name not in known:
        raise ConfigError(f"sql/views: there is no view {name!r}.{nearest(name, known)}")
    needed, waiting = {name}, [name]
    while waiting:
        more = known[waiting.pop()].reads & known.keys() - needed
        needed |= more
        waiting.extend(more)
    parts = (f"{view.name} AS (\n{_inlined(view, known.keys(), dataset)}\n)" for view in views if view.name in needed)
    return f"WITH {', '.join(parts)}\n"


def _inlined(view: View, names: Collection[str], dataset: str) -> str:
    local = SOURCE.sub(lambda match: match[1] if match[1] in names else match[0], view.text)
    return local.replace("{dataset}", dataset)
