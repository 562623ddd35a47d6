"""What a run is going to cost, before it runs: queries that BigQuery has dry-run, calls whose number is known.

A dry run of BigQuery tells a bound for a procedure whose SQL stands in its text; of SQL that it puts together itself
nobody knows before. Then it is what the pipeline's last run has cost, and of its first run the least that a run costs
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
    """Return what the pipeline's last run has cost, as far as that is known: where there is no warehouse to ask."""
    return Estimate(last_usd or Decimal(0), Decimal(0), "as the last run cost" if last_usd else "nothing is known")


@dataclass(frozen=True, slots=True)
class Estimator:
    """Estimates runs. ``warehouse`` is called only for a run with a procedure."""

    settings: Settings
    warehouse: Callable[[], Warehouse]

    def __call__(self, run: Run, last_usd: Decimal | None) -> Estimate:
        """Return what ``run.specs`` will cost. ``last_usd`` is what the pipeline's last run has cost altogether."""
        prices = load_prices(self.settings.configs)
        floor = prices.floor_usd_per_run if prices else Decimal(0)
        usd_per_tib = prices.usd_per_tib.get(self.settings.location) if prices else None
        calls_usd = self._calls_usd(run)
        read = None if usd_per_tib is None else self._bytes(run)
        if read is not None and usd_per_tib is not None:
            return _rounded(floor + read * usd_per_tib / TIB, calls_usd, f"a dry run: {read} bytes")
        if last_usd is not None:
            return _rounded(max(last_usd - calls_usd, floor), calls_usd, "as the last run cost")
        return _rounded(floor, calls_usd, "the least that a run costs: no dry run tells, and none of it has run yet")

    def _bytes(self, run: Run) -> int | None:
        """Return the bytes that its procedures will read at most; None if there are none, or one can't be told."""
        total, dataset = 0, f"{self.settings.project_id}.{self.settings.dataset(run.request.org_slug)}"
        calling = [(spec, its) for spec in run.specs if isinstance(its := processor(spec.ps_type), CallsProcedure)]
        for spec, its in calling:
            if spec.map is not None:
                return None
            procedure, args = its.procedure_call(
                run, read_params(its.params_type, spec.config, self.settings.configs), dataset
            )
            try:
                found = self.warehouse().dry_run_bytes(procedure, args)
            except PipelineOpsError as error:
                logger.info("The dry run of %s says nothing: %s", procedure, error)
                return None
            if found is None:
                return None
            total += found
        return total if calling else None

    def _calls_usd(self, run: Run) -> Decimal:
        """Return what the providers' APIs take for their answers, as far as the number of calls is known."""
        calls = [count for spec in run.specs for count in _calls(run, spec, self.settings.configs).items()]
        if not calls:
            return Decimal(0)
        providers = load_providers(self.settings.configs)
        return sum((providers[name].usd_per_call * count for name, count in calls if name in providers), Decimal(0))


def _calls(run: Run, spec: StepSpec, configs: Path) -> Mapping[str, int]:
    its, days = processor(spec.ps_type), (run.request.end_date - run.request.start_date).days + 1
    if spec.map is not None or not isinstance(its, CountsCalls):
        return {}
    return its.calls(read_params(its.params_type, spec.config, configs), days)


def _rounded(queries_usd: Decimal, calls_usd: Decimal, source: str) -> Estimate:
    queries_usd, calls_usd = (usd.quantize(MICRO_USD, ROUND_CEILING) for usd in (queries_usd, calls_usd))
    return Estimate(queries_usd, calls_usd, source)
