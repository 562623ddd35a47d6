"""Sabotages of limits, queues, money and keys."""

from tests.sim.sabotage import Sabotage

CORE = "common/domain/transitions.py"
DRAFT = "common/domain/draft.py"
DOMAIN = "common/domain/admission.py"
LIMITS = "common/domain/quota.py"
QUEUEING = "common/domain/queueing.py"
ENGINE = "common/runs/engine.py"
ADMISSION = "common/runs/admit.py"
REQUEST = "common/runs/request.py"
ESTIMATE = "common/runs/estimate.py"
ROWS = "common/meta/rows.py"
JOBS = "common/adapters/bigquery/jobs.py"
STORE = "common/adapters/sqlite/run_store.py"
SQLITE = "common/adapters/sqlite/quota.py"
FIRESTORE = "common/adapters/google/firestore_quota.py"
ON_FIRESTORE = ("tests/contract/test_run_store_quota.py", "-k", "firestore")

QUOTA = (
    Sabotage("a day or month admits one more", LIMITS, "if used >= value:", "if used > value:"),
    Sabotage("a slot more than there is", LIMITS, "live[scope] + ahead >= slots:", "live[scope] + ahead > slots:"),
    Sabotage(
        "a new run goes before those that wait",
        LIMITS,
        "0 if waited else usage.ahead.get",
        "0 if True else usage.ahead.get",
    ),
    Sabotage(
        "whoever waits is kept by those behind it",
        LIMITS,
        "0 if waited else usage.ahead.get",
        "0 if False else usage.ahead.get",
    ),
    Sabotage(
        "a narrow slot is not kept for who waits for a wide one",
        LIMITS,
        "return SCOPES[SCOPES.index(scope) :]",
        "return (scope,)",
    ),
    Sabotage(
        "money goes beyond its limit",
        LIMITS,
        "> to_micro_usd(limits.money_usd):",
        "> 2 * to_micro_usd(limits.money_usd):",
    ),
    Sabotage("amounts are rounded down", LIMITS, "ROUND_CEILING)", '"ROUND_FLOOR")'),
    Sabotage("a queue has no end", LIMITS, "if waiting >= QUEUE_LIMIT else None", "if False else None"),
    Sabotage("weights do not count", QUEUEING, "max(1, TURN // weight)", "TURN"),
    Sabotage(
        "turns are saved up",
        QUEUEING,
        "return max(own, min(waiting) if waiting else max(others, default=0))",
        "return own",
    ),
    Sabotage("the past is held against who waits alone", QUEUEING, "else max(others, default=0))", "else 0)"),
    Sabotage(
        "backfills go first", QUEUEING, "return self.backfill, self.since", "return not self.backfill, self.since"
    ),
    Sabotage("the youngest goes first", QUEUEING, "first = min(free,", "first = max(free,"),
    Sabotage(
        "a full pipeline keeps its whole organisation waiting",
        QUEUEING,
        'if limit in ("pipeline", "money") else',
        "if False else",
    ),
    Sabotage(
        "a run that waits is started",
        CORE,
        "is not RunStatus.PENDING or draft.run.waits_for:",
        "is not RunStatus.PENDING:",
    ),
    Sabotage(
        "a run that waits is rejected",
        CORE,
        "is RunStatus.PENDING and not draft.run.waits_for:",
        "is RunStatus.PENDING:",
    ),
    Sabotage("a run that waited in vain is counted", DRAFT, "        if waited_for:\n", "        if False:\n"),
    Sabotage(
        "a run is admitted twice", DOMAIN, "    if not run.waits_for:\n        return\n    seconds", "    seconds"
    ),
    Sabotage("an admitted run is not started", DOMAIN, "    draft.send(StartRun(run.run_id))\n", ""),
    Sabotage(
        "that a run goes on waiting is told each minute",
        DOMAIN,
        'if run.waits_for in ("", event.limit):',
        "if not run.waits_for:",
    ),
    Sabotage(
        "a run that waits is given up early", "common/domain/queueing.py", "timedelta(hours=24)", "timedelta(hours=2)"
    ),
    Sabotage(
        "half of what a run cost is all of it",
        DOMAIN,
        "        cost, said = max(cost, run.estimate.usd),",
        "        cost, said = cost,",
    ),
    Sabotage(
        "a run that was never let in costs money",
        DOMAIN,
        "run.estimate is None or run.admitted_at is None:",
        "run.estimate is None:",
    ),
    Sabotage(
        "calls cost nothing in the end",
        DOMAIN,
        "cost = run.estimate.calls_usd + (jobs.usd if jobs else 0)",
        "cost = jobs.usd if jobs else run.estimate.usd",
    ),
    Sabotage(
        "the end of a run lets nobody in",
        ENGINE,
        "            self._admission.release(stored)",
        "            pass",
    ),
    Sabotage(
        "the sweep lets nobody in",
        ENGINE,
        "        self._admission.release()\n        return swept",
        "        return swept",
    ),
    Sabotage(
        "a slot that came free while a run joined the queue is overlooked",
        ADMISSION,
        "        self.release()\n        return",
        "        return",
    ),
    Sabotage("runs wait that did not ask to", ADMISSION, "if not new.run.request.queue or error", "if error"),
    Sabotage("a run waits for a new day from the start", ADMISSION, " or error.limit not in SCOPES:", ":"),
    Sabotage("a lapsed subscription runs on", ADMISSION, "if limits.status not in ADMITTED_STATUSES:", "if False:"),
    Sabotage(
        "a pipeline has no concurrency",
        ADMISSION,
        "return replace(limits, pipeline=self.configs.concurrency(route))",
        "return limits",
    ),
    Sabotage("what keeps a run waiting is not said", ADMISSION, "        self._keep(run, kept)\n", ""),
    Sabotage(
        "one organisation's trouble keeps all waiting",
        ADMISSION,
        "        except PipelineOpsError as error:\n            # Its",
        "        except ZeroDivisionError as error:\n            # Its",
    ),
    Sabotage(
        "a key is good for any request", ADMISSION, "if run.request.fingerprint != request.fingerprint:", "if False:"
    ),
    Sabotage(
        "a repeated request is a new one",
        ENGINE,
        "        if known is not None:\n            return known\n        self.configs",
        "        self.configs",
    ),
    Sabotage(
        "two with one key at the same time are a conflict",
        ADMISSION,
        "            if known is None:\n                raise\n",
        "            raise\n",
    ),
    Sabotage(
        "organisations share their keys",
        REQUEST,
        "_digest([org_slug, idempotency_key])",
        "_digest([idempotency_key])",
        ("tests/functions/test_limits.py",),
    ),
    Sabotage(
        "a lower bound is an estimate",
        JOBS,
        'accuracy in ("PRECISE", "UPPER_BOUND")',
        "accuracy",
        ("tests/unit/test_dry_run.py",),
    ),
    Sabotage(
        "a dry run runs",
        JOBS,
        "dry_run=True, use_query_cache=False",
        "use_query_cache=False",
        ("tests/unit/test_dry_run.py",),
    ),
    Sabotage(
        "one silent dry run is free",
        ESTIMATE,
        "            if found is None:\n                return None\n",
        "            found = found or 0\n",
        ("tests/unit/test_estimate.py",),
    ),
    Sabotage(
        "calls are counted twice",
        ESTIMATE,
        "max(last_usd - calls_usd, floor)",
        "max(last_usd, floor)",
        ("tests/unit/test_estimate.py",),
    ),
    Sabotage(
        "a failed attempt's jobs are free",
        ROWS,
        "s.status is StepStatus.SUCCEEDED and s.attempt == 1 for",
        "True for",
        ("tests/unit/test_meta_rows.py",),
    ),
    Sabotage("an id is made twice", STORE, "            if added.rowcount == 0:", "            if False:"),
    Sabotage(
        "a run is let in without quota",
        STORE,
        "                quota.hold(db, run, limits, waited=True)",
        "                pass",
    ),
    Sabotage("a refused admission is half done", STORE, "== 1 and limits is None\n", "== 1\n"),
    Sabotage(
        "a settled reservation stays",
        SQLITE,
        'db.execute("DELETE FROM reservations WHERE org_slug = ? AND run_id = ?", slot)',
        "pass",
    ),
    Sabotage(
        "one run more than the plan admits", SQLITE, '"  AND {taken} < :{scope}\\n"', '"  AND {taken} <= :{scope}\\n"'
    ),
    Sabotage(
        "reservations are not extended",
        SQLITE,
        'db.execute("UPDATE reservations SET expires_at = ? WHERE org_slug = ? AND run_id = ?", slot)',
        "pass",
    ),
    Sabotage("an end is counted twice", SQLITE, "{outcome} = {outcome} + 1", "{outcome} = {outcome} + 2"),
    Sabotage(
        "the store lets new runs go before those that wait",
        SQLITE,
        "taken = LIVE[scope] if waited else",
        "taken = LIVE[scope] if True else",
    ),
    Sabotage(
        "stale reservations of others hold the deployment's slots",
        SQLITE,
        '("TRUE", ()) if limits.global_concurrent is not None',
        '("TRUE", ()) if False',
    ),
    Sabotage(
        "stale reservations stay",
        SQLITE,
        "DELETE FROM reservations WHERE expires_at <= ? AND",
        "DELETE FROM reservations WHERE expires_at <= 0 * ? AND",
    ),
    Sabotage("money is checked and not taken", SQLITE, "take=TAKE_MONEY if money else", 'take="" if money else'),
    Sabotage(
        "settled money stays reserved",
        SQLITE,
        "SET reserved = reserved - ?, spent",
        "SET reserved = reserved - 0 * ?, spent",
    ),
    Sabotage(
        "turns stand still",
        SQLITE,
        "    if waited:\n        turn = next_turn",
        "    if False:\n        turn = next_turn",
    ),
    Sabotage(
        "who left the queue is still in it",
        SQLITE,
        "DELETE FROM waiting WHERE org_slug = ? AND run_id = ?",
        "DELETE FROM waiting WHERE org_slug = ? AND run_id = '-' || ?",
    ),
    Sabotage(
        "nobody is ever said to wait, on Firestore",
        FIRESTORE,
        'run.run_id if nobody else ""',
        'run.run_id if settles else ""',
        ON_FIRESTORE,
    ),
    Sabotage(
        "a slot of the deployment is never given back, on Firestore",
        FIRESTORE,
        "shared = freed if run.global_slot else {}",
        "shared = {}",
        ON_FIRESTORE,
    ),
    Sabotage(
        "who waits for the deployment is not before a new run, on Firestore",
        FIRESTORE,
        '"global": len(slots.queue),',
        '"global": 0,',
        ON_FIRESTORE,
    ),
)
