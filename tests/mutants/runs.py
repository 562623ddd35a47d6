"""Runs, steps, writes, messages and files; the limits are in ``quota``."""

from tests.mutants.change import always, argument, cut, never, swap, text
from tests.mutants.mutation import noticed_by

RUNS = (
    *noticed_by(
        "quick",
        ("a lease without margin", "LEASE_MARGIN", argument("seconds=60", "seconds=0")),
        (
            "one attempt too many",
            "_fail_attempt",
            swap("step.attempt >= policy.max_attempts", "step.attempt > policy.max_attempts"),
        ),
        ("retry_on is ignored", "_fail_attempt", always("not policy.retry_on or event.kind in policy.retry_on")),
        ("permanent failures are tried again", "_fail_attempt", always("event.kind is not None")),
        ("a lost start is not sent again", "_on_swept", cut("draft.send(StartRun(run.run_id))")),
        ("the sweep starts nothing", "_sweep_steps", cut("draft.settle((step.step_id,))")),
        ("the sweep does not end runs", "_sweep_steps", cut("draft.settle((RUN_END,))")),
        ("the sweep never looks at a running run", "_on_validated", swap("now + RESEND_AFTER", "None")),
        ("a retried attempt keeps its number", "_fail_attempt", swap("step.attempt + 1", "step.attempt")),
        ("an ended step unlocks nothing", "Draft.end", cut("self.settle(graph.unlocked_by(self.run, step.step_id))")),
        ("an ended run leaves steps open", "Draft._cancel_open", never("not step.status.is_terminal")),
        ("a cancelled run's slot is free before its work has stopped", "Draft.cancel_run", always("not stopping")),
        ("a cancelled run never ends", "_on_stopped", cut("draft.stopped(step)")),
        ("waiting for a rate limit uses up an attempt", "_fail_attempt", never("event.retry_after_s > 0")),
        ("an ended run keeps its slot", "Draft.end_run", cut("self.send(SettleReservation(self.run.run_id, status))")),
        (
            "a slot is freed and counted twice",
            "Draft.end_run",
            swap(
                "self.send(SettleReservation(self.run.run_id, status))",
                "self.send(SettleReservation(self.run.run_id, status)); " * 2,
            ),
        ),
        ("a run ends without asking how it went", "Draft._sees_how_it_went", always("len(last) == 1 and ... and ...")),
        ("a tolerated failure fails the run", "Draft._try_end_run", always("not s.is_tolerated")),
        (
            "a map runs one item too many at once",
            "_item_verdict",
            swap("index - _lanes(parent)", "index - _lanes(parent) - 1"),
        ),
        (
            "the end of an item unlocks the wrong one",
            "unlocked_by",
            swap("base[1] + _lanes(parent)", "base[1] + _lanes(parent) + 1"),
        ),
        (
            "a step that can't start reads as queued",
            "whole",
            swap(
                "verdict(full, step.step_id).kind == 'queue'", "verdict(full, step.step_id).kind in ('queue', 'omit')"
            ),
        ),
        ("Retry-After is ignored", "rest_seconds", swap("max(backoff, asked_s)", "backoff")),
        (
            "messages go out before the commit",
            "Engine._apply",
            swap(
                "self.store.commit(transition)",
                "[self.bus.publish(messages(transition.run, transition.commands)), self.store.commit(transition)][1]",
            ),
        ),
        ("a conflict is not tried again", "Engine._apply", argument("tries=COMMIT_TRIES", "tries=1")),
        (
            "what needs no write is not sent",
            "Engine._apply",
            cut("self.bus.publish(messages(transition.run, transition.commands))"),
        ),
        (
            "what the commit could not tell is not asked",
            "Engine._apply",
            swap("self._tell(transition); self._settle_ready(run_id, transition)", "self._tell(transition)"),
        ),
        (
            "a redelivered result unlocks nothing",
            "Engine.advance",
            cut("self._apply(run_id, StepsEnded(unlocked_by(run, step.step_id)))"),
        ),
        (
            "the owner is not checked before rows are written",
            "Engine.run_step",
            always("self.store.holds(run_id, ours)"),
        ),
        ("the result is not told", "Engine.run_step", cut("self.bus.publish([completed(run_id, ours, result)])")),
        (
            "an attempt is made before its time",
            "Engine.run_step",
            never("step.not_before and self.now() < step.not_before"),
        ),
        ("a pinned config is read again", "Validation.validated", never("if run.specs")),
        ("an attempt without its step writes", "_Attempt._seconds_left", never("not self._still_ours()")),
        ("attempts have no fence", "_on_claimed", argument("'fence': fence", "'fence': 1")),
        (
            "a fence stands still with the clock",
            "_on_claimed",
            swap("max(step.fence + 1, int(now.timestamp() * 1000000))", "int(now.timestamp() * 1000000)"),
        ),
        ("a commit does not say its fence", "Writer._order", argument("fence=staged.fence", "fence=1")),
        ("a commit does not say its rows", "Writer._order", swap("rows or None", "None")),
        ("drift of a step that fails is not kept", "Writer._spool", cut("self._keep_drift(error.drift)")),
        ("messages are delivered before their time", "messages", swap("step.not_before", "None")),
        (
            "messages carry the version before their commit",
            "messages",
            cut("step = replace(step, version=current.version)"),
        ),
        ("the bus ignores not_before", "Delivery.is_early", never("self.message.not_before is not None")),
        ("a message is handed out twice at once", "SqliteBus.pull", swap("now + ACK_DEADLINE", "now")),
        (
            "an acknowledged message comes back",
            "SqliteBus.ack",
            swap("db.execute('DELETE FROM messages WHERE id = ?', row)", "None"),
        ),
        ("messages never die", "SqliteBus.nack", never("delivery.deliveries >= MAX_DELIVERIES")),
        ("nobody is told of dead letters", "SqliteBus._bury", swap("self.enqueue(db, [message])", "()")),
        (
            "a message in hand is delivered by another process too",
            "SqliteBus._store",
            swap("one.published_at + ACK_DEADLINE", "one.published_at"),
        ),
        ("a step begins before its claim is committed", "Batch.write", cut("self.commit()")),
        (
            "the end of a run is told before it is committed",
            "Dispatcher._may_continue",
            always("delivery.message.topic != RUN_FINISHED"),
        ),
        ("a run goes on before others that wait", "Dispatcher._may_continue", never("self._behind")),
        (
            "what only has to be begun again is lost with its transaction",
            "Dispatcher._follow",
            swap("if self._stopping.wait(IDLE_POLL_S): ...", "return"),
        ),
        ("a restart delivers what is not due", "SqliteBus.release", text("deliveries > 0 AND")),
    ),
    *noticed_by(
        "test_run_store test_run_store_steps -k sqlite",
        (
            "a run is stored over a newer one",
            "sql.run_store.UPDATE_RUN",
            text("AND version = :version", "AND version >= :version"),
        ),
        (
            "a step is stored over a newer one",
            "sqlite.dialect.UPDATE_STEP",
            text("AND version = :version", "AND version >= :version"),
        ),
        (
            "the second claim of a step is taken for good",
            "SqliteDialect.write_steps",
            swap(
                "transaction.execute(UPDATE_STEP if step.version else INSERT_STEP, values).rowcount == 0",
                "transaction.execute(UPDATE_STEP if step.version else INSERT_STEP, values).rowcount < 0",
            ),
        ),
        (
            "a step that has changed makes no commit stale",
            "SqlRunStore._write_steps",
            swap(
                "steps and not self._dialect.write_steps(transaction, run.run_id, steps)",
                "steps and self._dialect.write_steps(transaction, run.run_id, steps) is None",
            ),
        ),
        (
            "a commit sends nothing",
            "SqlRunStore._commit.update",
            swap("self._keep(transaction, messages(stored, transition.commands))", "()"),
        ),
        (
            "a step is held whatever happened to it",
            "sql.run_store.HOLDS",
            text("AND version = :version", "AND version >= :version"),
        ),
        ("steps past their deadline are not due", "sql.run_store.DUE", text("deadline <= :now", "FALSE")),
        ("open steps count as ended", "sql.run_store.ENDED", text("AND ended AND", "AND")),
    ),
    *noticed_by(
        "test_commit_fence -k of_two_attempts",
        ("an older attempt replaces newer rows", "FENCED", text("fence > @fence", "FALSE")),
    ),
    *noticed_by(
        "test_commit_fence -k after_its_lease",
        ("a late commit is let in", "WRITE", text("CURRENT_TIMESTAMP() > @not_after", "FALSE")),
    ),
    *noticed_by(
        "test_commit_fence -k reply_was_lost",
        ("a repeated commit writes again", "commit_sql.READ", text("CASE WHEN stamp IS NOT NULL", "CASE WHEN FALSE")),
    ),
    *noticed_by(
        "test_commit_fence -k overlap_in_part",
        (
            "days that overlap in part are not fenced",
            "SAME_DAYS",
            text(
                "first_day <= @last_day AND last_day >= @first_day", "first_day = @first_day AND last_day = @last_day"
            ),
        ),
    ),
    *noticed_by(
        "test_commit_modes -k one_mode",
        ("a table has any mode", "commit_sql.READ", text("WHEN mode != @mode", "WHEN FALSE")),
    ),
    *noticed_by(
        "test_commit_modes -k day_once",
        ("an append is repeated by another run", "APPENDED", text("days_left IS NULL", "FALSE")),
    ),
    *noticed_by(
        "test_commit_modes -k by_half",
        ("days that are in by half are appended", "PARTLY", text("days_left IS NOT NULL AND commits > 0", "FALSE")),
    ),
    *noticed_by(
        "test_commit_modes -k another_organisation",
        ("rows of another organisation are let in", "CHECK", text("foreigners > 0", "FALSE")),
    ),
    *noticed_by(
        "test_commit_modes -k number_of_rows",
        ("staged rows are not counted", "CHECK", text("@spooled >= 0 AND n != @spooled", "FALSE")),
    ),
    *noticed_by(
        "test_commit_modes -k stands_twice",
        ("keys may stand twice", "CHECK", text("doubled > 0", "FALSE")),
    ),
    *noticed_by(
        "test_commit_modes -k is_null",
        ("keys may be NULL", "CHECK", text("null_keys != ''", "FALSE")),
    ),
    *noticed_by(
        "test_commit_modes -k no_rows_fail",
        ("no rows are always right", "CHECK", text("n = 0 AND @on_empty = 'fail'", "FALSE")),
    ),
    *noticed_by(
        "test_commit_modes -k names_the_partitions",
        (
            "a delete looks at every partition",
            "doomed",
            text("x_ingestion_date BETWEEN v_oldest AND v_newest AND {KEY}", "{KEY}"),
        ),
    ),
    *noticed_by(
        "test_commit_rivals -k one_key",
        (
            "commits of one table do not meet",
            "READ",
            text(", fence = fence + 1 WHERE x_run_id IS NULL", " WHERE x_run_id = '-'"),
        ),
    ),
)
