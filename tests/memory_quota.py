"""The quota part of the memory run store: the pure rule on one document an organisation. Its caller holds the lock."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from common.domain.messages import Command
from common.domain.model import Run
from common.domain.queueing import Place, Queue, heads, joining_turn
from common.domain.quota import Demand, Limits, QueueMoved, Usage, changes, from_micro_usd, queue_full
from common.domain.usage_document import Deployment, UsageDocument
from common.platform.errors import QuotaExceededError


class MemoryQuota:
    """What is held and counted, and who waits."""

    def __init__(self) -> None:
        self._documents: dict[str, UsageDocument] = {}

    def hold(self, run: Run, limits: Limits, *, waited: bool) -> None:
        """Check all limits and take what they allow, or raise QuotaExceededError."""
        demand = Demand.of(run, waited=waited)
        refused = demand.refused(limits, self.usage_for(demand))
        if refused is not None:
            raise QuotaExceededError(**refused._asdict())
        if limits.global_concurrent is not None:  # what has expired anywhere may be what made room
            self._documents = {org: one.without_expired(demand.at) for org, one in self._documents.items()}
        self._documents[demand.org_slug] = self._document(demand.org_slug).admitted(demand, limits)

    def check_queue(self, org_slug: str) -> None:
        """Raise QuotaExceededError if the organisation's queue is full."""
        refused = queue_full(len(self._document(org_slug).queue))
        if refused is not None:
            raise QuotaExceededError(**refused._asdict())

    def carry_out(self, run: Run, commands: Iterable[Command], *, extends: bool = False) -> None:
        """Do what is for the quota to do."""
        org = run.request.org_slug
        for change in changes(run, commands, extends=extends):
            document = self._document(org)
            if isinstance(change, QueueMoved) and not change.before and not document.queue:
                waiting = [other.turn for other in self._documents.values() if other.queue]
                others = [other.turn for other in self._documents.values()]
                document = replace(document, turn=joining_turn(document.turn, waiting, others))
            self._documents[org] = document.changed(run, [change])

    def usage(self, org_slug: str, now: datetime) -> Usage:
        """Return what counts."""
        return self._document(org_slug).usage(now)

    def usage_for(self, demand: Demand) -> Usage:
        """Return what a run is checked against."""
        everyone = self._documents.values()
        live = sum(document.live(demand.at) for document in everyone)
        ahead = sum(document.waiting_for("global") for document in everyone)
        return self._document(demand.org_slug).usage_for(demand, Deployment(live, ahead))

    def queues(self, ended: Run | None) -> Sequence[Queue]:
        """Return the queues that have runs in them."""
        every = ended is None or ended.global_slot
        return [
            Queue(org, document.turn, heads(document.queue.values()))
            for org, document in sorted(self._documents.items())
            if document.queue and (every or (ended and ended.request.org_slug == org))
        ]

    def place(self, run: Run) -> Place | None:
        """Return where the run stands."""
        return self._document(run.request.org_slug).place(run.run_id)

    def last_cost(self, org_slug: str, route: str) -> Decimal | None:
        """Return what the pipeline's last run has cost."""
        micros = self._document(org_slug).costs.get(route)
        return None if micros is None else from_micro_usd(micros)

    def _document(self, org_slug: str) -> UsageDocument:
        return self._documents.get(org_slug, UsageDocument())
