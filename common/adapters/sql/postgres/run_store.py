"""The run store on PostgreSQL. A transition and the quota that it takes are one transaction.

Messages are published after it, because PostgreSQL and Pub/Sub share no transaction. If the process dies in between,
the sweep derives the lost messages from the stored state.
"""

from collections.abc import Sequence

from common.adapters.sql.dialect import Transaction
from common.adapters.sql.postgres.client import Postgres
from common.adapters.sql.run_store import SqlRunStore
from common.domain.model import Run
from common.domain.state import Transition
from common.ports.bus import EventBus, Message
from common.runs.topics import messages


class PostgresRunStore(SqlRunStore[Sequence[Message]]):
    """Stores runs in PostgreSQL and publishes their messages on a separate bus."""

    def __init__(self, database: Postgres, bus: EventBus) -> None:
        super().__init__(database)
        self._bus = bus

    def commit(self, transition: Transition) -> Run:
        if transition.writes:
            return super().commit(transition)
        self._bus.publish(messages(transition.run, transition.commands))  # spares a transaction that writes nothing
        return transition.run

    def _keep(self, transaction: Transaction, sent: Sequence[Message]) -> Sequence[Message]:
        return sent

    def _send(self, stored: Sequence[Message]) -> None:
        self._bus.publish(stored)
