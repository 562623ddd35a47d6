"""Text that comes from processors and providers, as every store can keep it."""


def storable(text: str) -> str:
    """Return the text with a mark for what some store refuses: NUL (PostgreSQL), and halves of characters (all)."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
