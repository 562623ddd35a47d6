"""Google's tokens: its certificates are kept as it says, and a missing signature counts only behind its own check."""

import time

import pytest

from common.adapters.google.oidc import SIGNATURE_TAKEN_OFF, Certificates
from common.platform.errors import ForbiddenScopeError, TransientError, UnauthorizedError
from common.platform.settings import Settings
from tests.google_tokens import ACCOUNT, KEY_ID, checking, token, unsigned


class Google:
    """Gives out certificates, and counts."""

    def __init__(self) -> None:
        self.now, self.asked, self.age, self.down = 0.0, 0, 3_600.0, False
        self.certs = {"a": "A"}
        self.kept = Certificates(self.fetch, lambda: self.now)

    def fetch(self) -> tuple[dict[str, str], float]:
        self.asked += 1
        if self.down:
            raise OSError("canary")
        return dict(self.certs), self.age


@pytest.fixture
def google() -> Google:
    return Google()


def test_certificates_are_asked_for_once_as_long_as_google_says(google: Google) -> None:
    for now in (0, 1, 3_599):
        google.now = now
        assert google.kept.with_key("a") == {"a": "A"}
    assert google.asked == 1
    google.now = 3_600
    google.kept.with_key("a")
    assert google.asked == 2


@pytest.mark.parametrize(("age", "kept_s"), [(0.0, 60), (1e12, 86_400)])
def test_they_are_kept_a_minute_at_least_and_a_day_at_most(google: Google, age: float, kept_s: int) -> None:
    google.age = age
    google.kept.with_key("a")
    google.now = kept_s - 1
    google.kept.with_key("a")
    assert google.asked == 1
    google.now = kept_s
    google.kept.with_key("a")
    assert google.asked == 2


def test_an_unknown_key_is_asked_for_at_most_once_a_minute(google: Google) -> None:
    google.kept.with_key("a")
    google.certs["b"] = "B"
    for now in range(60):
        google.now = now
        assert "b" not in google.kept.with_key("b")
    assert google.asked == 1
    google.now = 60
    assert google.kept.with_key("b")["b"] == "B" and google.asked == 2
    for _ in range(100):
        google.kept.with_key("forged")
    assert google.asked == 2


def test_old_certificates_go_on_for_a_day_if_no_new_ones_can_be_had(google: Google) -> None:
    google.kept.with_key("a")
    google.down = True
    google.now = 3_600 + 86_400
    assert google.kept.with_key("a") == {"a": "A"}
    google.now += 61
    with pytest.raises(TransientError, match="could not be read") as caught:
        google.kept.with_key("a")
    assert "canary" not in str(caught.value)


def test_without_any_certificate_the_answer_is_to_try_again(google: Google) -> None:
    google.down = True
    with pytest.raises(TransientError):
        google.kept.with_key("a")
    google.down = False
    assert google.kept.with_key("a") == {"a": "A"}


def test_a_right_token_names_its_account() -> None:
    assert checking().email(token()) == ACCOUNT
    assert checking().email(token(iss="accounts.google.com", aud="https://other")) == ACCOUNT


def test_a_token_without_signature_counts_only_where_cloud_run_has_checked_it() -> None:
    bare = unsigned(SIGNATURE_TAKEN_OFF, alg="RS256")
    with pytest.raises(UnauthorizedError, match="PIPELINE_OPS_IAM_CHECKED"):
        checking().email(bare)
    assert checking(iam_checked=True).email(bare) == ACCOUNT
    assert checking(iam_checked=True).email(token()) == ACCOUNT
    for other in (unsigned("", alg="RS256"), unsigned("x" * 342, alg="RS256"), unsigned(), token(by="stranger")):
        with pytest.raises(UnauthorizedError):
            checking(iam_checked=True).email(other)


def test_what_cloud_run_has_checked_is_still_for_this_function_by_a_known_account_and_now() -> None:
    now = int(time.time())
    check = checking(iam_checked=True)
    for changed in (
        {"aud": "https://elsewhere"},
        {"iss": "x"},
        {"exp": now - 3_600, "iat": now - 7_200},
        {"iat": now + 3_600},
        {"exp": None},
        {"iat": "now"},
    ):
        with pytest.raises(UnauthorizedError):
            check.email(unsigned(SIGNATURE_TAKEN_OFF, alg="RS256", **changed))
    for account in ({"email": "x@y"}, {"email_verified": False}, {"email": ["x"]}):
        with pytest.raises(ForbiddenScopeError):
            check.email(unsigned(SIGNATURE_TAKEN_OFF, alg="RS256", **account))


def test_the_settings_take_several_audiences_and_accounts() -> None:
    found = Settings.from_env(
        {
            "PIPELINE_OPS_AUDIENCE": "https://a, https://b",
            "PIPELINE_OPS_INVOKERS": "x@y,",
            "PIPELINE_OPS_IAM_CHECKED": "on",
        }
    )
    assert (found.audiences, found.invokers, found.iam_checked) == (("https://a", "https://b"), ("x@y",), True)
    assert Settings.from_env({}).audiences == () and not Settings.from_env({}).iam_checked
    assert KEY_ID in str(checking()._certificates.with_key(KEY_ID))
