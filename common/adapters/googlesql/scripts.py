"""Walks through a script as BigQuery runs it, and has each statement analysed.

ZetaSQL parses a script whole but analyses single statements. So variables, procedures, what DDL makes and dynamic SQL
are kept here. Every branch is analysed, whatever its condition; values flow on from the branch that would be taken.
Dynamic SQL is put together by the reference implementation from the values that are known, and then analysed with the
types of its arguments; where a value is known only when the script runs, the report says so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from common.adapters.googlesql.catalog import (
    Catalog,
    Columns,
    Procedure,
    Variable,
    analyzer_options,
    catalog_proto,
    dialect_type,
    sql_type,
    unwrap,
)
from common.adapters.googlesql.evaluation import value_of
from common.adapters.googlesql.service import SqlError, service

TRANSACTION_TAKES = ("Query", "Insert", "Update", "Delete", "Merge", "Truncate", "Assert")
"""What BigQuery runs inside a transaction, beside statements of the script itself: no DDL on permanent tables."""


CONTROL = ("IfStatementProto", "BeginEndBlockProto", "ExecuteImmediateStatementProto")


@dataclass(frozen=True, slots=True)
class Problem:
    """What Google's analyzer says about a place of a text. ``dynamic`` is the SQL that was put together there."""

    line: int
    column: int
    message: str
    dynamic: str = ""

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.message}"


@dataclass(frozen=True, slots=True)
class Dynamic:
    """SQL that a script puts together, and its arguments as types and values: by name, or in order."""

    sql: str
    arguments: Mapping[str, tuple[Any, Any]] | Sequence[tuple[Any, Any]] = ()


@dataclass(slots=True)
class Report:
    """The verdict on a script.

    ``dynamic`` is the SQL that it puts together; ``open`` lists where that depends on what only a run knows.
    ``columns`` are those of its last query, and ``made`` those of the tables and views that it makes.
    """

    statements: int = 0
    dynamic: list[Dynamic] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    open: list[tuple[int, int]] = field(default_factory=list)
    columns: Columns = ()
    made: dict[str, Columns] = field(default_factory=dict)


def analyze(
    sql: str,
    catalog: Catalog,
    *,
    parameters: Mapping[str, str] | Sequence[str] | None = None,
    evaluates: bool = True,
) -> Report:
    """Analyse a statement or script.

    ``parameters`` are the types of the query parameters, by name or in order; without them every parameter has the type
    that its place asks for. With ``evaluates`` dynamic SQL is put together and analysed, too.
    """
    walker = _Walker(sql, catalog.copy(), parameters, evaluates)
    try:
        script = service().parse(sql)
    except SqlError as error:
        walker.report.problems.append(Problem(error.line, error.column, error.message))
        return walker.report
    walker.statements(script.statement_list_node)
    walker.end()
    return walker.report


class _Text:
    """A text and where its bytes are: ZetaSQL counts bytes, people count characters."""

    def __init__(self, sql: str) -> None:
        self.bytes = sql.encode()

    def slice(self, start: int, end: int) -> str:
        return self.bytes[start:end].decode()

    def place(self, offset: int) -> tuple[int, int]:
        before = self.bytes[:offset].decode("utf-8", "replace")
        return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1

    def shifted(self, offset: int, line: int, column: int) -> tuple[int, int]:
        """Return the place in the whole of a place in the part that begins at ``offset``."""
        first, at = self.place(offset)
        return (first, max(at + column - 1, 1)) if line == 1 else (first + line - 1, column)


