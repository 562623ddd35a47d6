"""The PostgreSQL adapters, and the cache of the plans."""

from tests.mutants.change import always, argument, cut, never, swap, text
from tests.mutants.mutation import noticed_by

POSTGRES = (
    *noticed_by(
        "test_postgres -k takes_the_last_slot",
        ("reservations are counted before others have taken theirs", "LOCK_TURNS", text("FOR UPDATE")),
        (
            "organisations take the deployment's last slot together",
            "hold",
            swap("(DEPLOYMENT, org) if all_of_them else (org,)", "(org,)"),
        ),
    ),
    *noticed_by(
        "test_postgres -k does_not_wait_for_another",
        (
            "organisations wait for each other",
            "hold",
            swap("(DEPLOYMENT, org) if all_of_them else (org,)", "(DEPLOYMENT, org)"),
        ),
    ),
    *noticed_by(
        "test_postgres -k who_is_refused",
        (
            "who is refused waits for the lock",
            "reservations.hold",
            never("dialect.REFUSES_EARLY and not demand.waited"),
        ),
    ),
    *noticed_by(
        "test_postgres -k answer_was_lost",
        (
            "a commit whose answer was lost is made again",
            "Postgres._once",
            always("not self._was_committed(unsure.xid)"),
        ),
        ("a commit that was never made counts as made", "Postgres._once", never("not self._was_committed(unsure.xid)")),
    ),
    *noticed_by(
        "test_postgres -k stays",
        (
            "a setting outlives its transaction",
            "postgres.client.SETTINGS",
            text("SET LOCAL lock_timeout", "SET lock_timeout"),
        ),
        ("statements are prepared", "connect_args", argument("'prepare_threshold': None", "'prepare_threshold': 5")),
    ),
    *noticed_by(
        "test_run_store_steps -k postgres",
        (
            "a step on PostgreSQL is written over whatever happened to it",
            "UPDATE_STEPS",
            text("AND old.version = new.version"),
        ),
        (
            "the second claim of a step on PostgreSQL is taken for good",
            "PostgresDialect.write_steps",
            swap(
                "some and transaction.execute(statement, values).rowcount < len(some)",
                "some and transaction.execute(statement, values).rowcount < 0",
            ),
        ),
    ),
    *noticed_by(
        "test_cached_plans",
        (
            "a source that is away is asked with every request",
            "CachedPlans.limits",
            always("not self._is_backing_off(now)"),
        ),
        ("every thread asks the source", "CachedPlans.limits", always("reading is None")),
        ("an organisation that is gone goes on", "CachedPlans._read", cut("self._known.pop(org_slug, None)")),
    ),
)
