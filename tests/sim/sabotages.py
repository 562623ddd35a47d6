# ruff: noqa: E501
"""Sabotages of runs, steps, writes, messages and files; those of quota are in a file of their own."""

from tests.sim.sabotage import Sabotage

CORE = "common/domain/transitions.py"
DRAFT = "common/domain/draft.py"
PLAN = "common/domain/plan.py"
RETRY = "common/domain/retry.py"
ENGINE = "common/runs/engine.py"
VALIDATION = "common/runs/validation.py"
ATTEMPT = "common/runs/attempt.py"
WRITER = "common/writes/writer.py"
COMMIT = "common/adapters/bigquery/commit_sql.py"
TOPICS = "common/runs/topics.py"
STORE = "common/adapters/sqlite/run_store.py"
BUS = "common/adapters/sqlite/bus.py"
DATABASE = "common/adapters/sqlite/database.py"
DISPATCHER = "infra/local/dispatcher.py"


def commit(suite: str, test: str) -> tuple[str, ...]:
    """One test of the commit's script: they all take seconds, because each commits for real."""
    return f"tests/contract/test_commit_{suite}.py", "-k", test


RUNS = (
    Sabotage("an ended run takes events", CORE, "    if run.status.is_terminal:\n", "    if False:\n"),
    Sabotage(
        "a result of any attempt counts",
        CORE,
        "step is None or step.attempt != attempt or step.status",
        "step is None or step.status",
    ),
    Sabotage("a result of an ended step counts", CORE, "attempt or step.status is not StepStatus.RUNNING:", "attempt:"),
    Sabotage("an attempt is claimed twice", CORE, "event.attempt or step.status not in CLAIMABLE:", "event.attempt:"),
    Sabotage("a claim ignores not_before", CORE, "if step.not_before and now < step.not_before:", "if False:"),
    Sabotage(
        "a lease without margin", CORE, "LEASE_MARGIN = timedelta(seconds=60)", "LEASE_MARGIN = timedelta(seconds=0)"
    ),
    Sabotage(
        "max_attempts is ignored", CORE, "if not wanted or step.attempt >= policy.max_attempts:", "if not wanted:"
    ),
    Sabotage("one attempt too many", CORE, "step.attempt >= policy.max_attempts", "step.attempt > policy.max_attempts"),
    Sabotage(
        "retry_on is ignored",
        CORE,
        "bool(event.kind) and (not policy.retry_on or event.kind in policy.retry_on)",
        "bool(event.kind)",
    ),
    Sabotage("permanent failures are tried again", CORE, "wanted = bool(event.kind) and (", "wanted = ("),
    Sabotage("a job is waited for without end", CORE, "    if now >= give_up_at:\n", "    if False:\n"),
    Sabotage(
        "a dead letter of an old attempt ends the step", CORE, "step.attempt == event.attempt and not step", "not step"
    ),
    Sabotage(
        "a lost start is not sent again", CORE, "            draft.send(StartRun(run.run_id))", "            pass"
    ),
    Sabotage(
        "the sweep leaves expired leases",
        CORE,
        "    if step.status is StepStatus.RUNNING:\n        error",
        "    if False:\n        error",
    ),
    Sabotage("the sweep starts nothing", CORE, "            draft.settle((step.step_id,))", "            pass"),
    Sabotage("the sweep does not end runs", CORE, "    draft.settle((RUN_END,))\n", ""),
    Sabotage(
        "the sweep never looks at a running run",
        CORE,
        "        wake_at=now + RESEND_AFTER,\n        expires",
        "        wake_at=None,\n        expires",
    ),
    Sabotage("a retried attempt keeps its number", CORE, "attempt=step.attempt + 1,", "attempt=step.attempt,"),
    Sabotage(
        "an ended step unlocks nothing",
        DRAFT,
        "        self.settle(plan.unlocked_by(self.run, step.step_id))",
        "        pass",
    ),
    Sabotage(
        "a map ends with its first item",
        DRAFT,
        "        is_open, unknown = plan.not_ended(self.run, items)\n        if is_open:\n            return\n        if unknown:\n",
        "        is_open, unknown = plan.not_ended(self.run, items)\n        if False:\n",
    ),
    Sabotage(
        "an ended run leaves steps open",
        DRAFT,
        "            if not step.status.is_terminal:\n                fields",
        "            if False:\n                fields",
    ),
    Sabotage("an ended run keeps its slot", DRAFT, "self.send(SettleReservation(self.run.run_id, status))\n", "pass\n"),
    Sabotage(
        "a slot is freed and counted twice",
        DRAFT,
        "            self.send(SettleReservation(self.run.run_id, status))\n",
        "            self.send(SettleReservation(self.run.run_id, status))\n" * 2,
    ),
    Sabotage(
        "a run ends without asking how it went",
        DRAFT,
        "        return len(last) == 1 and only.status is",
        "        return True or only.status is",
    ),
    Sabotage("a tolerated failure fails the run", DRAFT, " and not s.is_tolerated]", "]"),
    Sabotage("a step starts after a failure", PLAN, "    if lost and not spec.always:", "    if False:"),
    Sabotage(
        "a step is judged while one it depends on is open",
        PLAN,
        '    if is_open:\n        return Verdict("wait")\n    if unknown:\n        return Verdict("ask", unknown=unknown)\n    lost',
        '    if unknown:\n        return Verdict("ask", unknown=unknown)\n    lost',
    ),
    Sabotage(
        "a map runs one item too many at once",
        PLAN,
        "    before = index - _lanes(parent)\n    if",
        "    before = index - _lanes(parent) - 1\n    if",
    ),
    Sabotage(
        "the end of an item unlocks the wrong one",
        PLAN,
        "following = base[1] + _lanes(parent)",
        "following = base[1] + _lanes(parent) + 1",
    ),
    Sabotage(
        "a step that can't start reads as queued",
        PLAN,
        'verdict(full, step.step_id).kind == "queue"',
        'verdict(full, step.step_id).kind in ("queue", "omit")',
    ),
    Sabotage("conditions are ignored", PLAN, "if not parse(spec.condition).holds(_values(run, spec)):", "if False:"),
    Sabotage("Retry-After is ignored", RETRY, "return max(backoff, asked_s) +", "return backoff +"),
    Sabotage(
        "messages go out before the commit",
        ENGINE,
        "            return transition, self.store.commit(transition)",
        "            self.bus.publish(messages(transition.run, transition.commands))\n"
        "            return transition, self.store.commit(transition)",
    ),
    Sabotage(
        "a conflict drops the event",
        ENGINE,
        "on=StaleRunError, backoff=FOR_A_RECORD, tries=COMMIT_TRIES",
        "on=StaleRunError, backoff=FOR_A_RECORD, tries=1",
    ),
    Sabotage(
        "what needs no write is not sent",
        ENGINE,
        "            self.bus.publish(messages(transition.run, transition.commands))\n",
        "",
    ),
    Sabotage(
        "what the commit could not tell is not asked",
        ENGINE,
        "        self._tell(transition)\n        self._ask(run_id, transition)\n",
        "        self._tell(transition)\n",
    ),
    Sabotage(
        "a redelivered result unlocks nothing",
        ENGINE,
        "            self._apply(run_id, StepsEnded(unlocked_by(run, step.step_id)))",
        "            pass",
    ),
    Sabotage(
        "the owner is not checked before rows are written",
        ENGINE,
        "lambda: self.store.holds(run_id, ours)",
        "lambda: True",
    ),
    Sabotage(
        "the result is not told",
        ENGINE,
        "            self.bus.publish([completed(run_id, ours, result)])",
        "            pass",
    ),
    Sabotage(
        "an attempt is made before its time",
        ENGINE,
        "if step.not_before and self.now() < step.not_before:",
        "if False:",
    ),
    Sabotage("a pinned config is read again", VALIDATION, "        if run.specs:  #", "        if False:  #"),
    Sabotage("an attempt without its step writes", ATTEMPT, "        if not self._still_ours():", "        if False:"),
    Sabotage("attempts have no fence", CORE, '"fence": fence,', '"fence": 1,'),
    Sabotage(
        "a fence stands still with the clock",
        CORE,
        "fence = max(step.fence + 1, int(now.timestamp() * 1_000_000))",
        "fence = int(now.timestamp() * 1_000_000)",
    ),
    Sabotage("a commit does not say its fence", WRITER, "fence=step.fence,", "fence=1,"),
    Sabotage("a commit does not say its rows", WRITER, "rows=spooled.rows or None,", "rows=None,"),
    Sabotage(
        "drift of a step that fails is not kept",
        WRITER,
        "            self._keep_drift(error.drift)",
        "            pass",
    ),
    Sabotage(
        "an older attempt replaces newer rows",
        COMMIT,
        "IF outcome IS NULL AND found.fence > @fence THEN",
        "IF FALSE THEN",
        commit("fence", "of_two_attempts"),
    ),
    Sabotage(
        "a late commit is let in",
        COMMIT,
        "IF CURRENT_TIMESTAMP() > @not_after THEN",
        "IF FALSE THEN",
        commit("fence", "after_its_lease"),
    ),
    Sabotage(
        "a repeated commit writes again",
        COMMIT,
        "IF found.stamp IS NOT NULL THEN",
        "IF FALSE THEN",
        commit("fence", "reply_was_lost"),
    ),
    Sabotage(
        "days that overlap in part are not fenced",
        COMMIT,
        "first_day <= @last_day AND last_day >= @first_day",
        "first_day = @first_day AND last_day = @last_day",
        commit("fence", "overlap_in_part"),
    ),
    Sabotage(
        "a table has any mode", COMMIT, "WHEN found.mode != @mode THEN", "WHEN FALSE THEN", commit("modes", "one_mode")
    ),
    Sabotage(
        "an append is repeated by another run",
        COMMIT,
        "IF outcome IS NULL AND days_left IS NULL THEN",
        "IF FALSE THEN",
        commit("modes", "day_once"),
    ),
    Sabotage(
        "days that are in by half are appended",
        COMMIT,
        "IF outcome IS NULL AND found.commits > 0 THEN\n  RAISE",
        "IF FALSE THEN\n  RAISE",
        commit("modes", "by_half"),
    ),
    Sabotage(
        "rows of another organisation are let in",
        COMMIT,
        "WHEN staged.foreigners > 0 THEN",
        "WHEN FALSE THEN",
        commit("modes", "another_organisation"),
    ),
    Sabotage(
        "staged rows are not counted",
        COMMIT,
        "WHEN @spooled >= 0 AND staged.n != @spooled THEN",
        "WHEN FALSE THEN",
        commit("modes", "number_of_rows"),
    ),
    Sabotage(
        "keys may stand twice", COMMIT, "WHEN doubled > 0 THEN", "WHEN FALSE THEN", commit("modes", "stands_twice")
    ),
    Sabotage(
        "keys may be NULL", COMMIT, "WHEN staged.null_keys != '' THEN", "WHEN FALSE THEN", commit("modes", "is_null")
    ),
    Sabotage(
        "no rows are always right",
        COMMIT,
        "WHEN staged.n = 0 AND @on_empty = 'fail' THEN",
        "WHEN FALSE THEN",
        commit("modes", "no_rows_fail"),
    ),
    Sabotage(
        "a delete looks at every partition",
        COMMIT,
        'rows = f"x_ingestion_date BETWEEN v_oldest AND v_newest AND {KEY}',
        'rows = f"{KEY}',
        commit("modes", "names_the_partitions"),
    ),
    Sabotage(
        "commits of one table do not meet",
        COMMIT,
        "SET mode = COALESCE(mode, @mode), fence = fence + 1 WHERE x_run_id IS NULL",
        "SET mode = COALESCE(mode, @mode) WHERE x_run_id = '-'",
        commit("rivals", "one_key"),
    ),
    Sabotage(
        "messages are delivered before their time", TOPICS, "run.run_id, data, step.not_before))", "run.run_id, data))"
    ),
    Sabotage(
        "messages carry the version before their commit",
        TOPICS,
        "                    step = replace(step, version=current.version)",
        "                    pass",
    ),
    Sabotage(
        "a run is stored over a newer one",
        STORE,
        'body = ? WHERE run_id = ? AND version = ?",',
        'body = ? WHERE run_id = ? AND version >= ?",',
    ),
    Sabotage(
        "a step is stored over a newer one",
        STORE,
        '" WHERE run_id = ? AND step_id = ? AND version = ?",',
        '" WHERE run_id = ? AND step_id = ? AND version >= ?",',
    ),
    Sabotage(
        "the second claim of a step is taken for good", STORE, "        if written.rowcount == 0:", "        if False:"
    ),
    Sabotage(
        "a commit sends nothing",
        STORE,
        "            return stored, self._bus.enqueue(db, messages(stored, transition.commands))",
        "            return stored, ()",
    ),
    Sabotage(
        "a step is held whatever happened to it",
        STORE,
        'AND step_id = ? AND version = ?"\n        found',
        'AND step_id = ? AND version >= ?"\n        found',
    ),
    Sabotage(
        "steps past their deadline are not due",
        STORE,
        "FROM steps WHERE deadline <= :now)",
        "FROM steps WHERE deadline < 0)",
    ),
    Sabotage("open steps count as ended", STORE, "AND ended AND step_id IN", "AND step_id IN"),
    Sabotage("the bus ignores not_before", BUS, "not None and self.message.not_before > self.published_at", "None"),
    Sabotage(
        "a message is handed out twice at once",
        BUS,
        "leased = (to_micros(now + ACK_DEADLINE),",
        "leased = (to_micros(now),",
    ),
    Sabotage(
        "an acknowledged message comes back",
        BUS,
        'db.execute("DELETE FROM messages WHERE id = ?", row), fails_first',
        "None, fails_first",
    ),
    Sabotage("messages never die", BUS, "if delivery.deliveries >= MAX_DELIVERIES:", "if False:"),
    Sabotage("nobody is told of dead letters", BUS, "        return self.enqueue(db, [message])", "        return ()"),
    Sabotage(
        "a message in hand is delivered by another process too",
        BUS,
        "one.published_at + ACK_DEADLINE, 1",
        "one.published_at, 1",
    ),
    Sabotage(
        "a step begins before its claim is committed",
        DATABASE,
        "            settle(part.error is None)\n            self.commit()",
        "            settle(part.error is None)",
    ),
    Sabotage(
        "the end of a run is told before it is committed",
        DISPATCHER,
        "return not late and delivery.message.topic != RUN_FINISHED",
        "return not late",
    ),
    Sabotage(
        "a run goes on before others that wait",
        DISPATCHER,
        "late = self._behind or self._stopping.is_set()",
        "late = self._stopping.is_set()",
    ),
    Sabotage(
        "what only has to be begun again is lost with its transaction",
        DISPATCHER,
        "                    if self._stopping.wait(IDLE_POLL_S):\n                        return",
        "                    return",
    ),
    Sabotage("a restart delivers what is not due", BUS, "WHERE deliveries > 0 AND due_at > ?", "WHERE due_at > ?"),
)
