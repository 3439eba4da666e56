"""Who may ask: this machine alone, or whoever has the token.

A page of any site can make the browser send requests to 127.0.0.1, and by DNS rebinding even read
the answers. Against the first, a request that names another origin is refused; against the
second, one whose Host is not a name of this server, for the rebound name is the attacker's.
"""

import hmac
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlx_yoda.errors import UserError
from mlx_yoda.serve.refusal import Refusal

_SHORTEST = 16  # characters of a token
_LOCAL = "localhost"


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        host: the name or address that the server was told to listen at.
        token: what a request must bear, or None where nobody but this machine can ask.
    """

    host: str
    token: str | None

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise UserError(f"{self.host} is open to other machines: that needs a token.")
        if self.token is not None and (len(self.token) < _SHORTEST or not self.token.isascii()):
            raise UserError(f"a token needs at least {_SHORTEST} characters, all of them ASCII.")

    def check_origin(self, host: str | None, origin: str | None) -> None:
        """Let nobody in who came by another name, or from another site's page.

        Args:
            host: the request's Host.
            origin: its Origin, or None; only browsers send it.

        Raises:
            Refusal: 403.
        """
        if not self._is_ours(_hostname(f"//{host or ''}")):
            raise Refusal(403, f"This server is not called {host}; ask for it by its address.")
        if origin is not None and _netloc(origin) != host:
            raise Refusal(403, "Other sites' pages may not ask this server.")

    def check_token(self, authorization: str | None) -> None:
        """Let nobody in without the token, if there is one.

        Raises:
            Refusal: 401.
        """
        if self.token is None:
            return
        scheme, _, given = (authorization or "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self.token.encode())
        if scheme.lower() != "bearer" or not same:
            message = "The token is missing or wrong; send it as 'Authorization: Bearer TOKEN'."
            raise Refusal(401, message, code="invalid_api_key")

    def _is_ours(self, name: str | None) -> bool:
        if name is None:
            return False
        if is_loopback(self.host):
            return is_loopback(name)
        own = socket.gethostname().lower().removesuffix(".local")
        return name in {self.host.lower(), _LOCAL, own, f"{own}.local"} or _is_address(name)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, out of others' reach."""
    return host == _LOCAL or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _netloc(url: str) -> str | None:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
