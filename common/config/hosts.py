"""Hosts that notifications may go to: ``configs/system/notifications.yml``, maintained by the operator.

Organisations choose the addresses. Without this list, they could make the service call hosts inside its network.
"""

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
    """Host names; a leading dot allows all hosts below the domain."""

    hosts: tuple[str, ...] = ()

    def refusal(self, scheme: str, host: str, port: str | None) -> str:
        """Return the reason why nothing may be sent there; empty if it may."""
        is_local = self.is_here(host)
        domains = [allowed for allowed in self.hosts if allowed.startswith(".")]
        if host not in self.hosts and not any(host.endswith(domain) for domain in domains):
            return f"the operator does not allow notifications to {host}. Allowed: {', '.join(self.hosts) or 'none'}."
        if scheme != "https" and not is_local:
            return "must start with https://."
        if port not in (None, ":443") and not is_local:
            return "must use port 443."
        return ""

    def is_here(self, host: str) -> bool:
        """Whether it is this machine. Only an operator can allow that, by name, for a sandbox."""
        return is_loopback(host) and host in self.hosts


def load_hosts(root: Path) -> AllowedHosts:
    """Read the hosts of the tree ``root``; without a file, none is allowed. Raises InvalidFileError."""
    path = root / HOSTS_FILE
    if not path.exists():
        return AllowedHosts()
    source = read(path, str(root.resolve().name / HOSTS_FILE))
    try:
        return AllowedHosts(HostsFile.model_validate(source.data).allowed_hosts)
    except ValidationError as error:
        findings = findings_of(error, HostsFile)
        raise InvalidFileError(source.problem(location, message) for location, message in findings) from None
