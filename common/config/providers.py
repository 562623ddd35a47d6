"""The provider registry, ``configs/system/providers.yml``: providers, their addresses and how they authenticate."""

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
    """Check an address. Credentials are sent to it, so it must be TLS, or this machine (a sandbox)."""
    if not _URL.fullmatch(url):
        raise ValueError("must be https://host/path, without user, query or fragment.")
    parts = urlsplit(url)  # raises ValueError if brackets do not enclose an IPv6 address
    _ = parts.port  # raises ValueError when it is out of range
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError("must start with https:// (http:// is for loopback addresses only).")
    return url.rstrip("/")


def _checked_template(url: str) -> str:
    """Check an address that has ``{region}`` or ``{account}`` as part of its host name."""
    _checked_url(_PLACE.sub("x", url))
    return url.rstrip("/")


def filled(url: str, **places: str) -> str:
    """Replace an address's placeholders. Raises ConfigError for a value that could lead to another host."""
    for name, value in places.items():
        if not _LABEL.fullmatch(value):  # values come from credentials: "evil.com/" would receive the secret
            raise ConfigError(f"{name}: {value[:80]!r} must have only lower-case letters, digits and '-'.")
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

    display_name: str = Field(min_length=1, max_length=100, description="Display name.")
    base_url: Annotated[str, AfterValidator(_checked_url)] | None = Field(
        default=None, description="Address of the API, without a trailing slash; none for providers that send files."
    )
    urls: Urls = Field(
        default_factory=dict,
        description="Addresses of further APIs, by name; {region} and {account} come from the credential.",
    )
    partitions: Mapping[Annotated[str, StringConstraints(pattern=IDENTIFIER)], Urls] = Field(
        default_factory=dict,
        description="The same addresses in its parts that are apart from the public cloud, such as China, by part.",
    )
    auth: Literal["none", "bearer", "api_key", "aws_signature", "google", "oauth_client", "oci_signature"] = Field(
        default="none",
        description="How the credential is used: sent as a bearer token or an API-key header, used to sign requests, "
        "exchanged for a token of Google's or of an OAuth client, or not at all.",
    )
    usd_per_call: Usd = Field(default=Decimal(0), description="Price of one API call in US dollars, in quotes.")
    credential_hint: str = Field(default="", max_length=500, description="What to paste, and where to get it.")
    restatement_days: int = Field(
        default=0,
        strict=True,
        ge=0,
        le=92,
        description="Days before yesterday that it may restate: they are read again.",
    )
    limits: str = Field(default="", max_length=500, description="Documented limits, for people.")

    def window(self, today: date) -> tuple[date, date]:
        """Return the first and last day of a run without dates: the restatement window and yesterday."""
        last = today - timedelta(days=1)
        return last - timedelta(days=self.restatement_days), last


class ProviderRegistry(StrictModel):
    """The file: providers by key."""

    providers: dict[Annotated[str, StringConstraints(pattern=IDENTIFIER)], Provider] = Field(min_length=1)


def load_providers(root: Path) -> Mapping[str, Provider]:
    """Read the providers of the tree ``root`` by key. Raises ConfigError with every problem of the file."""
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
    """Return a provider. Raises ConfigError that suggests the nearest one."""
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
    """Return the message that a provider is not registered, with the nearest one."""
    return f"no provider is named {key[:80]!r}.{nearest(key, providers)} Registered: {', '.join(sorted(providers))}."
