"""Sabotages of the PostgreSQL adapters and of the plans' cache."""

from tests.sim.sabotage import Sabotage

CACHED = "common/access/cached_plans.py"
PG_CLIENT = "common/adapters/postgres/client.py"
PG_DSN = "common/adapters/postgres/dsn.py"
PG_QUOTA = "common/adapters/postgres/quota.py"
PG_STORE = "common/adapters/postgres/run_store.py"


def postgres(test: str, suite: str = "postgres") -> tuple[str, ...]:
    """Some tests on a real PostgreSQL."""
    return f"tests/contract/test_{suite}.py", "-k", test


POSTGRES = (
    Sabotage(
        "reservations are counted before others have taken theirs",
        PG_QUOTA,
        'ORDER BY org_slug FOR UPDATE"',
        'ORDER BY org_slug"',
        postgres("takes_the_last_slot"),
    ),
    Sabotage(
        "organisations take the deployment's last slot together",
        PG_QUOTA,
        "(DEPLOYMENT, org) if all_of_them else (org,)",
        "(org,)",
        postgres("takes_the_last_slot"),
    ),
    Sabotage(
        "organisations wait for each other",
        PG_QUOTA,
        "(DEPLOYMENT, org) if all_of_them else (org,)",
        "(DEPLOYMENT, org)",
        postgres("does_not_wait_for_another"),
    ),
    Sabotage(
        "who is refused waits for the lock",
        PG_STORE,
        "            quota.refuse_early(cursor, run, limits)\n",
        "",
        postgres("who_is_refused"),
    ),
    Sabotage(
        "a commit whose answer was lost is made again",
        PG_CLIENT,
        "if not self._was_committed(unsure.xid):",
        "if True:",
        postgres("answer_was_lost"),
    ),
    Sabotage(
        "a commit that was never made counts as made",
        PG_CLIENT,
        "if not self._was_committed(unsure.xid):",
        "if False:",
        postgres("answer_was_lost"),
    ),
    Sabotage(
        "a setting outlives its transaction", PG_CLIENT, "SET LOCAL lock_timeout", "SET lock_timeout", postgres("stays")
    ),
    Sabotage(
        "statements are prepared", PG_DSN, '"prepare_threshold": None', '"prepare_threshold": 5', postgres("stays")
    ),
    Sabotage(
        "a step on PostgreSQL is written over whatever happened to it",
        PG_STORE,
        " AND old.version = new.version",
        "",
        postgres("postgres", "run_store_steps"),
    ),
    Sabotage(
        "a source that is away is asked with every request",
        CACHED,
        "if asking is None and not self._rests(now):",
        "if asking is None:",
        ("tests/unit/test_cached_plans.py",),
    ),
    Sabotage(
        "every thread asks the source",
        CACHED,
        "if asking is None and not self._rests(now):",
        "if not self._rests(now):",
        ("tests/unit/test_cached_plans.py",),
    ),
    Sabotage(
        "an organisation that is gone goes on",
        CACHED,
        "                self._known.pop(org_slug, None)\n",
        "",
        ("tests/unit/test_cached_plans.py",),
    ),
)
