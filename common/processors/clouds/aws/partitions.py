"""The parts of AWS that are apart from its public cloud: other host names, other accounts, the same APIs.

Facts: botocore 1.44.8, partitions.json and the endpoint rules of s3 and ce.
"""

_PREFIXES = {
    "cn-": "cn",
    "eusc-": "eusc",
    "us-gov-": "gov",
    "us-iso-": "iso",
    "us-isob-": "isob",
    "eu-isoe-": "isoe",
    "us-isof-": "isof",
}
_COST_EXPLORER = {
    "": "us-east-1",
    "cn": "cn-northwest-1",
    "eusc": "eusc-de-east-1",
    "gov": "us-gov-west-1",
    "iso": "us-iso-east-1",
    "isob": "us-isob-east-1",
    "isoe": "eu-isoe-west-1",
    "isof": "us-isof-south-1",
}


def partition(region: str | None) -> str:
    """Return the part that a region belongs to, as configs/system/providers.yml names it; empty: the public cloud."""
    return next((name for prefix, name in _PREFIXES.items() if (region or "").startswith(prefix)), "")


def address(api: str, part: str) -> str:
    """Return the registry's name of an API's address in a part."""
    return f"aws.{api}" + (f"/{part}" if part else "")


def cost_explorer_region(part: str) -> str:
    """Return the one region of a part in which Cost Explorer is, whatever regions the account uses."""
    return _COST_EXPLORER[part]
