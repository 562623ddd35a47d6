"""DeepSeek's API, as far as this product needs it: the balance (api-docs.deepseek.com/api/get-user-balance)."""

import random
from typing import Any

from infra.local.sandbox.exchange import Answer, Request

API_KEY = "sk-deepseek-sandbox"
RETRY_AFTER_S = 1


class DeepSeekSandbox:
    """Answers as DeepSeek does for one account whose balance is made up from a seed."""

    key, base, secret = "deepseek", "", API_KEY
    prefixes: tuple[str, ...] = ("/user/",)

    def __init__(self, seed: int) -> None:
        cents = random.Random(f"deepseek/{seed}").randrange(5_000, 50_000)
        self._granted, self._topped_up = 1_000, cents
        self.settled = True

    def refuse(self, request: Request) -> Answer | None:
        """401 without a known key: the status is documented, the words are made up."""
        if request.headers.get("authorization") == f"Bearer {API_KEY}":
            return None
        return _error(401, "Authentication Fails, your api key is invalid", "authentication_error")

    def rate_limited(self) -> Answer:
        answer = _error(429, "Rate Limit Reached: you are sending requests too quickly.", "rate_limit_error")
        return Answer(429, answer.body, {"retry-after": str(RETRY_AFTER_S)})

    def answer(self, request: Request) -> Answer:
        if request.path != "/user/balance" or request.method != "GET":
            return _error(404, "Not found", "invalid_request_error")
        if request.query:  # "Parameters: none"
            return _error(422, f"Unknown parameter: {request.query[0][0]}", "invalid_request_error")
        info = {
            "currency": "USD",
            "total_balance": _money(self._granted + self._topped_up),
            "granted_balance": _money(self._granted),
            "topped_up_balance": _money(self._topped_up),
        }
        return Answer(200, {"is_available": True, "balance_infos": [info]})


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


def _error(status: int, message: str, kind: str) -> Answer:
    body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": None, "code": "invalid_request_error"}}
    return Answer(status, body)
