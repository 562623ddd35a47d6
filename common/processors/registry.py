"""Which processor does the work of which ``ps_type``.

Values are import paths, so that a step function imports its own processor and no other: a cold start pays for each
import. A GenAI provider needs no line here, because its module in ``genai/providers/`` is found by its name. Another
processor is one module and one line.
"""

from functools import cache
from importlib import import_module

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
    """Return the processor of a ``ps_type``, or raise ConfigError that names the nearest one."""
    path = PROCESSORS.get(ps_type)
    if path is None:
        raise ConfigError(
            f"no processor is named {ps_type!r}.{nearest(ps_type, PROCESSORS)} "
            f"Registered: {', '.join(sorted(PROCESSORS))}."
        )
    module, _, name = path.partition(":")
    built: Processor = getattr(import_module(module), name)()
    return built
