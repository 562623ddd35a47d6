"""The expected cost of a run before it starts: dry-run queries, and API calls whose number is known.

BigQuery's dry run returns a bound for a procedure with static SQL, and none for dynamic SQL. Without a bound, the
estimate is the cost of the pipeline's last run, and for its first run the least that a run costs
(``floor_usd_per_run`` of ``configs/system/bigquery_prices.yml``). ``Estimate.source`` says which of these it was.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from pathlib import Path

from common.config.bigquery_prices import load_prices
from common.config.params import read_params
from common.config.providers import load_providers
from common.domain.model import Estimate, Run, StepSpec
from common.meta.costs import TIB
from common.platform.errors import PipelineOpsError
from common.platform.logs import logger
from common.platform.settings import Settings
from common.ports.warehouse import Warehouse
from common.processors.base import CallsProcedure, CountsCalls
from common.processors.registry import processor

MICRO_USD = Decimal("0.000001")
NO_COST = Estimate(Decimal(0), Decimal(0), "it can't start")


def by_last_cost(_run: Run, last_usd: Decimal | None) -> Estimate:
    """Return the cost of the pipeline's last run, 0 if it is unknown: for engines without a warehouse."""
    return Estimate(last_usd or Decimal(0), Decimal(0), "as the last run cost" if last_usd else "nothing is known")


@dataclass(frozen=True, slots=True)
class Estimator:
    """Estimates runs. ``warehouse`` is called only for a run with a procedure."""

    settings: Settings
    warehouse: Callable[[], Warehouse]

    def __call__(self, run: Run, last_usd: Decimal | None) -> Estimate:
        """Return the expected cost of ``run.specs``. ``last_usd`` is the total cost of the pipeline's last run."""
        prices = load_prices(self.settings.configs)
        floor = prices.floor_usd_per_run if prices else Decimal(0)
        usd_per_tib = prices.usd_per_tib.get(self.settings.location) if prices else None
        calls_usd = self._calls_usd(run)
        read = None if usd_per_tib is None else self._bytes(run)
        if read is not None and usd_per_tib is not None:
            return _rounded(floor + read * usd_per_tib / TIB, calls_usd, f"a dry run: {read} bytes")
        if last_usd is not None:  # a total: without the subtraction, calls would count twice
            return _rounded(max(last_usd - calls_usd, floor), calls_usd, "as the last run cost")
        return _rounded(floor, calls_usd, "the least that a run costs: no dry run is possible, and it has not run yet")

    def _bytes(self, run: Run) -> int | None:
        """Return the bytes that the run's procedures read at most; None if it has none, or one has no bound."""
        total, dataset = 0, f"{self.settings.project_id}.{self.settings.dataset(run.request.org_slug)}"
        calling = [(spec, work) for spec in run.specs if isinstance(work := processor(spec.ps_type), CallsProcedure)]
        for spec, work in calling:
            if spec.map is not None:
                return None  # how many items it has is known only when the run gets there
            procedure, args = work.procedure_call(
                run, read_params(work.params_type, spec.config, self.settings.configs), dataset
            )
            try:
                bytes_read = self.warehouse().dry_run_bytes(procedure, args)
            except PipelineOpsError as error:
                logger.info("The dry run of %s failed, its run is estimated without it: %s", procedure, error)
                return None
            if bytes_read is None:
                return None
            total += bytes_read
        return total if calling else None

    def _calls_usd(self, run: Run) -> Decimal:
        """Return the price of the API calls whose number is known in advance."""
        calls = [count for spec in run.specs for count in _calls(run, spec, self.settings.configs).items()]
        if not calls:
            return Decimal(0)
        providers = load_providers(self.settings.configs)
        return sum((providers[name].usd_per_call * count for name, count in calls if name in providers), Decimal(0))


def _calls(run: Run, spec: StepSpec, configs: Path) -> Mapping[str, int]:
    work, days = processor(spec.ps_type), (run.request.end_date - run.request.start_date).days + 1
    if spec.map is not None or not isinstance(work, CountsCalls):
        return {}
    return work.calls(read_params(work.params_type, spec.config, configs), days)


def _rounded(queries_usd: Decimal, calls_usd: Decimal, source: str) -> Estimate:
    # Up to the unit that stores count in (``to_micro_usd``): what is shown is then what is reserved.
    queries_usd, calls_usd = (usd.quantize(MICRO_USD, ROUND_CEILING) for usd in (queries_usd, calls_usd))
    return Estimate(queries_usd, calls_usd, source)
