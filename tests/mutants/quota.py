"""Limits, queues, money and idempotency keys."""

from tests.mutants.change import always, argument, cut, never, swap, text
from tests.mutants.mutation import noticed_by

QUOTA = (
    *noticed_by(
        "quick",
        ("a day or month admits one more", "exceeded", swap("used >= value", "used > value")),
        ("a slot more than there is", "exceeded", swap("live[scope] + ahead >= slots", "live[scope] + ahead > slots")),
        ("a new run goes before those that wait", "exceeded", always("waited")),
        ("whoever waits is kept by those behind it", "exceeded", never("waited")),
        (
            "a narrow slot is not kept for who waits for a wide one",
            "wider",
            swap("SCOPES[SCOPES.index(scope):]", "(scope,)"),
        ),
        (
            "money goes beyond its limit",
            "exceeded",
            swap("to_micro_usd(limits.money_usd)", "2 * to_micro_usd(limits.money_usd)"),
        ),
        ("amounts are rounded down", "to_micro_usd", swap("ROUND_CEILING", "'ROUND_FLOOR'")),
        ("a queue has no end", "queue_full", never("waiting >= QUEUE_LIMIT")),
        ("weights do not count", "next_turn", swap("max(1, TURN // weight)", "TURN")),
        ("turns are saved up", "joining_turn", swap("max(own, ...)", "own")),
        ("the past is held against who waits alone", "joining_turn", swap("max(others, default=0)", "0")),
        ("backfills go first", "Waiting.order", swap("self.backfill", "not self.backfill")),
        ("the youngest goes first", "choose", swap("min", "max")),
        ("a full pipeline keeps its whole organisation waiting", "block", never("limit in ('pipeline', 'money')")),
        ("a run that waits is rejected", "_on_rejected", always("not draft.run.waits_for")),
        ("a run that waited in vain is counted", "Draft.end_run", never("if waited_for")),
        ("an admitted run is not started", "_on_admitted", cut("draft.send(StartRun(run.run_id))")),
        (
            "that a run goes on waiting is told each minute",
            "_on_kept_waiting",
            swap("run.waits_for in ('', event.limit)", "not run.waits_for"),
        ),
        ("a run that waits is given up early", "WAIT_AT_MOST", argument("hours=24", "hours=2")),
        ("half of what a run cost is all of it", "_settle_money", swap("max(cost, run.estimate.usd)", "cost")),
        (
            "calls cost nothing in the end",
            "_settle_money",
            swap("run.estimate.calls_usd + (jobs.usd if jobs else 0)", "jobs.usd if jobs else run.estimate.usd"),
        ),
        ("the end of a run lets nobody in", "Engine._apply", cut("self._admission.release(stored)")),
        ("the sweep lets nobody in", "Engine.sweep", cut("self._admission.release()")),
        ("a slot that came free while a run joined the queue is overlooked", "Admission.admit", cut("self.release()")),
        ("runs wait that did not ask to", "Admission.admit", never("not new.run.request.queue")),
        ("a run waits for a new day from the start", "Admission.admit", never("error.limit not in SCOPES")),
        ("a lapsed subscription runs on", "Admission.limits", never("limits.status not in ADMITTED_STATUSES")),
        (
            "a pipeline has no concurrency",
            "Admission.limits",
            swap("replace(limits, pipeline=self.configs.concurrency(route))", "limits"),
        ),
        ("what keeps a run waiting is not said", "Admission._let_in", cut("self._keep(run, kept)")),
        (
            "one organisation's trouble keeps all waiting",
            "Admission._let_in",
            swap("PipelineOpsError", "ZeroDivisionError"),
        ),
        ("a key is good for any request", "Admission.known", never("run.request.fingerprint != request.fingerprint")),
        ("a repeated request is a new one", "Engine.request_run", cut("if known is not None: ...")),
        (
            "two with one key at the same time are a conflict",
            "Admission._create",
            swap("if known is None: ...", "raise"),
        ),
        ("an end is counted twice", "quota.changes", swap("{outcome.value: 1}", "{outcome.value: 2}")),
        (
            "settled money stays reserved",
            "quota.changes",
            argument("'reserved': -to_micro_usd(estimated)", "'reserved': 0"),
        ),
    ),
    *noticed_by(
        "test_run_store_quota test_quota_rule -k 'sqlite or refused_admission'",
        (
            "an id is made twice",
            "SqlRunStore._insert",
            swap(
                "transaction.execute(INSERT_RUN, values).rowcount == 0",
                "transaction.execute(INSERT_RUN, values).rowcount < 0",
            ),
        ),
        (
            "a run is let in without quota",
            "SqlRunStore._commit.update",
            cut("reservations.hold(transaction, self._dialect, Demand.of(run, waited=True), limits)"),
        ),
        (
            "a refused admission is half done",
            "SqlRunStore._commit",
            swap(
                "transition.header + len(transition.touched) == 1 and limits is None",
                "transition.header + len(transition.touched) == 1",
            ),
        ),
        (
            "a settled reservation stays",
            "reservations.carry_out",
            cut("transaction.execute(FREE_RESERVATION, values)"),
        ),
        (
            "one run more than the plan admits",
            "reservations._reserve",
            text("{taken} < :{scope}", "{taken} <= :{scope}"),
        ),
        (
            "reservations are not extended",
            "reservations.carry_out",
            cut("transaction.execute(EXTEND_RESERVATION, {**values, 'expires_at': dialect.time(expires_at)})"),
        ),
        (
            "ends and costs are not counted",
            "reservations.carry_out",
            cut("transaction.execute(_count(tuple(amounts), len(periods)), {**values, **amounts})"),
        ),
        ("the store lets new runs go before those that wait", "reservations._reserve", always("waited")),
        ("slots whose time is over count as held", "reservations.LIVE", text("AND expires_at > :now")),
        (
            "a late run takes back the slot that another got meanwhile",
            "reservations.DROP_EXPIRED",
            text("expires_at <= :now", "FALSE"),
        ),
        (
            "a late run takes back the deployment's slot that another organisation got meanwhile",
            "reservations.hold",
            swap("DROP_ALL_EXPIRED if all_of_them else DROP_EXPIRED", "DROP_EXPIRED"),
        ),
        ("money is checked and not taken", "reservations._reserve", swap("TAKE_MONEY", "''")),
        ("turns stand still", "reservations.hold", never("if demand.waited")),
        (
            "who left the queue is still in it",
            "reservations.LEAVE_QUEUE",
            text("run_id = :run", "run_id = '-' || :run"),
        ),
    ),
    *noticed_by(
        "test_limits",
        ("organisations share their keys", "run_identity", swap("[org_slug, idempotency_key]", "[idempotency_key]")),
    ),
    *noticed_by(
        "test_dry_run",
        (
            "a lower bound is an estimate",
            "Jobs.dry_run_bytes",
            swap("accuracy in ('PRECISE', 'UPPER_BOUND')", "accuracy"),
        ),
        ("a dry run runs", "Jobs.dry_run_bytes", argument("dry_run=True")),
    ),
    *noticed_by(
        "test_estimate",
        (
            "one silent dry run is free",
            "Estimator._bytes",
            swap("if bytes_read is None: ...", "bytes_read = bytes_read or 0"),
        ),
        ("calls are counted twice", "Estimator.__call__", swap("last_usd - calls_usd", "last_usd")),
    ),
    *noticed_by(
        "test_meta_rows",
        (
            "a failed attempt's jobs are free",
            "jobs_cost",
            always("s.status is StepStatus.SUCCEEDED and s.attempt == 1"),
        ),
    ),
    *noticed_by(
        "test_run_store_quota -k firestore",
        (
            "nobody is ever said to wait, on Firestore",
            "FirestoreQuota.carry_out.note_results",
            swap("nobody", "settles"),
        ),
        (
            "a slot of the deployment is never given back, on Firestore",
            "_deployment_merge",
            cut("shared |= {'reservations': freed, 'extended': freed, 'waiting': _plus(0)}"),
        ),
        (
            "who waits for the deployment is not before a new run, on Firestore",
            "Slots.deployment",
            swap("len(self.queue)", "0"),
        ),
    ),
)
