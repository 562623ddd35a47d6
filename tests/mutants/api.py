"""The API: its guard, bodies, errors, logs and history; the embedded stack's server."""

from tests.mutants.change import always, argument, cut, never, swap
from tests.mutants.mutation import noticed_by

API = (
    *noticed_by(
        "test_api_access",
        ("a key opens every organisation", "_enter", never("not caller.opens(org)")),
        (
            "whose organisation it is is not looked at",
            "guard",
            cut("_enter(g.caller, (request.view_args or {}).get('org'))"),
        ),
        ("a scope contains everything", "guard", cut("g.caller.needs(access.scope)")),
        ("what is in no table is let in", "access.guard", swap("raise ForbiddenScopeError(...)", "return")),
        ("a run is shown to whoever knows its id", "find_run", never("run.request.org_slug != path.org")),
    ),
    *noticed_by(
        "test_api_access -k operators_key",
        ("the operator makes organisations", "_enter", cut("engine().plans.limits(org)")),
    ),
    *noticed_by(
        "test_api_errors -k 'not docs'",
        ("of two values of a parameter one counts", "guard", never("if repeated")),
        ("errors of our own are told", "problem", never("kind in (INTERNAL, MISCONFIGURED)")),
        ("a wrong secret is repeated", "problems_of", never("field.annotation is SecretStr")),
        (
            "a request that is no event is repeated",
            "framework._respond",
            never("isinstance(error, BadRequest | UnsupportedMediaType)"),
        ),
    ),
    *noticed_by(
        "test_api_access -k audit",
        (
            "what a key was too small for is not written down",
            "record_audit",
            swap("(*range(200, 400), 403)", "range(200, 400)"),
        ),
    ),
    *noticed_by(
        "test_api_bodies",
        ("of two values of a name the last counts", "_without_duplicates", never("len(members) < len(pairs)")),
        ("a body may be as deep as it likes", "_parsed", never("depth > MAX_DEPTH")),
        ("a body of any type is read", "ApiRequest.strict_json", never("self.mimetype != 'application/json'")),
        (
            "a compressed body is read as it is",
            "ApiRequest.strict_json",
            never("self.headers.get('Content-Encoding', 'identity') != 'identity'"),
        ),
        ("the first part of a stream counts for all", "_read", never("len(body) > most")),
        ("a day may be a number", "_written_as_a_day", never("value is not None")),
    ),
    *noticed_by(
        "test_api_logs test_follow",
        ("there is no end of streams", "Slots.acquire", never("not self._free.acquire(blocking=False)")),
        ("a stream keeps its slot", "Slot.release", cut("free.release()")),
        ("a download is made before it is sent", "in_chunks", never("len(chunk) >= CHUNK_BYTES")),
        ("a follower is never sent away", "_events", never("time.monotonic() >= until")),
        ("a follower starts anew each time", "Following.news", never("line.place")),
        ("transitions are told again", "Following.news", swap("index + 1", "index")),
        (
            "the end is told before the last lines can be there",
            "Following.news",
            always("run.ended_at + self._settles <= now"),
        ),
        ("a late line is passed by", "Following.news", always("is_over or not self._settles")),
    ),
    *noticed_by(
        "test_run_logs -k sqlite",
        ("a log has one page", "SqlLogs._pages", always("len(rows) < PAGE")),
    ),
    *noticed_by(
        "test_run_store -k 'sqlite and history or sqlite and filter'",
        ("history begins with the first run", "history.page", never("query.since is not None")),
        (
            "history ends with the last run",
            "history.page",
            swap("[] if query.before is None else [(query.before, '')]", "[]"),
        ),
    ),
    *noticed_by(
        "test_history_pages",
        ("rare runs are looked for among all", "SqliteDialect.runs_for", cut("index, condition = ..., ENDED")),
    ),
    *noticed_by(
        "test_runs -k no_message",
        ("a crash of a function is taken for a wrong request", "framework._respond", never("has_entered()")),
    ),
    *noticed_by(
        "test_api_reading",
        (
            "a preview that wrote nothing is committed",
            "Previews.promote",
            swap("warehouse.commit_all(...) if commits else ()", "warehouse.commit_all(commits, logger.info)"),
        ),
    ),
    *noticed_by(
        "test_web_server",
        ("a slow request is waited for", "WebServer.maintenance", cut("channel.refuse()")),
        ("an answer that nobody takes keeps its thread", "WebServer.maintenance", cut("channel.handle_close()")),
        ("a body of any size is taken in", "WebServer.__init__", argument("max_request_body_size=MAX_BODY_BYTES")),
    ),
)