class _Walker:
    def __init__(
        self, sql: str, catalog: Catalog, parameters: Mapping[str, str] | Sequence[str] | None, evaluates: bool
    ) -> None:
        self._text, self._catalog, self._parameters, self._evaluates = _Text(sql), catalog, parameters, evaluates
        self._variables: dict[str, Variable] = {}
        self._in_transaction = False
        self._tables: dict[tuple[str, ...], Columns] = {}
        self._registered: tuple[Any, int] | None = None
        self._block: set[str] = set()  # what the innermost block has declared
        self._skipped = 0  # how many branches that are known not to be taken the walk is in
        self._closed: set[int] = set()
        self._open: set[int] = set()
        self.report = Report()

    # What a script consists of

    def statements(self, node: Any) -> None:
        """Analyse a list of statements; one that is wrong does not keep the next from being looked at."""
        for statement in node.statement_list:
            self.report.statements += 1
            start, _ = _range(_inner(statement))
            with self._problems(start):
                self._statement(statement)

    def end(self) -> None:
        """Say what can be said only at the end."""
        if self._in_transaction:
            self.report.problems.append(
                Problem(*self._text.place(len(self._text.bytes)), "the script ends within a transaction. COMMIT it.")
            )
        self.report.open = [self._text.place(at) for at in sorted(self._open - self._closed)]
        if self._registered is not None:
            service().unregister(self._registered[1])

    def _statement(self, any_statement: Any) -> None:
        node = _inner(any_statement)
        kind = node.DESCRIPTOR.name.removeprefix("AST").removesuffix("Proto").removesuffix("Statement")
        handler: Callable[[Any], None] | None = getattr(self, f"_on_{kind}", None)
        if handler is not None:
            handler(node)
            return
        if self._in_transaction and not kind.startswith(TRANSACTION_TAKES) and not _is_temporary(node):
            raise SqlError("DDL inside a transaction: BigQuery takes only queries and DML there.")
        also = [tuple(name.id_string for name in node.parent.path.names)] if kind.startswith("Alter") else []
        self._effect(self._resolved(self._slice(node), also=also))

    def _on_Begin(self, _: Any) -> None:
        if self._in_transaction:
            raise SqlError("BEGIN TRANSACTION inside a transaction: BigQuery does not nest them.")
        self._in_transaction = True

    def _on_Commit(self, _: Any) -> None:
        if not self._in_transaction:
            raise SqlError("COMMIT TRANSACTION without a transaction.")
        self._in_transaction = False

    def _on_Rollback(self, _: Any) -> None:
        self._in_transaction = False

    def _on_VariableDeclaration(self, node: Any) -> None:
        default = node.default_value if node.HasField("default_value") else None
        kind = sql_type(self._slice(node.type)) if node.HasField("type") else self._type(default)
        names = [name.id_string for name in node.variable_list.identifier_list]
        lower = [name.lower() for name in names]
        twice = [name for name in lower if name in self._block or lower.count(name) > 1]
        outer = dict(self._variables)  # the default does not see the variables that it is for
        for name in names:
            self._declare(Variable(name, kind, _null() if default is None else None))
        if twice:
            raise SqlError(f"variable {twice[0]} is declared twice in one block.")
        if default is not None:
            declared, self._variables = self._variables, outer
            try:
                value = self._assigned(default, kind)
            finally:
                self._variables = declared
            for name in names:
                self._variable(name).value = value

    def _on_SingleAssignment(self, node: Any) -> None:
        variable = self._variable(node.variable.id_string)
        variable.value = self._assigned(node.expression, variable.type)

    def _on_AssignmentFromStruct(self, node: Any) -> None:
        variables = [self._variable(name.id_string) for name in node.variables.identifier_list]
        kind = self._type(node.struct_expression)
        if len(kind.struct_type.field) != len(variables):
            raise SqlError(f"{len(variables)} variables are set from {dialect_type(kind)}.")
        value = self._value(node.struct_expression, kind)
        for number, variable in enumerate(variables):
            part = kind.struct_type.field[number].field_type
            if dialect_type(part) != dialect_type(variable.type):
                self._resolved(f"SELECT CAST(NULL AS {dialect_type(part)})", target=[variable.type])
            variable.value = value.struct_value.field[number] if value and value.HasField("struct_value") else None

    def _on_SystemVariableAssignment(self, node: Any) -> None:
        self._type(node.expression)

    def _on_ParameterAssignment(self, _: Any) -> None:
        raise SqlError("a query parameter can't be set.")

    def _on_If(self, node: Any) -> None:
        branches = [(node.condition, node.then_list)]
        branches += [(part.condition, part.body) for part in node.elseif_clauses.elseif_clauses]
        self._branches(branches, node.else_list if node.HasField("else_list") else None)

    def _on_Case(self, node: Any) -> None:
        clauses = node.when_then_clauses.when_then_clauses
        if node.HasField("expression"):  # compared with each WHEN: analysed as the expression that it stands for
            subject = self._slice(node.expression)
            for clause in clauses:
                self._expression(f"({subject}) = ({self._slice(clause.condition)})", _range(clause.condition)[0])
            self._branches([(None, clause.body) for clause in clauses], node.else_list)
            return
        self._branches([(clause.condition, clause.body) for clause in clauses], node.else_list)

    def _on_While(self, node: Any) -> None:
        if node.HasField("condition"):  # LOOP is a WHILE without one
            self._assigned(node.condition, sql_type("BOOL"))
        self._loop(node.parent.body)

    def _on_Repeat(self, node: Any) -> None:
        self._loop(node.parent.body)
        self._assigned(node.until_clause.condition, sql_type("BOOL"))

    def _on_ForIn(self, node: Any) -> None:
        columns = self._resolved(self._slice(node.query), _range(node.query)[0]).output_column_list
        fields = ", ".join(f"`{column.name}` {dialect_type(column.column.type)}" for column in columns)
        with self._scope():
            self._declare(Variable(node.variable.id_string, sql_type(f"STRUCT<{fields}>")))
            self._loop(node.parent.body)

    def _on_BreakContinue(self, _: Any) -> None:
        """Nothing to resolve: the parser checks labels and loops."""

    _on_Break = _on_Continue = _on_Return = _on_BreakContinue

    def _on_BeginEndBlock(self, node: Any) -> None:
        with self._scope():
            self.statements(node.statement_list_node)
        was_in = self._in_transaction
        for handler in node.handler_list.exception_handler_list:
            with self._scope(), self._untaken():
                self._in_transaction = True  # the handler's ROLLBACK
                self.statements(handler.statement_list)
        self._in_transaction = was_in

    def _on_Raise(self, node: Any) -> None:
        if node.HasField("message"):
            self._assigned(node.message, sql_type("STRING"))

    def _on_CreateProcedure(self, node: Any) -> None:
        entries = node.parameters.parameter_entries
        arguments = tuple((entry.name.id_string, self._slice(entry.type)) for entry in entries)
        path = [name.id_string for name in node.name.names]
        self._catalog.make_procedure(path, Procedure(arguments, node.body))
        evaluates, self._evaluates = self._evaluates, False  # a call knows the arguments, and walks the body again
        try:
            self._body([Variable(name, sql_type(kind)) for name, kind in arguments], node.body)
        finally:
            self._evaluates = evaluates

    def _on_Call(self, node: Any) -> None:
        path = [name.id_string for name in node.procedure_name.names]
        if path[0].upper() == "BQ":
            return  # BigQuery's own procedures
        procedure = self._catalog.procedure(path)
        if procedure is None:
            raise SqlError(f"Procedure not found: {self._catalog.full_name(path)}")
        if len(node.arguments) != len(procedure.arguments):
            raise SqlError(
                f"{path[-1]} takes {len(procedure.arguments)} arguments "
                f"({', '.join(name for name, _ in procedure.arguments)}), here are {len(node.arguments)}."
            )
        given = []
        for argument, (name, kind) in zip(node.arguments, procedure.arguments, strict=True):
            given.append(Variable(name, sql_type(kind), self._assigned(argument.expr, sql_type(kind))))
        if procedure.body is not None:
            self._body(given, procedure.body)

    def _on_ExecuteImmediate(self, node: Any) -> None:
        at, _ = _range(node)
        value = self._assigned(node.sql, sql_type("STRING"))
        types = [self._type(argument.expression) for argument in node.using_clause.arguments]
        values = [self._value(a.expression, t) for a, t in zip(node.using_clause.arguments, types, strict=True)]
        names = [a.alias.identifier.id_string for a in node.using_clause.arguments if a.HasField("alias")]
        pairs = list(zip(types, values, strict=True))
        arguments = dict(zip(names, pairs, strict=True)) if names else pairs
        given = dict(zip(names, types, strict=True)) if names or not types else types
        into = [self._variable(name.id_string) for name in node.into_clause.identifiers.identifier_list]
        for variable in into:
            variable.value = None
        if value is None or not value.HasField("string_value"):
            (self._closed if self._skipped else self._open).add(at)
            return
        self._closed.add(at)
        self.report.dynamic.append(Dynamic(value.string_value, arguments))
        try:
            # Its own frame: variables of the script are not visible in dynamic SQL, only what USING hands over.
            self._dynamic(value.string_value, given, [variable.type for variable in into])
        except SqlError as error:
            self.report.problems.append(self._in_dynamic(at, value.string_value, error))

    def _in_dynamic(self, at: int, sql: str, error: SqlError) -> Problem:
        """Return the problem at the line of the file that the dynamic SQL's line comes from, if that is there."""
        begin, column = self._text.place(at)
        wrong = [*sql.split("\n"), ""][error.line - 1]
        lines = self._text.bytes.decode().split("\n")
        same = [number for number, line in enumerate(lines, 1) if line == wrong and wrong.strip()]
        if len(same) > 1:
            same = [number for number in same if number >= begin]
        if same:
            return Problem(same[0], error.column, error.message, sql)
        where = f"in the SQL that is put together here, line {error.line}, column {error.column}"
        return Problem(begin, column, f"{where}: {error.message}", sql)

    # Parts of statements

    def _branches(self, branches: Sequence[tuple[Any, Any]], otherwise: Any) -> None:
        """Walk every branch; keep what the one leaves behind that is taken as far as conditions are known."""
        decided = doubtful = False
        for condition, body in branches:
            known = None if condition is None else self._assigned(condition, sql_type("BOOL"))
            taken = not decided and known is not None and known.bool_value
            doubtful = doubtful or (known is None and not decided)
            self._branch(body, taken=taken and not doubtful, doubtful=doubtful and not decided)
            decided = decided or taken
        if otherwise is not None:
            self._branch(otherwise, taken=not decided and not doubtful, doubtful=doubtful and not decided)

    def _branch(self, body: Any, *, taken: bool, doubtful: bool) -> None:
        if taken:
            self.statements(body)
            return
        was_in, evaluates = self._in_transaction, self._evaluates
        # Of a branch that is known not to be taken no dynamic SQL is put together: its values would be wrong ones.
        self._evaluates = evaluates and doubtful
        self._skipped += not doubtful
        with self._untaken() as before:
            self.statements(body)
            changed = [variable for variable, value in before if variable.value is not value]
        self._skipped -= not doubtful
        self._in_transaction, self._evaluates = was_in, evaluates
        if doubtful:
            for variable in changed:
                variable.value = None

    def _loop(self, body: Any) -> None:
        """Walk a loop's body once; what it sets depends on how often it runs."""
        with self._untaken() as before:
            self.statements(body)
            changed = [variable for variable, value in before if variable.value is not value]
        for variable in changed:
            variable.value = None

    def _body(self, arguments: Sequence[Variable], body: Any) -> None:
        """Walk a procedure's body, which sees its arguments and no variable of the caller."""
        outer, was_in = self._variables, self._in_transaction
        self._variables, self._in_transaction = {}, False
        try:
            with self._scope():
                for argument in arguments:
                    self._declare(argument)
                self.statements(body.statement_list_node)
        finally:
            self._variables, self._in_transaction = outer, was_in

    def _dynamic(self, sql: str, given: Mapping[str, Any] | Sequence[Any], into: Sequence[Any]) -> None:
        inner = _Walker(sql, self._catalog, None, self._evaluates)
        inner._in_transaction = self._in_transaction
        script = service().parse(sql)
        if len(script.statement_list_node.statement_list) != 1:
            raise SqlError("EXECUTE IMMEDIATE takes exactly one statement.")
        node = _inner(script.statement_list_node.statement_list[0])
        if node.DESCRIPTOR.name in (
            "ASTIfStatementProto",
            "ASTBeginEndBlockProto",
            "ASTExecuteImmediateStatementProto",
        ):
            raise SqlError("EXECUTE IMMEDIATE takes no statement that controls a script.")
        try:
            start, end = _range(node)
            inner._effect(inner._resolved(inner._text.slice(start, end), start, given=given, target=into))
        finally:
            if inner._registered is not None:
                service().unregister(inner._registered[1])

    def _declare(self, variable: Variable) -> None:
        self._variables = {**self._variables, variable.name.lower(): variable}
        self._block.add(variable.name.lower())

    def _variable(self, name: str) -> Variable:
        if (variable := self._variables.get(name.lower())) is None:
            raise SqlError(f"Undeclared variable: {name}")
        return variable

    @contextmanager
    def _scope(self) -> Iterator[None]:
        outer, block = self._variables, self._block
        self._block = set()
        try:
            yield
        finally:
            self._variables, self._block = outer, block

    @contextmanager
    def _untaken(self) -> Iterator[list[tuple[Variable, Any]]]:
        """Walk a block whose effect on variables does not last."""
        before = [(variable, variable.value) for variable in self._variables.values()]
        try:
            yield before
        finally:
            for variable, value in before:
                variable.value = value

    @contextmanager
    def _problems(self, start: int) -> Iterator[None]:
        try:
            yield
        except _PlacedError as error:
            self.report.problems.append(Problem(error.line, error.column, error.message))
        except SqlError as error:
            self.report.problems.append(Problem(*self._text.shifted(start, error.line, error.column), error.message))

    def _slice(self, node: Any) -> str:
        return self._text.slice(*_range(node))

    # Calls of the analyzer

    def _type(self, expression: Any) -> Any:
        """Return the type of an expression."""
        return self._expression(self._slice(expression), _range(expression)[0])

    def _assigned(self, expression: Any, kind: Any) -> Any:
        """Check an expression that is assigned to a type, which coerces more than a CAST-less comparison would."""
        start, _ = _range(expression)
        self._expression(self._slice(expression), start, target=[kind])
        return self._value(expression, kind)

    def _expression(self, sql: str, start: int, target: Sequence[Any] = ()) -> Any:
        lead = "SELECT ("
        try:
            resolved = self._resolved(f"{lead}{sql}\n)", target=target)
        except SqlError as error:
            column = max(error.column - len(lead), 1) if error.line == 1 else error.column
            raise self._elsewhere(error, start, error.line, column) from error
        return resolved.output_column_list[0].column.type

    def _elsewhere(self, error: SqlError, start: int, line: int, column: int) -> SqlError:
        """Return the error with its place made relative to the statement that is being walked."""
        return _PlacedError(error.message, *self._text.shifted(start, line, column))

    def _resolved(
        self,
        sql: str,
        start: int | None = None,
        *,
        given: Mapping[str, Any] | Sequence[Any] | None = None,
        target: Sequence[Any] = (),
        also: Sequence[tuple[str, ...]] = (),
    ) -> Any:
        options = analyzer_options()
        self._add_parameters(options, given)
        options.target_column_types.extend(target)
        try:
            return unwrap(service().analyze(sql, self._catalog_id(sql, also), options))
        except SqlError as error:
            if start is None:
                raise
            raise self._elsewhere(error, start, error.line, error.column) from error

    def _add_parameters(self, options: Any, given: Mapping[str, Any] | Sequence[Any] | None) -> None:
        from zetasql.wasi._pb2.zetasql.public import options_pb2 as public

        if given is None and self._parameters is None:
            options.allow_undeclared_parameters = True
            return
        if given is None and isinstance(self._parameters, Mapping):
            given = {name: sql_type(kind) for name, kind in self._parameters.items()}
        elif given is None:
            given = [sql_type(kind) for kind in self._parameters or ()]
        if isinstance(given, Mapping):
            for name, kind in given.items():
                options.query_parameters.add(name=name, type=kind)
            return
        options.parameter_mode = public.PARAMETER_POSITIONAL
        options.positional_query_parameters.extend(given)

    def _catalog_id(self, sql: str, also: Sequence[tuple[str, ...]]) -> int:
        """Return the number of a catalog with the tables of the statement and the variables in scope."""
        for path in (*service().table_names(sql), *also):
            columns = self._catalog.columns(path)
            if columns is None:
                self._tables.pop(path, None)
            else:
                self._tables[path] = columns
        state = (tuple(self._tables.items()), tuple(self._variables.values()))
        if self._registered is None or self._registered[0] != state:
            if self._registered is not None:
                service().unregister(self._registered[1])
            self._registered = state, service().register(catalog_proto(self._tables, _plain(self._variables.values())))
        return self._registered[1]

    def _value(self, expression: Any, kind: Any) -> Any:
        """Return what an expression yields, or None if that depends on rows or on a value not known."""
        if not self._evaluates:
            return None
        sql = self._slice(expression)
        tables = {}
        for path in service().table_names(f"SELECT ({sql}\n)"):
            columns, rows = self._catalog.columns(path), self._catalog.rows(path)
            if columns is None or rows is None:
                return None
            tables[path] = columns, rows
        return value_of(sql, kind, self._variables.values(), tables)

    def _effect(self, resolved: Any) -> None:
        """Change the catalog as the DDL statement does."""
        kind = resolved.DESCRIPTOR.name
        if kind == "ResolvedQueryStmtProto":
            self.report.columns = tuple((c.name, dialect_type(c.column.type)) for c in resolved.output_column_list)
        if kind in ("ResolvedCreateTableStmtProto", "ResolvedCreateTableAsSelectStmtProto"):
            base = resolved.parent.parent
            columns = tuple((c.name, dialect_type(c.type)) for c in resolved.parent.column_definition_list)
            if not (_enum(base, "create_mode") == "CREATE_IF_NOT_EXISTS" and self._catalog.columns(base.name_path)):
                self._make(base.name_path, columns)
        elif kind == "ResolvedCreateViewStmtProto":
            view = resolved.parent
            columns = tuple((c.name, dialect_type(c.column.type)) for c in view.output_column_list)
            self._make(view.parent.name_path, columns)
        elif kind == "ResolvedDropStmtProto" and resolved.object_type in ("TABLE", "VIEW"):
            if not resolved.is_if_exists and self._catalog.columns(resolved.name_path) is None:
                raise SqlError(f"Table not found: {'.'.join(resolved.name_path)}")
            self._catalog.drop(resolved.name_path)
        elif kind == "ResolvedAlterTableStmtProto":
            self._altered(resolved.parent)

    def _make(self, path: Sequence[str], columns: Columns) -> None:
        self._catalog.make(path, columns)
        self.report.made[self._catalog.full_name(path)] = columns

    def _altered(self, statement: Any) -> None:
        columns = self._catalog.columns(statement.name_path)
        if columns is None:
            if not statement.is_if_exists:
                raise SqlError(f"Table not found: {'.'.join(statement.name_path)}")
            return
        for any_action in statement.alter_action_list:
            action = unwrap(any_action)
            match action.DESCRIPTOR.name:
                case "ResolvedAddColumnActionProto":
                    added = action.column_definition
                    columns = (*columns, (added.name, dialect_type(added.type)))
                case "ResolvedDropColumnActionProto":
                    columns = tuple(c for c in columns if c[0].lower() != action.name.lower())
                case "ResolvedRenameColumnActionProto":
                    columns = tuple(
                        (action.new_name if name.lower() == action.name.lower() else name, kind)
                        for name, kind in columns
                    )
        self._catalog.make(statement.name_path, columns)


