"""Calls of Google's SQL analyzer: ZetaSQL compiled to WebAssembly (PyPI ``zetasql``), inside this process, offline.

Only the wheel's binary and protobuf classes are used. Its own client compiles the module at every start and copies
bytes one by one in Python; its model classes take a second to import.
"""

import ctypes
import re
import threading
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.adapters.googlesql import module_cache
from common.adapters.googlesql.options import language_options
from common.platform.errors import PipelineOpsError

AT = re.compile(r"\s*\[at (?:[^\[\]]*:)?(\d+):(\d+)\]\s*\Z")
CODE = re.compile(r"\ACode: \d+, Message: ")


class SqlError(PipelineOpsError):
    """Google's analyzer refuses the SQL. ``line`` and ``column`` count from 1 in the text that was given."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(f"{line}:{column}: {message}")
        self.message, self.line, self.column = message, line, column


def is_installed() -> bool:
    """Return whether the analyzer is installed. The product runs without it."""
    return find_spec("zetasql") is not None and find_spec("wasmtime") is not None


class Service:
    """One instance of the analyzer. Threads take turns: a WebAssembly instance runs one call at a time."""

    def __init__(self) -> None:
        from wasmtime import Config, Engine

        config = Config()
        config.shared_memory = True  # the module imports threads' memory
        self._engine = Engine(config)
        self._module = module_cache.load(self._engine, _wasm())
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        import tzdata
        from wasmtime import Linker, Store, WasiConfig

        wasi = WasiConfig()
        wasi.inherit_stderr()
        wasi.preopen_dir(str(Path(tzdata.__file__).parent / "zoneinfo"), "/usr/share/zoneinfo")
        self._store = Store(self._engine)
        self._store.set_wasi(wasi)
        linker = Linker(self._engine)
        linker.define_wasi()
        exports: Any = linker.instantiate(self._store, self._module).exports(self._store)
        self._exports = exports
        if "_initialize" in self._exports:
            self._exports["_initialize"](self._store)  # constructors of its C++

    def call(self, method: str, request: Any, response: Any) -> Any:
        """Call a method of the local service. Raises SqlError with what it says."""
        from wasmtime import Trap, WasmtimeError

        with self._lock:
            try:
                return response.FromString(self._called(f"ZetaSqlLocalService_{method}", request.SerializeToString()))
            except (Trap, WasmtimeError) as error:
                self._start()  # after a trap its memory may be in any state
                raise SqlError(f"the analyzer itself failed: {str(error).splitlines()[0]}") from error

    def _called(self, method: str, request: bytes) -> bytes:
        exports, store = self._exports, self._store
        given, size = exports["wasm_malloc"](store, len(request)), exports["wasm_malloc"](store, 4)
        try:
            ctypes.memmove(self._address() + given, request, len(request))
            answer = exports[method](store, given, len(request), size)
            if not answer:
                raise _error(
                    self._read(exports["wasm_get_last_error"](store), exports["wasm_get_last_error_size"](store))
                )
            content = self._read(answer, int.from_bytes(self._read(size, 4), "little"))
            exports["wasm_free"](store, answer)
            return content
        finally:
            exports["wasm_free"](store, given)
            exports["wasm_free"](store, size)

    def _address(self) -> int:
        """Return where the module's memory is now; it moves when it grows."""
        return ctypes.addressof(self._exports["memory"].data_ptr().contents)

    def _read(self, pointer: int, size: int) -> bytes:
        return ctypes.string_at(self._address() + pointer, size)

    def register(self, catalog: Any) -> int:
        """Keep a catalog in the instance and return its number: a statement against it takes a tenth of the time."""
        from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

        request = messages.RegisterCatalogRequest(simple_catalog=catalog)
        return int(self.call("RegisterCatalog", request, messages.RegisterResponse).registered_id)

    def unregister(self, catalog_id: int) -> None:
        """Forget a catalog."""
        from google.protobuf.empty_pb2 import Empty
        from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

        self.call("UnregisterCatalog", messages.UnregisterRequest(registered_id=catalog_id), Empty)

    def parse(self, sql: str) -> Any:
        """Return the parse tree of a script."""
        from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

        request = messages.ParseRequest(sql_statement=sql, allow_script=True, options=language_options())
        return self.call("Parse", request, messages.ParseResponse).parsed_script

    def table_names(self, sql: str) -> list[tuple[str, ...]]:
        """Return the paths of the tables that a script names."""
        from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

        request = messages.ExtractTableNamesFromStatementRequest(
            sql_statement=sql, allow_script=True, options=language_options()
        )
        found = self.call(
            "ExtractTableNamesFromStatement", request, messages.ExtractTableNamesFromStatementResponse
        ).table_name
        return [tuple(name.table_name_segment) for name in found]

    def analyze(self, sql: str, catalog_id: int, options: Any) -> Any:
        """Return the resolved statement."""
        from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

        request = messages.AnalyzeRequest(sql_statement=sql, registered_catalog_id=catalog_id, options=options)
        return self.call("Analyze", request, messages.AnalyzeResponse).resolved_statement

    def evaluate(self, request: Any) -> Any:
        """Run a query with the reference implementation; return rows and columns."""
        from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

        return self.call("EvaluateQuery", request, messages.EvaluateQueryResponse)


@lru_cache(maxsize=1)
def service() -> Service:
    """Return this process's instance. It takes 0.2 s to start, and half a minute if nothing is compiled yet."""
    return Service()


def _wasm() -> Path:
    from zetasql.wasi import get_wasm_path

    return Path(get_wasm_path())


def _error(text: bytes) -> SqlError:
    message = CODE.sub("", text.decode("utf-8", "replace"))
    if (place := AT.search(message)) is None:
        return SqlError(message)
    return SqlError(message[: place.start()], int(place[1]), int(place[2]))
