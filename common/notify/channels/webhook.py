"""A program's own address: JSON, signed with HMAC-SHA256 (docs/security.md describes how a receiver checks it)."""

import hashlib
import hmac
import json
from datetime import datetime
from typing import Any, ClassVar

from common.notify.channels.base import Notice, Post

SIGNATURE_HEADER = "X-Pipeline-Ops-Signature"


class Webhook:
    """Sends the run's end as JSON."""

    needs_secret: ClassVar[bool] = True

    def post(self, notice: Notice, secret: str, at: datetime) -> Post:
        """Return the signed body. The time of sending is signed too, so that a receiver can refuse a replay."""
        body = json.dumps(_event(notice), ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json", SIGNATURE_HEADER: signature(body, secret, int(at.timestamp()))}
        return Post(body, headers)


def signature(body: bytes, secret: str, seconds: int) -> str:
    """Return ``t=<unix seconds>,v1=<hex of HMAC-SHA256 over "<seconds>.<body>">``."""
    digest = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={seconds},v1={digest}"


def _event(notice: Notice) -> dict[str, Any]:
    event = "test" if notice.is_test else "runs.left_out" if notice.left_out else f"run.{notice.status}"
    left_out = notice.left_out and {"count": notice.left_out.count, "since": notice.left_out.since.isoformat()}
    run = {
        "run_id": notice.run_id,
        "pipeline": notice.pipeline,
        "status": notice.status,
        "error": notice.error or None,
        "trigger": notice.trigger,
        "start_date": notice.start_date.isoformat(),
        "end_date": notice.end_date.isoformat(),
        "ended_at": notice.ended_at.isoformat(),
    }
    return {"event": event, "org_slug": notice.org_slug, "run": run, "left_out": left_out}
