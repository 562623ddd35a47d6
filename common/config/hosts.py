"""Where notifications may go: ``configs/system/notifications.yml``, kept by the operator, not by organisations."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationError

from common.config.problems import InvalidFileError, findings_of
from common.config.providers import is_loopback
from common.config.yaml_source import read
from common.platform.strict import StrictModel

HOSTS_FILE = Path("system") / "notifications.yml"

_HOST = re.compile(r"\.?[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*|::1", re.ASCII)


def _checked_host(host: str) -> str:
    if not _HOST.fullmatch(host) or (host.startswith(".") and "." not in host[1:]):
        raise ValueError("must be a host name in lower case, or .example.com for all hosts below it.")
    return host


class HostsFile(StrictModel):
    """The file."""

    allowed_hosts: tuple[Annotated[str, AfterValidator(_checked_host)], ...]


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """Host names; one that begins with a dot allows all hosts below it."""

    hosts: tuple[str, ...] = ()

    def refusal(self, scheme: str, host: str, port: str | None) -> str:
        """Return why nothing may be sent there, empty if it may."""
        here = self.is_here(host)
        if host not in self.hosts and not any(host.endswith(one) for one in self.hosts if one.startswith(".")):
            return f"the operator does not allow notifications to {host}. Allowed: {', '.join(self.hosts) or 'none'}."
        if scheme != "https" and not here:
            return "must start with https://."
        if port not in (None, ":443") and not here:
            return "must use the usual port."
        return ""

    def is_here(self, host: str) -> bool:
        """Whether it is this machine, which only an operator who names it allows (for a sandbox)."""
        return is_loopback(host) and host in self.hosts


def load_hosts(root: Path) -> AllowedHosts:
    """Read the hosts of the tree ``root``, or raise InvalidFileError. Where there is no file, none is allowed."""
    path = root / HOSTS_FILE
    if not path.exists():
        return AllowedHosts()
    source = read(path, str(root.resolve().name / HOSTS_FILE))
    try:
        return AllowedHosts(HostsFile.model_validate(source.data).allowed_hosts)
    except ValidationError as error:
        findings = findings_of(error, HostsFile)
        raise InvalidFileError(source.problem(location, message) for location, message in findings) from None
