"""One-line sabotages of the locks: keys, tokens, secrets, notifications, audit rows."""

from tests.sim.sabotage import Sabotage

KEYS = "common/access/api_keys.py"
CHECK = "common/access/api_key_check.py"
AUDIT = "common/access/audit.py"
SEALING = "common/access/sealing.py"
KEY_FILE = "common/adapters/key_file.py"
KMS = "common/adapters/google/kms.py"
OIDC = "common/adapters/google/oidc.py"
INVOKERS = "common/access/invokers.py"
FUNCTION_LOCKS = "functions/locks.py"
RECORDS = "common/adapters/sqlite/records.py"
HIDDEN = "common/platform/redaction.py"
ATTEMPT = "common/runs/attempt.py"
LOGS = "common/platform/logs.py"
SENDER = "common/notify/channels/sender.py"
HOSTS = "common/config/hosts.py"
TOLD = "common/notify/notifications.py"
BOOK = "common/notify/settings.py"
LIMIT = "common/notify/failure_limit.py"
DISPATCHER = "infra/local/dispatcher.py"

OF_KEYS = ("tests/unit/test_keys.py",)
OF_SECRETS = ("tests/contract/test_credentials.py", "tests/contract/test_key_encryption.py", "-k", "not firestore")
OF_TOKENS = ("tests/unit/test_oidc.py", "tests/functions/test_locks.py")
OF_RECORDS = ("tests/contract/test_records.py", "-k", "sqlite")
OF_CANARIES = ("tests/unit/test_hidden.py", "tests/functions/test_canaries.py")
OF_NOTICES = ("tests/unit/test_sender.py", "tests/unit/test_failure_limit.py", "tests/functions/test_notifications.py")

