"""API keys, tokens, secrets, notifications, audit rows."""

from tests.mutants.change import always, argument, cut, never, swap, text
from tests.mutants.mutation import noticed_by

LOCKS = (
    *noticed_by(
        "test_keys",
        ("a revoked key goes on", "KeyInfo.status", never("self.revoked_at is not None")),
        ("a key never expires", "KeyInfo.status", never("self.expires_at is not None and now >= self.expires_at")),
        (
            "any secret opens a key",
            "KeyCheck.holds",
            always("hmac.compare_digest(computed, bytes.fromhex(kept['hash']))"),
        ),
        (
            "what was verified counts whatever became of the key",
            "KeyCheck._remembers",
            swap("self._known.get(digest) == record.version", "digest in self._known"),
        ),
        (
            "a key that does not exist costs nothing",
            "KeyCheck.holds",
            swap("kept: Mapping[str, Any] = ...", "if record is None:\n    return False\nkept = record.body['secret']"),
        ),
        ("any number of secrets is hashed at once", "KeyCheck.__init__", swap("AT_ONCE", "1000")),
        ("what is remembered of keys grows", "KeyCheck.__init__", swap("LRUCache(REMEMBERED)", "LRUCache(10**9)")),
        ("every scope covers every other", "Scope.covers", always("order.index(self) >= order.index(needed)")),
        (
            "a key opens other organisations",
            "Caller.opens",
            always("self.org_slug is None or self.org_slug == org_slug"),
        ),
        ("old keys of a name live on", "Keys._trim", swap("keep", "99")),
        ("the old key gets no end", "Keys.rotate", never("if grace is not None")),
        (
            "no operator's token is any token",
            "Keys.caller",
            swap(
                "self._operator and hmac.compare_digest(token.encode(), self._operator.encode())",
                "hmac.compare_digest(token.encode(), (self._operator or token).encode())",
            ),
        ),
        ("the store keeps a secret in clear", "Keys._make", swap("hashed(secret)", "{**hashed(secret), 'x': secret}")),
        ("an act on a key is no audit row", "Keys.revoke", cut("self._tell(key, who, 'key.revoke')")),
    ),
    *noticed_by(
        "test_audit",
        ("acts of one moment replace one another", "audit._name", swap("secrets.token_hex(4)", "'00000000'")),
        ("a lost audit row is not told", "Audit.record", swap("logger.error", "logger.debug")),
    ),
    *noticed_by(
        "test_records -k sqlite",
        ("a record is replaced whatever its version", "records.DELETE_VERSION", text("AND version = :expected")),
        (
            "a record that must be new replaces another",
            "records.ADD",
            text("DO NOTHING", "(kind, org_slug, name) DO UPDATE SET body = EXCLUDED.body"),
        ),
        ("records of another organisation are listed", "SqlRecords.list", text("AND org_slug = :org")),
    ),
    *noticed_by(
        "test_credentials test_key_encryption -k 'not firestore'",
        ("a secret is bound to no place", "_place", swap("f'{kind}\\n{org_slug}\\n{name}'.encode()", "b''")),
        ("all secrets have one data key", "Sealer.seal", swap("os.urandom(KEY_BYTES)", "b'k' * KEY_BYTES")),
        ("a key file that others can read is used", "KeyFile._key", never("mode & 0o077")),
        ("a lost key file is replaced", "KeyFile.unwrap", argument("make=False", "make=True")),
        ("KMS answers are not checked", "CloudKms._asked", always("whole(answer)")),
        ("KMS did not get what was sent", "CloudKms.wrap.whole", always("bool(verified)")),
        ("KMS is asked for ever", "CloudKms._asked", swap("TRIES", "10 ** 9")),
        (
            "an unwrapped key is kept for ever",
            "CloudKms.__init__",
            swap("TTLCache(REMEMBERED, REMEMBERED_S, clock)", "TTLCache(REMEMBERED, 10**9, clock)"),
        ),
    ),
    *noticed_by(
        "test_oidc test_authorization",
        (
            "any audience will do",
            "GoogleTokens.email",
            never("not isinstance(audience, str) or audience not in self._audiences"),
        ),
        ("any issuer will do", "GoogleTokens.email", never("not isinstance(issuer, str) or issuer not in ISSUERS")),
        ("any account will do", "GoogleTokens.email", never("email not in self._accounts")),
        (
            "an account that is not verified will do",
            "GoogleTokens.email",
            always("claims.get('email_verified') is True"),
        ),
        (
            "anybody may send a token without signature",
            "GoogleTokens._verified_by_cloud_run",
            never("not self._iam_checked"),
        ),
        (
            "what Cloud Run has checked never expires",
            "GoogleTokens._verified_by_cloud_run",
            never("not claims['iat'] - SKEW_S <= self._now() <= claims['exp'] + SKEW_S"),
        ),
        ("a token without a key id is tried with every key", "GoogleTokens._claims", never("key_id not in certs")),
        (
            "forged key ids make us ask Google each time",
            "Certificates.with_key",
            always("now - self._asked_at >= MIN_AGE_S"),
        ),
        (
            "a function that knows of nobody lets everybody in",
            "Invokers.check",
            swap("if self._tokens is None: ...", "if self._tokens is None:\n    return 'anybody'"),
        ),
        (
            "any local token will do",
            "Invokers.check",
            always("hmac.compare_digest(local.encode(), self._local_token.encode())"),
        ),
        ("a refused call is carried out", "authorized.checked", cut("abort(error.status, str(error))")),
        ("a step's function is not locked", "_step_function", swap("authorized(step)", "step")),
    ),
    *noticed_by(
        "test_hidden test_canaries",
        ("an error tells the secret", "_text", swap("scrubbed(str(error))", "str(error)")),
        (
            "a stack trace tells the secret",
            "JsonFormatter.format",
            swap("scrubbed(self.formatException(record.exc_info))", "self.formatException(record.exc_info)"),
        ),
        ("a log line of a step tells the secret", "_Attempt._log", swap("scrubbed(text)", "text")),
        (
            "an output tells the secret",
            "_Attempt._put_out",
            swap("scrubbed_data(json.loads(text))", "json.loads(text)"),
        ),
        ("an opened secret is not hidden", "_Attempt._secret", cut("hide(secret)")),
        ("a field of a credential is told", "_parts", never("isinstance(data, dict)")),
        ("a secret is told in base64", "_forms", swap("encoded", "part")),
    ),
    *noticed_by(
        "test_sender test_failure_limit test_notifications",
        ("notifications go to any host", "AllowedHosts.refusal", never("host not in self.hosts and ...")),
        ("notifications go without TLS", "AllowedHosts.refusal", never("scheme != 'https' and not is_local")),
        ("notifications go to any port", "AllowedHosts.refusal", never("port not in (None, ':443') and not is_local")),
        ("a redirect is followed", "sender._status", argument("follow_redirects=False", "follow_redirects=True")),
        (
            "a slow receiver is waited for",
            "sender.send",
            swap("limited(...)", "_status(url, post, key, hosts.is_here(host))"),
        ),
        (
            "a host is checked when it is set alone",
            "send",
            swap("check_url(url, hosts)", "urlsplit(url).hostname or ''"),
        ),
        ("a channel that was reached is told again", "Notifications._send_all", cut("if channel.name in done: ...")),
        ("a channel that was not reached is given up", "Notifications._send_all", never("if missing")),
        ("a run is told twice that was announced", "Notifications.tell", never("run.wake_at is None")),
        (
            "a count of failures that was told is told again",
            "Notifications.tell",
            cut("self.limit.told(org_slug, route, admitted.left_out)"),
        ),
        ("every failure is told", "FailureLimit.admit.counted", always("len(told) < TOLD_AN_HOUR")),
        ("a repeated failure counts again", "FailureLimit.admit.counted", swap("again or ... or ...", "again")),
        (
            "the sweep does not look for what was left out",
            "FailureLimit.admit.counted",
            cut("self._put_due(org_slug, route, failures)"),
        ),
        ("what was left out meanwhile is forgotten", "FailureLimit.told.without", never("run_id not in left_out")),
        ("an address is kept in clear", "SettingsStore._kept", swap("f'{urlsplit(url).scheme}://{host}/…'", "url")),
        (
            "another type of channel inherits the secret",
            "SettingsStore._kept",
            never("before is not None and before.type != asked.type"),
        ),
        ("a wrong setting is repeated", "notifications_body", argument("shown=False", "shown=True")),
        ("the archive keeps notifications back", "Engine.run_finished", swap("not_kept = error", "raise")),
    ),
    *noticed_by(
        "test_dispatcher",
        (
            "a run's end is told inside the transaction",
            "Dispatcher._turn",
            never("delivery.message.topic == RUN_FINISHED and delivery.message_id"),
        ),
    ),
)
