"""OCI's request signature. The texts are those that oci 2.189.0 signs for the same requests."""

import base64
import re
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from common.platform.errors import PermanentError
from common.processors.clouds.oci.signature import OciKey, signer, to_sign

AT = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
GET = "https://objectstorage.us-ashburn-1.oraclecloud.com/n/bling/b/t/o?prefix=FOCUS%20Reports%2F&limit=2"
POST = "https://usageapi.us-ashburn-1.oci.oraclecloud.com/20200107/usage?limit=5"
TEXTS = {
    GET: "date: Sat, 21 Nov 2026 06:00:00 GMT\n"
    "(request-target): get /n/bling/b/t/o?prefix=FOCUS%20Reports%2F&limit=2\n"
    "host: objectstorage.us-ashburn-1.oraclecloud.com",
    POST: "date: Sat, 21 Nov 2026 06:00:00 GMT\n"
    "(request-target): post /20200107/usage?limit=5\n"
    "host: usageapi.us-ashburn-1.oci.oraclecloud.com\n"
    "content-length: 8\n"
    "content-type: application/json\n"
    "x-content-sha256: +dhgKMbg1k4iUYb5astpM4ssWXZN95FiEH9cS7NNExA=",
}
PRIVATE = rsa.generate_private_key(65537, 2048)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> str:
    sealed = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed).decode()


@pytest.mark.parametrize(("method", "url", "body"), [("GET", GET, b""), ("POST", POST, b'{"a": 1}')])
def test_the_text_is_the_one_that_oracles_sdk_signs_and_the_key_signs_it(method: str, url: str, body: bytes) -> None:
    assert to_sign(method, url, body, AT)[0] == TEXTS[url]
    headers = signer(OciKey("t", "u", "aa:bb", pem(PRIVATE)), lambda: AT)(method, url, body)
    found = re.fullmatch(
        r'Signature algorithm="rsa-sha256",headers="([^"]+)",keyId="t/u/aa:bb",signature="([^"]+)",version="1"',
        headers["authorization"],
    )
    assert found is not None
    assert found[1] == " ".join(line.partition(": ")[0] for line in TEXTS[url].split("\n"))
    PRIVATE.public_key().verify(base64.b64decode(found[2]), TEXTS[url].encode(), padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.parametrize(
    "text",
    ["no key", pem(PRIVATE, b"passphrase"), pem(ec.generate_private_key(ec.SECP256R1())), ""],
    ids=["no key", "with a passphrase", "no RSA key", "nothing"],
)
def test_a_key_that_can_not_sign_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(PermanentError, match="private_key is no RSA key in PEM form without a passphrase") as caught:
        signer(OciKey("t", "u", "aa:bb", text), lambda: AT)
    assert "BEGIN" not in str(caught.value)


def test_the_key_does_not_show_itself() -> None:
    assert "BEGIN" not in repr(OciKey("t", "u", "aa:bb", pem(PRIVATE)))
