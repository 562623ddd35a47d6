"""Text that comes from processors and providers, as every store can keep it."""


def storable(text: str) -> str:
    """Return the text with what some store refuses replaced: NUL (PostgreSQL) and lone surrogates (all)."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
