"""The provider registry, ``configs/system/providers.yml``: whom pipelines read from, and with which credential."""

import ipaddress
import re
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from common.config.model import IDENTIFIER
from common.config.money import Usd
from common.config.problems import InvalidFileError, findings_of
from common.config.yaml_source import YamlFile, read
from common.platform.errors import ConfigError, nearest
from common.platform.strict import StrictModel

_URL = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?", re.ASCII)
_PLACE = re.compile(r"\{(?:region|account)\}")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)

PROVIDERS_FILE = Path("system") / "providers.yml"


def _checked_url(url: str) -> str:
    """A credential travels to this address: only over TLS, or to this very machine (a sandbox)."""
    if not _URL.fullmatch(url):
        raise ValueError("must be https://host/path, without user, query or fragment.")
    parts = urlsplit(url)  # raises ValueError for brackets around what is no IPv6 address
    _ = parts.port  # raises ValueError when it is out of range
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError("must start with https:// (http:// is for loopback addresses only).")
    return url.rstrip("/")


def _checked_template(url: str) -> str:
    """Like an address, with ``{region}`` or ``{account}`` for a part of the host's name."""
    _checked_url(_PLACE.sub("x", url))
    return url.rstrip("/")


def filled(url: str, **places: str) -> str:
    """Put values into an address's places; raise ConfigError for one that would lead to another host."""
    for name, value in places.items():
        if not _LABEL.fullmatch(value):
            raise ConfigError(f"{name}: {value[:80]!r} must be lower-case letters, digits and '-'.")
        url = url.replace(f"{{{name}}}", value)
    if (left := _PLACE.search(url)) is not None:
        raise ConfigError(f"an address of configs/system/providers.yml needs a value for {left[0]}.")
    return url


def is_loopback(host: str) -> bool:
    """Whether a host name or address stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


Urls = Mapping[Annotated[str, StringConstraints(pattern=IDENTIFIER)], Annotated[str, AfterValidator(_checked_template)]]


class Provider(StrictModel):
    """One provider."""

    display_name: str = Field(min_length=1, max_length=100, description="Name for people.")
    base_url: Annotated[str, AfterValidator(_checked_url)] | None = Field(
        default=None, description="Address of its API, without a slash at the end; none for providers that send files."
    )
    urls: Urls = Field(
        default_factory=dict,
        description="Addresses of its further APIs, by name; {region} and {account} stand for what differs.",
    )
    partitions: Mapping[Annotated[str, StringConstraints(pattern=IDENTIFIER)], Urls] = Field(
        default_factory=dict,
        description="The same addresses in its parts that are apart from the public cloud, such as China, by part.",
    )
    auth: Literal["none", "bearer", "api_key", "aws_signature", "google", "oauth_client", "oci_signature"] = Field(
        default="none",
        description="How its credential is sent: a bearer token, an API-key header, or not at all; or what is made of "
        "it: a signature, or a token of Google's or of an OAuth client.",
    )
    usd_per_call: Usd = Field(default=Decimal(0), description="US dollars that one call of its API costs, in quotes.")
    credential_hint: str = Field(default="", max_length=500, description="What to paste, and where to get it.")
    restatement_days: int = Field(
        default=0, strict=True, ge=0, le=92, description="Days before yesterday that it may still correct: read again."
    )
    limits: str = Field(default="", max_length=500, description="Its documented limits, for people.")

    def window(self, today: date) -> tuple[date, date]:
        """Return the first and the last day that a scheduled run reads: yesterday, and the days still corrected."""
        last = today - timedelta(days=1)
        return last - timedelta(days=self.restatement_days), last


class ProviderRegistry(StrictModel):
    """The file: providers by key."""

    providers: dict[Annotated[str, StringConstraints(pattern=IDENTIFIER)], Provider] = Field(min_length=1)


def load_providers(root: Path) -> Mapping[str, Provider]:
    """Read the providers by key from the tree ``root``, or raise ConfigError with all that is wrong in the file."""
    source = read(root / PROVIDERS_FILE, str(root.resolve().name / PROVIDERS_FILE))
    return MappingProxyType(parse_providers(source).providers)


def parse_providers(source: YamlFile) -> ProviderRegistry:
    """Validate the registry, or raise InvalidFileError."""
    try:
        return ProviderRegistry.model_validate(source.data)
    except ValidationError as error:
        findings = findings_of(error, ProviderRegistry)
        raise InvalidFileError(source.problem(location, message) for location, message in findings) from None


def find_provider(providers: Mapping[str, Provider], key: str) -> Provider:
    """Return a provider, or raise ConfigError that names the nearest one."""
    if key not in providers:
        raise ConfigError(unknown_provider(providers, key))
    return providers[key]


def provider_url(providers: Mapping[str, Provider], name: str) -> str:
    """Return an address: ``openai`` is a provider's base URL, ``aws.s3`` one of its urls, ``aws.s3/cn`` that of a part.

    The part comes from a credential, the address from the file alone: an unknown part has none. Raises ConfigError.
    """
    name, _, part = name.partition("/")
    key, _, api = name.partition(".")
    known = find_provider(providers, key)
    if part and part not in known.partitions:
        raise ConfigError(
            f"system/providers.yml: provider {key!r} has no partition {part[:80]!r}, which the credential is for. "
            f"Known: {', '.join(known.partitions) or 'none'}."
        )
    urls = known.partitions[part] if part else known.urls
    if api and api not in urls:
        where = f"provider {key!r}" + (f", partition {part!r}," if part else "")
        raise ConfigError(
            f"system/providers.yml: {where} has no url {api[:80]!r}.{nearest(api, urls)} "
            f"Known: {', '.join(urls) or 'none'}."
        )
    url = urls[api] if api else known.base_url
    if not url:
        raise ConfigError(f"system/providers.yml: no base_url for provider {key!r}.")
    return str(url)


def unknown_provider(providers: Mapping[str, Provider], key: str) -> str:
    """Say that a provider is not registered, and which one may have been meant."""
    return f"no provider is named {key[:80]!r}.{nearest(key, providers)} Registered: {', '.join(sorted(providers))}."
