"""Which host names and web pages may reach the server: what stops DNS rebinding and requests forged by other pages."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from bimo.serve.errors import ApiError

LOOPBACK = "localhost"


class Hosts:
    """The rule.

    Args:
        names: host names besides ``localhost``; any IP address is right, since rebinding needs a name.
        origins: web pages' origins, such as ``https://example.org``, that browsers may let in; ``*`` for any.
    """

    def __init__(self, names: Collection[str] = (), origins: Collection[str] = ()) -> None:
        self._names = {LOOPBACK, *(name.lower().rstrip(".") for name in names)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    def check(self, host: str | None, origin: str | None, site: str | None) -> None:
        """Check the headers ``Host``, ``Origin`` and ``Sec-Fetch-Site``.

        Raises:
            ApiError: 400 or 403.
        """
        if not host:
            raise ApiError(400, "The request has no Host header.", code="missing_host")
        if not self._known(host):
            message = "This server is not known under the name in the Host header; start it with --allowed-host NAME."
            raise ApiError(403, message, code="host_not_allowed")
        foreign = site == "cross-site" if origin is None else not self._same(origin, host)
        if foreign and not self.allows(origin):
            message = "Other web pages may not use this server; start it with --cors ORIGIN to let one in."
            raise ApiError(403, message, code="origin_not_allowed")

    def allows(self, origin: str | None) -> bool:
        """Whether a page of this origin was let in by name."""
        return "*" in self._origins or (origin or "").lower() in self._origins

    def _known(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname or "", parts.port
        except ValueError:
            return False
        if parts.path or parts.query or parts.fragment or "@" in host:
            return False
        return name.rstrip(".") in self._names or _is_address(name)

    def _same(self, origin: str, host: str) -> bool:
        scheme, found, rest = origin.lower().partition("://")
        return bool(found) and scheme in ("http", "https") and rest == host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to ``host``."""
    try:
        return host == LOOPBACK or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
