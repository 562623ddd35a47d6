"""What the analyzer refuses although BigQuery takes it. Each entry has a reason and a statement that shows it."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exemption:
    """A message that is passed over where it concerns SQL that contains ``sql``. ``sample`` still provokes it."""

    sql: str
    message: str
    reason: str
    sample: str

    def covers(self, sql: str, message: str) -> bool:
        """Return whether the message about that SQL is passed over."""
        return re.search(self.message, message) is not None and re.search(self.sql, sql, re.IGNORECASE) is not None


EXEMPT: tuple[Exemption, ...] = ()
"""Empty as long as nothing needs it. A test fails for an entry whose sample the analyzer has come to take."""
