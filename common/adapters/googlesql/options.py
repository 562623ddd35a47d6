"""The language that BigQuery speaks, of the many that ZetaSQL can be set to.

The wheel has no preset for BigQuery. The list is that of Google's own toolkit for analysing BigQuery's SQL
(GoogleCloudPlatform/zetasql-toolkit, BigQueryLanguageOptions.java, Apache-2.0, as of 23 July 2024), and beside it the
features that BigQuery has got since, by its documentation.
"""

from functools import lru_cache
from typing import Any

TOOLKIT = [
    "ALLOW_MISSING_PATH_EXPRESSION_IN_ALTER_DDL",
    "ALTER_COLUMN_SET_DATA_TYPE",
    "ALTER_TABLE_RENAME_COLUMN",
    "ANALYTIC_FUNCTIONS",
    "ANONYMIZATION",
    "BIGNUMERIC_TYPE",
    "CBRT_FUNCTIONS",
    "CREATE_EXTERNAL_TABLE_WITH_CONNECTION",
    "CREATE_EXTERNAL_TABLE_WITH_PARTITION_COLUMNS",
    "CREATE_EXTERNAL_TABLE_WITH_TABLE_ELEMENT_LIST",
    "CREATE_MATERIALIZED_VIEW_CLUSTER_BY",
    "CREATE_MATERIALIZED_VIEW_PARTITION_BY",
    "CREATE_SNAPSHOT_TABLE",
    "CREATE_TABLE_AS_SELECT_COLUMN_LIST",
    "CREATE_TABLE_CLONE",
    "CREATE_TABLE_CLUSTER_BY",
    "CREATE_TABLE_COPY",
    "CREATE_TABLE_FIELD_ANNOTATIONS",
    "CREATE_TABLE_FUNCTION",
    "CREATE_TABLE_LIKE",
    "CREATE_TABLE_NOT_NULL",
    "CREATE_TABLE_PARTITION_BY",
    "CREATE_VIEW_WITH_COLUMN_LIST",
    "DML_UPDATE_WITH_JOIN",
    "ENCRYPTION",
    "FOREIGN_KEYS",
    "GEOGRAPHY",
    "GROUP_BY_ROLLUP",
    "INTERVAL_TYPE",
    "INVERSE_TRIG_FUNCTIONS",
    "JSON_ARRAY_FUNCTIONS",
    "JSON_TYPE",
    "JSON_VALUE_EXTRACTION_FUNCTIONS",
    "NAMED_ARGUMENTS",
    "NUMERIC_TYPE",
    "PARAMETERIZED_TYPES",
    "PARAMETERS_IN_GRANTEE_LIST",
    "ROUND_WITH_ROUNDING_MODE",
    "TABLESAMPLE",
    "TABLE_VALUED_FUNCTIONS",
    "TEMPLATE_FUNCTIONS",
    "TIMESTAMP_NANOS",
    "TIME_BUCKET_FUNCTIONS",
    "UNENFORCED_PRIMARY_KEYS",
    "V_1_1_HAVING_IN_AGGREGATE",
    "V_1_1_LIMIT_IN_AGGREGATE",
    "V_1_1_NULL_HANDLING_MODIFIER_IN_AGGREGATE",
    "V_1_1_NULL_HANDLING_MODIFIER_IN_ANALYTIC",
    "V_1_1_ORDER_BY_IN_AGGREGATE",
    "V_1_1_SELECT_STAR_EXCEPT_REPLACE",
    "V_1_1_WITH_ON_SUBQUERY",
    "V_1_2_CIVIL_TIME",
    "V_1_2_SAFE_FUNCTION_CALL",
    "V_1_2_WEEK_WITH_WEEKDAY",
    "V_1_3_ADDITIONAL_STRING_FUNCTIONS",
    "V_1_3_ALLOW_DASHES_IN_TABLE_NAME",
    "V_1_3_ALLOW_REGEXP_EXTRACT_OPTIONALS",
    "V_1_3_ANNOTATION_FRAMEWORK",
    "V_1_3_CASE_STMT",
    "V_1_3_COLLATION_SUPPORT",
    "V_1_3_COLUMN_DEFAULT_VALUE",
    "V_1_3_CONCAT_MIXED_TYPES",
    "V_1_3_DATE_ARITHMETICS",
    "V_1_3_DATE_TIME_CONSTRUCTORS",
    "V_1_3_DECIMAL_ALIAS",
    "V_1_3_EXTENDED_DATE_TIME_SIGNATURES",
    "V_1_3_EXTENDED_GEOGRAPHY_PARSERS",
    "V_1_3_FORMAT_IN_CAST",
    "V_1_3_FOR_IN",
    "V_1_3_IS_DISTINCT",
    "V_1_3_LIKE_ANY_SOME_ALL",
    "V_1_3_NULLS_FIRST_LAST_IN_ORDER_BY",
    "V_1_3_OMIT_INSERT_COLUMN_LIST",
    "V_1_3_PIVOT",
    "V_1_3_QUALIFY",
    "V_1_3_REMOTE_FUNCTION",
    "V_1_3_REPEAT",
    "V_1_3_SCRIPT_LABEL",
    "V_1_3_UNNEST_AND_FLATTEN_ARRAYS",
    "V_1_3_UNPIVOT",
    "V_1_3_WITH_GROUP_ROWS",
    "V_1_3_WITH_RECURSIVE",
    "V_1_4_ARRAY_AGGREGATION_FUNCTIONS",
    "V_1_4_REMOTE_MODEL",
    "V_1_4_GROUPING_BUILTIN",
    "V_1_4_GROUPING_SETS",
    "V_1_4_GROUP_BY_ALL",
]

SINCE = [
    "JSON_CONSTRUCTOR_FUNCTIONS",
    "JSON_MUTATOR_FUNCTIONS",
    "JSON_KEYS_FUNCTION",
    "JSON_LAX_VALUE_EXTRACTION_FUNCTIONS",
    "JSON_QUERY_LAX",
    "V_1_4_JSON_ARRAY_VALUE_EXTRACTION_FUNCTIONS",
    "V_1_2_GROUP_BY_STRUCT",
    "V_1_2_GROUP_BY_ARRAY",
    "RANGE_TYPE",
]

RESERVED = ("QUALIFY",)
"""A keyword in BigQuery that ZetaSQL leaves free unless told otherwise."""


@lru_cache(maxsize=1)
def language_options() -> Any:
    """Return the language's options. They are shared: copy before you change anything."""
    from zetasql.wasi._pb2.zetasql.proto.options_pb2 import LanguageOptionsProto
    from zetasql.wasi._pb2.zetasql.public import options_pb2 as public
    from zetasql.wasi._pb2.zetasql.resolved_ast.resolved_node_kind_pb2 import ResolvedNodeKind

    kinds = [number for name, number in ResolvedNodeKind.items() if name.endswith("_STMT")]
    return LanguageOptionsProto(
        name_resolution_mode=public.NAME_RESOLUTION_DEFAULT,
        product_mode=public.PRODUCT_EXTERNAL,
        enabled_language_features=[public.LanguageFeature.Value(f"FEATURE_{name}") for name in (*TOOLKIT, *SINCE)],
        supported_statement_kinds=kinds,
        reserved_keywords=RESERVED,
    )
