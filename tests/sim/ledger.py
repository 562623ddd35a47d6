"""The warehouse's ledger as the commit's script keeps it: it alone decides which attempt writes (0009)."""

from datetime import datetime, timedelta

from common.domain.graph import map_of
from common.domain.model import Run, Step
from common.platform.errors import StepTimeoutError, SupersededError

type Key = tuple[str, str, str, str, str]


def keys(order: Run, step: Step, *, dated: bool) -> list[Key]:
    """Return whose rows of which days the attempt replaces; items of a map without dates have tables of their own."""
    base, request = map_of(step.step_id), order.request
    table = base[0] if base and dated else step.step_id
    days = [request.start_date + timedelta(days=n) for n in range((request.end_date - request.start_date).days + 1)]
    return [(request.org_slug, order.pipeline_id, order.credential_id, table, day.isoformat()) for day in days]


class SimLedger:
    """Commits one after the other, as the gate makes BigQuery do."""

    def __init__(self) -> None:
        self._last: dict[Key, tuple[int, tuple[str, str, int]]] = {}

    def commit(self, step: Step, attempt: tuple[str, str, int], days: list[Key], now: datetime) -> bool:
        """Let the attempt replace its days; return False if it has done so before.

        Raises SupersededError for an older attempt, StepTimeoutError after the end of its lease.
        """
        held = [self._last[day] for day in days if day in self._last]
        if len(held) == len(days) and all(who == attempt for _, who in held):
            return False
        newest = max(held, default=(0, ("", "", 0)))
        if newest[0] > step.fence:
            raise SupersededError(f"{newest[1][0]} started later and has written these days already.")
        if step.lease_until is None or now > step.lease_until:
            raise StepTimeoutError("The commit came after the end of its attempt's lease.")
        self._last |= dict.fromkeys(days, (step.fence, attempt))
        return True
