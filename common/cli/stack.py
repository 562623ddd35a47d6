"""How commands reach a stack: the one that runs on the state directory, or one that they start.

The command line is the outermost layer, above ``infra`` and ``functions``. Apart from the demo and bootstrap-sync, only
this module imports them, so that all commands find a stack in the same way. Imports are late, so that ``--help`` is
fast.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from common import bootstrap
from common.cli import show
from common.cli.base import quiet
from common.cli.client import ApiClient
from common.platform.settings import Settings
from common.ports.warehouse import Warehouse
from common.runs.engine import Engine

if TYPE_CHECKING:
    from infra.local.stack import LocalStack


def stack_to_serve(kind: str, settings: Settings, *, host: str, port: int) -> "LocalStack":
    """Return a stack that is not started yet: ``embedded``, or ``emulators`` with Google's emulators."""
    if kind == "emulators":
        from infra.local.emulator_stack import EmulatorStack

        return EmulatorStack(settings, host=host, port=port)
    from infra.local.stack import EmbeddedStack

    return EmbeddedStack(settings, host=host, port=port)


def attached(settings: Settings) -> Settings:
    """Return settings that point to the store and warehouse of the running stack; unchanged if none runs."""
    from infra.local.stack import attached

    return attached(settings)


def engine_for(settings: Settings, org: str, *, without_plan: bool = False) -> Engine:
    """Return an engine on the running stack's store, or on the state directory if none runs.

    Raises NotFoundError for an organisation without a plan, unless ``without_plan``: the keys and credentials of a
    former organisation must remain removable.
    """
    quiet(settings)
    engine = bootstrap.build(attached(settings))
    if not without_plan:
        engine.plans.limits(org)
    return engine


@contextmanager
def warehouse_of(settings: Settings) -> Iterator[Warehouse]:
    """Yield the warehouse of the running stack, or of an emulator that runs for the block. Starts no runs."""
    from infra.local.stack import reading

    with reading(settings) as reached:
        yield bootstrap.warehouse(reached)


class OwnStack:
    """Gives a client of the running stack, or of a stack that runs for the block."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own: Any = None

    def __enter__(self) -> ApiClient:
        from infra.local.stack import EmbeddedStack, running

        # A second stack on the same state directory is impossible: the first one holds its lock.
        url = running(self._settings.state_dir)
        if url is not None:
            return ApiClient(url, attached(self._settings).operator_token)
        quiet(self._settings)
        self._own = EmbeddedStack(self._settings)
        self._own.start()
        return ApiClient(self._own.url, self._own.token)

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.stop()


def reader(settings: Settings) -> ApiClient:
    """Return a client of the API in this process: reading, cancelling and skipping need no running stack."""
    from functions.api import application
    from infra.local.stack import new_token

    quiet(settings)
    token = new_token()  # the API in this process authenticates too; nobody else learns this token
    bootstrap.use(bootstrap.build(replace(attached(settings), operator_token=token)))
    return ApiClient(None, token, application=application())


def follow(client: ApiClient, org: str, run_id: str, title: str) -> dict[str, Any]:
    """Show the run's progress until it has ended; return it then."""
    progress = show.RunProgress(title)
    try:
        return client.watch(org, run_id, progress.see)
    finally:
        progress.close()


def wait_for_end(client: ApiClient, org: str, run_id: str, title: str, as_json: bool) -> None:
    """Follow a run, show its end and exit with 0 if it completed, else 1."""
    if as_json:
        ended = client.watch(org, run_id, lambda _: None)
        show.as_json(ended)
    else:
        ended = follow(client, org, run_id, title)
        show.run_table(ended)
    sys.exit(0 if ended["status"] == "completed" else 1)
