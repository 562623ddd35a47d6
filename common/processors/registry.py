"""Maps each ``ps_type`` to its processor.

Values are import paths, so that a step function imports its own processor only: a cold start pays for each import. A
GenAI provider needs no line here, because its module in ``genai/providers/`` is found by name. Any other processor is
one module and one line.
"""

from collections.abc import Collection, Iterator
from functools import cache, partial
from importlib import import_module
from pathlib import Path

from pydantic import BaseModel

from common.config.registry import FileCheck
from common.platform.errors import ConfigError, nearest
from common.processors.base import Processor

PROCESSORS: dict[str, str] = {
    "genai.payg_usage": "common.processors.genai.payg_usage:GenaiPaygUsage",
    "genai.payg_cost": "common.processors.genai.payg_cost:GenaiPaygCost",
    "generic.procedure_executor": "common.processors.sql.procedure_executor:ProcedureExecutor",
    "ExternalFileExtractor": "common.processors.bills.file_extractor:ExternalFileExtractor",
    "AwsExportExtractor": "common.processors.clouds.aws.export:AwsExportExtractor",
    "AwsCostExplorer": "common.processors.clouds.aws.cost_explorer:AwsCostExplorer",
    "AzureExportExtractor": "common.processors.clouds.azure.export:AzureExportExtractor",
    "AzureCostQuery": "common.processors.clouds.azure.query:AzureCostQuery",
    "ExternalBqExtractor": "common.processors.sql.external_bq:ExternalBqExtractor",
    "ExternalBqChangedDays": "common.processors.sql.external_bq_days:ExternalBqChangedDays",
    "GcpApiExtractor": "common.processors.clouds.gcp.api:GcpApiExtractor",
    "OciReportExtractor": "common.processors.clouds.oci.report:OciReportExtractor",
    "OciUsageApi": "common.processors.clouds.oci.usage:OciUsageApi",
    "subscription.cost": "common.processors.subscriptions.cost:SubscriptionCost",
}


@cache
def processor(ps_type: str) -> Processor:
    """Return the processor of a ``ps_type``, or raise ConfigError with the nearest name."""
    path = PROCESSORS.get(ps_type)
    if path is None:
        raise ConfigError(
            f"no processor is named {ps_type!r}.{nearest(ps_type, PROCESSORS)} "
            f"Registered: {', '.join(sorted(PROCESSORS))}."
        )
    module, _, name = path.partition(":")
    built: Processor = getattr(import_module(module), name)()
    return built


class ProcessorRegistry:
    """The ``Registry`` of ``ConfigTree``: what the configuration needs to know of processors."""

    @property
    def ps_types(self) -> Collection[str]:
        """Every registered name."""
        return PROCESSORS

    def params_type(self, ps_type: str) -> type[BaseModel]:
        """Return the params of a ``ps_type``, or raise ConfigError if it is unknown or its module can't be imported."""
        try:
            return processor(ps_type).params_type
        except ConfigError:
            raise
        except Exception as error:
            # A processor's module is code of its own: whatever fails in it must name the step. The error's own text
            # may show paths of this machine, so only the module's name is repeated.
            module = f" of {error.name}" if isinstance(error, ImportError) and error.name else ""
            raise ConfigError(f"the processor {ps_type!r} can't be loaded ({type(error).__name__}{module}).") from error

    def file_checks(self, configs: Path) -> Iterator[FileCheck]:
        """Yield checks of the files that only processors read: organisations' own prices, and their subscriptions."""
        from common.processors.genai.price_rules import check_price_file, price_files
        from common.processors.subscriptions.file import load_subscriptions, subscription_files

        for path in price_files(configs):
            yield path, partial(check_price_file, configs, path)
        for path in subscription_files(configs):
            yield path, partial(load_subscriptions, configs, path.stem)


REGISTRY = ProcessorRegistry()