LOCKS = (
    Sabotage(
        "a revoked key goes on",
        KEYS,
        "if self.revoked_at is not None:\n            return",
        "if False:\n            return",
        OF_KEYS,
    ),
    Sabotage("a key never expires", KEYS, "self.expires_at is not None and now >= self.expires_at", "False", OF_KEYS),
    Sabotage(
        "any secret opens a key",
        CHECK,
        'hmac.compare_digest(computed, bytes.fromhex(kept["hash"])) and record is not None',
        "record is not None",
        OF_KEYS,
    ),
    Sabotage(
        "what was verified counts whatever became of the key",
        CHECK,
        "self._known.get(digest) == record.version",
        "digest in self._known",
        OF_KEYS,
    ),
    Sabotage(
        "a key that does not exist costs nothing",
        CHECK,
        "        with self._turn():\n",
        "        if record is None:\n            return False\n        with self._turn():\n",
        OF_KEYS,
    ),
    Sabotage(
        "any number of secrets is hashed at once",
        CHECK,
        "threading.BoundedSemaphore(AT_ONCE)",
        "threading.BoundedSemaphore(1000)",
        OF_KEYS,
    ),
    Sabotage(
        "any number of requests waits for its hash", CHECK, "if self._waiting >= MAX_WAITING:", "if False:", OF_KEYS
    ),
    Sabotage("what is remembered of keys grows", CHECK, "LRUCache(REMEMBERED)", "LRUCache(10**9)", OF_KEYS),
    Sabotage(
        "every scope covers every other",
        KEYS,
        "return order.index(self) >= order.index(needed)",
        "return True",
        OF_KEYS,
    ),
    Sabotage(
        "a key opens other organisations",
        KEYS,
        "return self.org_slug is None or self.org_slug == org_slug",
        "return True",
        OF_KEYS,
    ),
    Sabotage(
        "old keys of a name live on",
        KEYS,
        "        for key in newest_first[keep:]:\n",
        "        for key in newest_first[99:]:\n",
        OF_KEYS,
    ),
    Sabotage(
        "the old key gets no end",
        KEYS,
        "        if grace is not None:\n            until",
        "        if False:\n            until",
        OF_KEYS,
    ),
    Sabotage(
        "no operator's token is any token",
        KEYS,
        "if self._operator and hmac.compare_digest(token.encode(), self._operator.encode()):",
        "if hmac.compare_digest(token.encode(), (self._operator or token).encode()):",
        OF_KEYS,
    ),
    Sabotage(
        "the store keeps a secret in clear",
        KEYS,
        '"secret": hashed(secret),',
        '"secret": {**hashed(secret), "x": secret},',
        OF_KEYS,
    ),
    Sabotage("an act on a key is no audit row", KEYS, '        self._tell(found, who, "key.revoke")\n', "", OF_KEYS),
    Sabotage(
        "acts of one moment replace one another",
        AUDIT,
        '-{secrets.token_hex(4)}"',
        '-00000000"',
        ("tests/unit/test_audit.py",),
    ),
    Sabotage(
        "a lost audit row is not told",
        AUDIT,
        '            logger.error("The audit row',
        '            logger.debug("The audit row',
        ("tests/unit/test_audit.py",),
    ),
    Sabotage(
        "a record is replaced whatever its version",
        RECORDS,
        "if (0 if row is None else row[0]) != expected:",
        "if False:",
        OF_RECORDS,
    ),
    Sabotage(
        "records of another organisation are listed",
        RECORDS,
        "WHERE kind = :kind AND org_slug = :org {order}",
        "WHERE kind = :kind {order}",
        OF_RECORDS,
    ),
    Sabotage(
        "a secret is bound to no place",
        SEALING,
        'return f"{kind}\\n{org_slug}\\n{name}".encode()',
        'return b""',
        OF_SECRETS,
    ),
    Sabotage(
        "all secrets have one data key",
        SEALING,
        "_place(kind, org_slug, name), os.urandom(KEY_BYTES), os",
        '_place(kind, org_slug, name), b"k" * KEY_BYTES, os',
        OF_SECRETS,
    ),
    Sabotage("a key file that others can read is used", KEY_FILE, "if mode & 0o077:", "if False:", OF_SECRETS),
    Sabotage("a lost key file is replaced", KEY_FILE, "self._key(make=False)", "self._key(make=True)", OF_SECRETS),
    Sabotage(
        "KMS answers are not checked",
        KMS,
        "            if not whole(answer):\n",
        "            if False:\n",
        OF_SECRETS,
    ),
    Sabotage("KMS did not get what was sent", KMS, "return bool(verified) and answer", "return answer", OF_SECRETS),
    Sabotage("KMS is asked for ever", KMS, "tries=TRIES, left_s", "tries=10**9, left_s", OF_SECRETS),
    Sabotage(
        "an unwrapped key is kept for ever",
        KMS,
        "TTLCache(REMEMBERED, REMEMBERED_S, clock)",
        "TTLCache(REMEMBERED, 1e9, clock)",
        OF_SECRETS,
    ),
    Sabotage(
        "any audience will do",
        OIDC,
        "if not isinstance(audience, str) or audience not in self._audiences:",
        "if False:",
        OF_TOKENS,
    ),
    Sabotage(
        "any issuer will do", OIDC, "if not isinstance(issuer, str) or issuer not in ISSUERS:", "if False:", OF_TOKENS
    ),
    Sabotage("any account will do", OIDC, "email not in self._accounts:", "False:", OF_TOKENS),
    Sabotage(
        "an account that is not verified will do",
        OIDC,
        'verified = claims.get("email_verified") is True',
        "verified = True",
        OF_TOKENS,
    ),
    Sabotage(
        "anybody may send a token without signature",
        OIDC,
        "        if not self._iam_checked:\n",
        "        if False:\n",
        OF_TOKENS,
    ),
    Sabotage(
        "what Cloud Run has checked never expires",
        OIDC,
        'if not claims["iat"] - SKEW_S <= self._now() <= claims["exp"] + SKEW_S:',
        "if False:",
        OF_TOKENS,
    ),
    Sabotage(
        "a token without a key id is tried with every key",
        OIDC,
        "        if key_id not in certs:\n",
        "        if False:\n",
        OF_TOKENS,
    ),
    Sabotage(
        "forged key ids make us ask Google each time",
        OIDC,
        "key_id not in self._kept and now - self._asked_at >= MIN_AGE_S",
        "key_id not in self._kept",
        OF_TOKENS,
    ),
    Sabotage(
        "a function that knows of nobody lets everybody in",
        INVOKERS,
        "        if self._tokens is None:\n            raise UnauthorizedError(",
        "        if self._tokens is None:\n            return str(",
        OF_TOKENS,
    ),
    Sabotage(
        "any local token will do",
        INVOKERS,
        "local is not None and hmac.compare_digest(local.encode(), self._local_token.encode())",
        "local is not None",
        OF_TOKENS,
    ),
    Sabotage(
        "a refused call is carried out",
        FUNCTION_LOCKS,
        "            abort(error.status, str(error))\n",
        "            pass\n",
        OF_TOKENS,
    ),
    Sabotage(
        "a step's function is not locked",
        "functions/run_step.py",
        "functions_framework.cloud_event(locked(step))",
        "functions_framework.cloud_event(step)",
        OF_TOKENS,
    ),
    Sabotage(
        "an error tells the secret",
        ATTEMPT,
        "    text = scrubbed(str(error))\n",
        "    text = str(error)\n",
        OF_CANARIES,
    ),
    Sabotage(
        "a stack trace tells the secret",
        LOGS,
        "scrubbed(self.formatException(record.exc_info))",
        "self.formatException(record.exc_info)",
        OF_CANARIES,
    ),
    Sabotage(
        "a log line of a step tells the secret",
        ATTEMPT,
        "        text = scrubbed(text)\n        logger.log",
        "        logger.log",
        OF_CANARIES,
    ),
    Sabotage(
        "an output tells the secret",
        ATTEMPT,
        "self._outputs = scrubbed_data(json.loads(text))",
        "self._outputs = json.loads(text)",
        OF_CANARIES,
    ),
    Sabotage("an opened secret is not hidden", ATTEMPT, "        hide(secret)\n", "", OF_CANARIES),
    Sabotage("a field of a credential is told", HIDDEN, "if isinstance(data, dict):", "if False:", OF_CANARIES),
    Sabotage("a secret is told in base64", HIDDEN, "quote(part), encoded, json", "quote(part), json", OF_CANARIES),
    Sabotage(
        "notifications go to any host",
        HOSTS,
        'if host not in self.hosts and not any(host.endswith(one) for one in self.hosts if one.startswith(".")):',
        "if False:",
        OF_NOTICES,
    ),
    Sabotage("notifications go without TLS", HOSTS, 'if scheme != "https" and not here:', "if False:", OF_NOTICES),
    Sabotage(
        "notifications go to any port", HOSTS, 'if port not in (None, ":443") and not here:', "if False:", OF_NOTICES
    ),
    Sabotage("a redirect is followed", SENDER, "follow_redirects=False", "follow_redirects=True", OF_NOTICES),
    Sabotage("a slow receiver is waited for", SENDER, 'TOTAL_S, "notification")', '3_600, "notification")', OF_NOTICES),
    Sabotage(
        "a host is checked when it is set alone",
        SENDER,
        "    host = check_url(url, hosts)\n",
        '    host = urlsplit(url).hostname or ""\n',
        OF_NOTICES,
    ),
    Sabotage(
        "a channel that was reached is told again",
        TOLD,
        "            if channel.name in done:\n                continue\n",
        "",
        OF_NOTICES,
    ),
    Sabotage(
        "a channel that was not reached is given up",
        TOLD,
        "        if missing:\n            raise",
        "        if False:\n            raise",
        OF_NOTICES,
    ),
    Sabotage(
        "a run is told twice that was announced",
        TOLD,
        "announced = run.wake_at is None",
        "announced = False",
        OF_NOTICES,
    ),
    Sabotage(
        "a count of failures that was told is told again",
        TOLD,
        "        if admitted.since is not None:\n            self.limit.told",
        "        if False:\n            self.limit.told",
        OF_NOTICES,
    ),
    Sabotage("every failure is told", LIMIT, "if len(told) < TOLD_AN_HOUR:", "if True:", OF_NOTICES),
    Sabotage(
        "a repeated failure counts again",
        LIMIT,
        "if again or run_id in book.runs_told or run_id in book.left_out:",
        "if again:",
        OF_NOTICES,
    ),
    Sabotage(
        "the sweep does not look for what was left out",
        LIMIT,
        "                self._put_due(org_slug, route, book)\n",
        "",
        OF_NOTICES,
    ),
    Sabotage("what was left out meanwhile is forgotten", LIMIT, "if run_id not in left_out)", "if False)", OF_NOTICES),
    Sabotage(
        "an address is kept in clear", BOOK, 'f"{urlsplit(url).scheme}://{host}/…", sealed', "url, sealed", OF_NOTICES
    ),
    Sabotage(
        "another type of channel inherits the secret",
        BOOK,
        "        if before is not None and before.type != asked.type:\n",
        "        if False:\n",
        OF_NOTICES,
    ),
    Sabotage(
        "a wrong setting is repeated",
        BOOK,
        "NotificationsBody, shown=False",
        "NotificationsBody, shown=True",
        OF_NOTICES,
    ),
    Sabotage(
        "the archive keeps notifications back",
        "common/runs/engine.py",
        "                not_kept = error\n",
        "                raise\n",
        OF_NOTICES,
    ),
    Sabotage(
        "a run's end is told inside the transaction",
        DISPATCHER,
        "if one.message.topic == RUN_FINISHED and one.message_id]",
        "if False]",
        ("tests/functions/test_dispatcher.py",),
    ),
)
