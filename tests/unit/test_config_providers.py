"""The provider registry."""

from datetime import date
from pathlib import Path

import pytest

from common.config.providers import Provider, filled, find_provider, is_loopback, load_providers, provider_url
from common.platform.errors import ConfigError
from tests.config_world import PROVIDERS, ConfigWorld


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigWorld:
    return ConfigWorld(tmp_path / "configs", monkeypatch)


def refusal(world: ConfigWorld, old: str, new: str) -> str:
    assert PROVIDERS.count(old) == 1
    world.write("system/providers.yml", PROVIDERS.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_providers(world.root)
    return str(caught.value).removeprefix("configs/system/providers.yml:")


def test_providers_are_read_by_key_and_need_no_address(world: ConfigWorld) -> None:
    providers = load_providers(world.root)
    assert set(providers) == {"openai", "aws"}
    assert (providers["openai"].base_url, providers["openai"].auth) == ("https://api.openai.com/v1", "bearer")
    assert (providers["aws"].base_url, providers["aws"].auth) == (None, "none")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com",
        "https://h:8443/v1/x",
        "http://127.0.0.1:8000",
        "http://localhost/v1",
        "http://[::1]:80/v1",
    ],
)
def test_https_is_accepted_and_http_on_loopback(world: ConfigWorld, url: str) -> None:
    world.write("system/providers.yml", PROVIDERS.replace("https://api.openai.com/v1", url))
    assert load_providers(world.root)["openai"].base_url == url


def test_a_slash_at_the_end_of_an_address_is_dropped(world: ConfigWorld) -> None:
    world.write("system/providers.yml", PROVIDERS.replace("openai.com/v1", "openai.com/v1/"))
    assert load_providers(world.root)["openai"].base_url == "https://api.openai.com/v1"


@pytest.mark.parametrize(
    "url",
    ["http://api.openai.com", "http://127.0.0.1.evil.example", "http://localhost.evil.example", "http://10.0.0.1"],
)
def test_a_credential_never_travels_in_clear_text_beyond_this_machine(world: ConfigWorld, url: str) -> None:
    assert refusal(world, "https://api.openai.com/v1", url) == (
        "4: providers.openai.base_url: must start with https:// (http:// is for loopback addresses only)."
    )


NO_ADDRESSES = r"""ftp://h|file:///etc/passwd|https://|https://user:pw@h|https://h?x=1|'https://h#x'|https://h:99999
|https://h h|https://h\@evil|https://[::1|https://[1.2.3.4]|h|''|'https://h​'"""


@pytest.mark.parametrize("url", NO_ADDRESSES.replace("\n", "").split("|"))
def test_what_is_no_plain_address_is_refused(world: ConfigWorld, url: str) -> None:
    message = refusal(world, "https://api.openai.com/v1", url)
    assert message.startswith("4: providers.openai.base_url: ") and "pw@" not in message


def test_an_unknown_kind_of_auth_is_refused_with_the_nearest_one(world: ConfigWorld) -> None:
    said = refusal(world, "auth: bearer", "auth: barer")
    assert said.startswith("5: providers.openai.auth: must be one of 'none', 'bearer', 'api_key'")
    assert said.endswith("Did you mean 'bearer'?")


def test_an_unknown_key_is_refused_with_the_nearest_one(world: ConfigWorld) -> None:
    assert refusal(world, "base_url", "base_ulr").startswith(
        "4: providers.openai.base_ulr: unknown key. Did you mean 'base_url'? Known: auth, base_url,"
    )


def test_a_provider_key_is_an_identifier(world: ConfigWorld) -> None:
    assert refusal(world, "  aws:", "  Aws Inc:").startswith("7: providers.'Aws Inc': must match ^[a-z]")


def test_an_unknown_provider_is_refused_with_the_nearest_one(world: ConfigWorld) -> None:
    providers = load_providers(world.root)
    assert find_provider(providers, "aws").display_name == "AWS"
    with pytest.raises(ConfigError, match=r"no provider is named 'opennai'. Did you mean 'openai'\?"):
        find_provider(providers, "opennai")


def test_the_registry_cannot_be_changed_by_its_readers(world: ConfigWorld) -> None:
    with pytest.raises(TypeError):
        load_providers(world.root)["x"] = None  # type: ignore[index]


def test_loopback_is_all_of_127_and_the_ipv6_one() -> None:
    assert is_loopback("127.9.9.9") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("128.0.0.1") and not is_loopback("")


def with_urls(world: ConfigWorld, urls: str) -> None:
    world.write(
        "system/providers.yml", PROVIDERS.replace("    display_name: AWS", f"    display_name: AWS\n    urls: {urls}")
    )


def test_a_provider_has_further_addresses_by_name(world: ConfigWorld) -> None:
    with_urls(world, '{s3: "https://s3.{region}.amazonaws.com/", ce: "https://ce.us-east-1.amazonaws.com"}')
    providers = load_providers(world.root)
    assert provider_url(providers, "openai") == "https://api.openai.com/v1"
    assert filled(provider_url(providers, "aws.s3"), region="eu-west-1") == "https://s3.eu-west-1.amazonaws.com"
    with pytest.raises(ConfigError, match=r"provider 'aws' has no url 's4'\. Did you mean 's3'\? Known: s3, ce\."):
        provider_url(providers, "aws.s4")
    with pytest.raises(ConfigError, match="no base_url for provider 'aws'"):
        provider_url(providers, "aws")
    with pytest.raises(ConfigError, match=r"needs a value for \{region\}"):
        filled(provider_url(providers, "aws.s3"))


@pytest.mark.parametrize("region", ["evil.com/", "a.b", "x@y", "", "-a", "A", "a#", "é"])
def test_what_is_put_into_an_address_leads_to_no_other_host(region: str) -> None:
    with pytest.raises(ConfigError, match="must have only lower-case letters, digits and '-'"):
        filled("https://s3.{region}.amazonaws.com", region=region)


@pytest.mark.parametrize("url", ["http://s3.{region}.x.com", "https://{host}", "https://{region}@evil.com", "{region}"])
def test_an_address_with_places_is_as_strict_as_any(world: ConfigWorld, url: str) -> None:
    with_urls(world, f'{{s3: "{url}"}}')
    with pytest.raises(ConfigError, match="providers.aws.urls.s3"):
        load_providers(world.root)


def test_a_scheduled_run_reads_yesterday_and_the_days_that_are_still_corrected() -> None:
    today = date(2026, 3, 2)
    assert Provider(display_name="A").window(today) == (date(2026, 3, 1), date(2026, 3, 1))
    assert Provider(display_name="A", restatement_days=3).window(today) == (date(2026, 2, 26), date(2026, 3, 1))
