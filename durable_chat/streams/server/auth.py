"""Who may use the server: bearer tokens, one to write with and one to read with."""

import hmac
from dataclasses import dataclass, field
from typing import Final

from durable_chat.streams.protocol.errors import Forbidden, Unauthorized

_READING: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Access:
    """What admits a request. An empty token admits nobody; ``anonymous`` admits everybody to everything."""

    write_token: str = field(default="", repr=False)
    read_token: str = field(default="", repr=False)
    anonymous: bool = False


def authorize(access: Access, method: str, authorization: str | None) -> None:
    """Raise ``Unauthorized`` or ``Forbidden`` unless this ``Authorization`` header admits this method.

    A preflight carries no token and touches no stream, so OPTIONS is open to all.
    """
    if access.anonymous or method == "OPTIONS":
        return
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip() if scheme.lower() == "bearer" else ""
    if _same(token, access.write_token):
        return
    if not _same(token, access.read_token):
        raise Unauthorized(headers={"www-authenticate": "Bearer"})
    if method not in _READING:
        raise Forbidden


def _same(given: str, wanted: str) -> bool:
    # compare_digest takes as long whatever is given; text is compared as bytes, since it need not be ASCII.
    return bool(wanted) and hmac.compare_digest(given.encode(), wanted.encode())