class _PlacedError(SqlError):
    """An error whose place is that in the whole text already."""


def _plain(variables: Any) -> list[Variable]:
    """Return the variables without their values, which change while the script is walked."""
    return [Variable(variable.name, variable.type, _null()) for variable in variables]


def _null() -> Any:
    from zetasql.wasi._pb2.zetasql.public.value_pb2 import ValueProto

    return ValueProto()


def _inner(any_statement: Any) -> Any:
    """Return a statement out of its unions; a hint before it changes nothing."""
    node = unwrap(any_statement)
    return _inner(node.statement) if node.DESCRIPTOR.name == "ASTHintedStatementProto" else node


def _range(node: Any) -> tuple[int, int]:
    """Return the bytes of a node of the parse tree."""
    node = unwrap(node)
    while node.DESCRIPTOR.name != "ASTNodeProto":
        node = node.parent
    place = node.parse_location_range
    return place.start, place.end


def _is_temporary(node: Any) -> bool:
    """Return whether DDL makes what only the script sees, which a transaction takes."""
    while node.DESCRIPTOR.name != "ASTCreateStatementProto":
        if "parent" not in node.DESCRIPTOR.fields_by_name:
            return False
        node = node.parent
    return _enum(node, "scope") == "TEMPORARY"


def _enum(node: Any, name: str) -> str:
    """Return the name of an enum's value."""
    return str(node.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number[getattr(node, name)].name)
