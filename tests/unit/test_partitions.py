"""Hosts of clouds that are apart from the public one: the credential picks a part, the registry has its address."""

from pathlib import Path
from typing import Any

import pytest

from common.bootstrap import _provider_url
from common.config.providers import filled, load_providers, provider_url
from common.platform.errors import ConfigError
from common.platform.paths import CONFIGS
from common.platform.settings import Settings
from common.processors.clouds.aws.partitions import address, cost_explorer_region, partition
from common.processors.clouds.azure.login import MANAGEMENT, azure_client
from common.processors.clouds.oci.signature import OciKey
from common.processors.http.stored_settings import StoredSettings
from tests.config_world import PROVIDERS, ConfigWorld

REGISTRY = load_providers(CONFIGS)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-west-1", "https://s3.eu-west-1.amazonaws.com"),
        ("us-gov-west-1", "https://s3.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "https://s3.cn-north-1.amazonaws.com.cn"),
        ("eusc-de-east-1", "https://s3.eusc-de-east-1.amazonaws.eu"),
        ("us-iso-east-1", "https://s3.us-iso-east-1.c2s.ic.gov"),
        ("us-isob-east-1", "https://s3.us-isob-east-1.sc2s.sgov.gov"),
    ],
)
def test_a_bucket_is_asked_for_at_the_host_of_its_part_of_aws(region: str, host: str) -> None:
    assert filled(provider_url(REGISTRY, address("s3", partition(region))), region=region) == host


@pytest.mark.parametrize(
    ("region", "host", "signed_for"),
    [
        (None, "https://ce.us-east-1.amazonaws.com", "us-east-1"),
        ("eu-west-1", "https://ce.us-east-1.amazonaws.com", "us-east-1"),
        ("cn-north-1", "https://ce.cn-northwest-1.amazonaws.com.cn", "cn-northwest-1"),
    ],
)
def test_cost_explorer_is_asked_in_the_one_region_of_its_part(region: str | None, host: str, signed_for: str) -> None:
    part = partition(region)
    assert (provider_url(REGISTRY, address("ce", part)), cost_explorer_region(part)) == (host, signed_for)


@pytest.mark.parametrize(
    ("realm", "host"),
    [
        ("oc1", "https://objectstorage.{region}.oraclecloud.com"),
        ("oc4", "https://objectstorage.{region}.oraclegovcloud.uk"),
        ("oc19", "https://objectstorage.{region}.oraclecloud.eu"),
    ],
)
def test_the_realm_of_a_tenancy_is_in_its_ocid(realm: str, host: str) -> None:
    key = OciKey(f"ocid1.tenancy.{realm}..aaaa", "ocid1.user.oc1..aaaa", "", "")
    assert provider_url(REGISTRY, key.address("objectstorage")) == host


def azure(**more: str) -> Any:
    id_ = "11111111-2222-3333-4444-555555555555"
    stored = StoredSettings("cred", "{}", "help")
    stored.values = {"tenant_id": id_, "client_id": id_, "client_secret": "s", **more}
    return azure_client(stored)


def test_a_sovereign_cloud_of_azure_has_its_own_login_hosts_and_scope() -> None:
    client = azure(cloud="usgov")
    assert provider_url(REGISTRY, client.address("login")) == "https://login.microsoftonline.us"
    assert provider_url(REGISTRY, client.address("blob")) == "https://{account}.blob.core.usgovcloudapi.net"
    assert MANAGEMENT[client.cloud].startswith("https://management.core.usgovcloudapi.net/")
    assert provider_url(REGISTRY, azure().address("login")) == "https://login.microsoftonline.com"
    assert set(MANAGEMENT) - {""} == set(REGISTRY["azure"].partitions)


@pytest.mark.parametrize("key", ["aws", "azure", "oci"])
def test_every_part_has_every_address_of_its_provider(key: str) -> None:
    for part, urls in REGISTRY[key].partitions.items():
        assert set(urls) == set(REGISTRY[key].urls), part
        assert all(url.startswith("https://") for url in urls.values())


@pytest.mark.parametrize("realm", ["oc99", "evil.example", "oc1/../oc2", "oc1@evil", ""])
def test_a_credential_that_names_another_part_reaches_no_host(realm: str) -> None:
    """A credential can pick an address of the registry, and make none."""
    with pytest.raises(ConfigError, match=r"no partition|has no url|needs a value"):
        filled(provider_url(REGISTRY, f"oci.usage/{realm}"), account="x")


def test_an_address_of_a_part_is_checked_like_every_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = ConfigWorld(tmp_path / "configs", monkeypatch)
    more = "    partitions:\n      cn: {s3: 'http://s3.example.cn'}\n"
    world.write("system/providers.yml", PROVIDERS.rstrip("\n") + "\n" + more)
    with pytest.raises(ConfigError, match=r"partitions\.cn\.s3: must start with https://"):
        load_providers(world.root)


def test_a_replaced_address_replaces_that_of_every_part() -> None:
    settings = Settings(provider_urls={"aws_s3": "http://127.0.0.1:1"})
    assert _provider_url(settings, "aws.s3/cn") == _provider_url(settings, "aws.s3") == "http://127.0.0.1:1"
