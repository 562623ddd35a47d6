"""Keeps ZetaSQL's WebAssembly module compiled, so that only the first start pays for compiling it.

Compiling takes half a minute of CPU and 1 GB of memory; loading what was compiled takes milliseconds. The file is
76 MB and lies beside the environment that the package is installed in, so deleting the environment deletes it, too.
"""

import fcntl
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Return the folder of compiled modules: in the environment, or the user's cache where that can't be written."""
    beside = Path(sys.prefix) / "cache" / "googlesql"
    if os.access(sys.prefix, os.W_OK) and sys.prefix != sys.base_prefix:
        return beside
    return Path.home() / ".cache" / "pipeline-ops" / "googlesql"


def load(engine: Any, wasm: Path, folder: Path | None = None, *, compiled: Callable[[], Any] | None = None) -> Any:
    """Return the module, compiled for this machine; compile it only if the folder has none for these versions.

    Of two processes that start at once, one compiles and the other waits for it: both at once would take 2 GB.
    ``compiled`` replaces the compiler in tests.
    """
    from wasmtime import Module

    folder = cache_folder() if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / _name()
    if (found := _loaded(engine, path)) is not None:
        return found
    with (folder / f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the system however the process ends
        if (found := _loaded(engine, path)) is not None:
            return found
        module = Module.from_file(engine, str(wasm)) if compiled is None else compiled()
        _keep(bytes(module.serialize()), path)
        return module


def _name() -> str:
    """Return the file's name: a module compiled by another version, or for another machine, can't be loaded."""
    return f"zetasql-{version('zetasql')}-wasmtime-{version('wasmtime')}-{platform.machine()}.cwasm"


def _loaded(engine: Any, path: Path) -> Any:
    """Return the module of that file, or None if there is none that fits this machine."""
    from wasmtime import Module, WasmtimeError

    if not path.exists():
        return None
    try:
        return Module.deserialize_file(engine, str(path))
    except WasmtimeError:  # compiled for a processor with other features, or cut short: it is made anew
        return None


def _keep(content: bytes, path: Path) -> None:
    """Write the file whole or not at all: a reader does not take the lock."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # for its owner alone: it is machine code
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
