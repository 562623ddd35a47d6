# ruff: noqa: E501
"""One-line sabotages of the API: its guard, its bodies, its errors, logs and history, the embedded stack's server."""

from tests.sim.sabotage import Sabotage

ACCESS = "functions/api/access.py"
ENTRY = "functions/api/__init__.py"
INPUTS = "functions/api/inputs.py"
API_RUNS = "functions/api/runs.py"
API_LOGS = "functions/api/logs.py"
STREAMS = "functions/api/streams.py"
FRAMEWORK = "functions/framework.py"
PROBLEMS = "common/platform/problems.py"
REQUEST = "common/runs/request.py"
FOLLOW = "common/runs/follow.py"
SQLITE_LOGS = "common/adapters/sqlite/logs.py"
HISTORY = "common/adapters/sqlite/history.py"
PREVIEWS = "common/runs/previews.py"
WEB = "infra/local/web.py"

OF_ACCESS = ("tests/functions/test_api_access.py",)
OF_ERRORS = ("tests/functions/test_api_errors.py", "-k", "not docs")
OF_BODIES = ("tests/functions/test_api_bodies.py",)
OF_LOGS = ("tests/functions/test_api_logs.py", "tests/unit/test_follow.py")
OF_SERVER = ("tests/functions/test_web_server.py",)
OF_HISTORY = ("tests/contract/test_run_store.py", "-k", "sqlite and history or sqlite and filter")

API = (
    Sabotage("a key opens every organisation", ACCESS, "or not caller.opens(org)", "or False", OF_ACCESS),
    Sabotage(
        "whose organisation it is is not looked at",
        ACCESS,
        '        _enter(g.caller, (request.view_args or {}).get("org"))\n',
        "",
        OF_ACCESS,
    ),
    Sabotage("a scope contains everything", ACCESS, "        g.caller.needs(access.scope)\n", "", OF_ACCESS),
    Sabotage(
        "what is in no table is let in",
        ACCESS,
        '        raise ForbiddenScopeError("No scope contains this operation: it is in no table of what may be done.")\n',
        "        return\n",
        OF_ACCESS,
    ),
    Sabotage(
        "the operator makes organisations",
        ACCESS,
        "        engine().plans.limits(org)  # an",
        "        pass  # an",
        (*OF_ACCESS, "-k", "operators_key"),
    ),
    Sabotage("of two values of a parameter one counts", ACCESS, "    if twice:\n", "    if False:\n", OF_ERRORS),
    Sabotage(
        "what a key was too small for is not written down",
        ACCESS,
        "(*range(200, 400), 403)",
        "range(200, 400)",
        (*OF_ACCESS, "-k", "audit"),
    ),
    Sabotage(
        "a run is shown to whoever knows its id",
        API_RUNS,
        "    if run.request.org_slug != path.org:\n",
        "    if False:\n",
        OF_ACCESS,
    ),
    Sabotage(
        "errors of our own are told",
        PROBLEMS,
        "    if kind in (INTERNAL, MISCONFIGURED):\n",
        "    if False:\n",
        OF_ERRORS,
    ),
    Sabotage("a wrong secret is repeated", REQUEST, "field.annotation is SecretStr", "False", OF_ERRORS),
    Sabotage(
        "of two values of a name the last counts",
        INPUTS,
        "    if len(found) < len(pairs):\n",
        "    if False:\n",
        OF_BODIES,
    ),
    Sabotage("a body may be as deep as it likes", INPUTS, "depth > MAX_DEPTH for", "False for", OF_BODIES),
    Sabotage("a body of any type is read", INPUTS, 'self.mimetype != "application/json" or', "False or", OF_BODIES),
    Sabotage(
        "a compressed body is read as it is",
        INPUTS,
        'if self.headers.get("Content-Encoding", "identity") != "identity":',
        "if False:",
        OF_BODIES,
    ),
    Sabotage(
        "the first part of a stream counts for all", ENTRY, "    if len(body) > most:\n", "    if False:\n", OF_BODIES
    ),
    Sabotage(
        "a day may be a number",
        REQUEST,
        "if value is not None and not (isinstance",
        "if False and not (isinstance",
        OF_BODIES,
    ),
    Sabotage("there is no end of streams", STREAMS, "if not self._free.acquire(blocking=False):", "if False:", OF_LOGS),
    Sabotage("a stream keeps its slot", STREAMS, "            free.release()\n", "            pass\n", OF_LOGS),
    Sabotage(
        "a download is made before it is sent",
        STREAMS,
        "        if len(piece) >= PIECE_BYTES:\n",
        "        if False:\n",
        OF_LOGS,
    ),
    Sabotage(
        "a follower is never sent away",
        API_LOGS,
        "        if time.monotonic() >= until:\n",
        "        if False:\n",
        OF_LOGS,
    ),
    Sabotage(
        "a follower starts anew each time",
        FOLLOW,
        "line=line.place or self.place.line",
        "line=self.place.line",
        OF_LOGS,
    ),
    Sabotage("transitions are told again", FOLLOW, "index + 1", "index", OF_LOGS),
    Sabotage(
        "the end is told before the last lines can be there",
        FOLLOW,
        "run.ended_at is not None and run.ended_at + self._settles <= now",
        "run.ended_at is not None",
        OF_LOGS,
    ),
    Sabotage("a late line is passed by", FOLLOW, "is_over or not self._settles else", "True else", OF_LOGS),
    Sabotage(
        "a log has one page",
        SQLITE_LOGS,
        "            if len(rows) < PAGE:\n",
        "            if True:\n",
        ("tests/contract/test_run_logs.py", "-k", "sqlite"),
    ),
    Sabotage(
        "history begins with the first run", HISTORY, "    if since is not None:\n", "    if False:\n", OF_HISTORY
    ),
    Sabotage(
        "history ends with the last run",
        HISTORY,
        'first = (LATEST if before is None else to_micros(before), "")',
        'first = (LATEST, "")',
        OF_HISTORY,
    ),
    Sabotage(
        "rare runs are looked for among all",
        HISTORY,
        'index, more = "runs_by_end" if route is None else "runs_by_route_and_end", f"{more} AND {ENDED}"',
        "pass",
        ("tests/unit/test_sqlite_history.py",),
    ),
    Sabotage(
        "a crash of a function is taken for a wrong request",
        FRAMEWORK,
        '        if g.get("entered"):\n',
        "        if False:\n",
        ("tests/functions/test_runs.py", "-k", "no_message"),
    ),
    Sabotage(
        "a request that is no event is repeated",
        FRAMEWORK,
        "    elif isinstance(error, BadRequest):\n",
        "    elif False:\n",
        OF_ERRORS,
    ),
    Sabotage(
        "a preview that wrote nothing is committed",
        PREVIEWS,
        "warehouse.commit_all(commits, logger.info) if commits else ()",
        "warehouse.commit_all(commits, logger.info)",
        ("tests/functions/test_api_reading.py",),
    ),
    Sabotage(
        "a slow request is waited for", WEB, "                channel.refuse()\n", "                pass\n", OF_SERVER
    ),
    Sabotage(
        "an answer that nobody takes keeps its thread",
        WEB,
        "                channel.handle_close()\n",
        "                pass\n",
        OF_SERVER,
    ),
    Sabotage(
        "a body of any size is taken in", WEB, "            max_request_body_size=MAX_BODY_BYTES,\n", "", OF_SERVER
    ),
)
