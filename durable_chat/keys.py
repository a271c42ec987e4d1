"""Auth layer 2: the keys that models are called with."""

import re
from collections.abc import Mapping
from typing import Final

from durable_chat.streams.protocol.secrets import Secret

UNNAMED: Final = "x-api-key"
NAMED: Final = re.compile(r"x-byok-([a-z][a-z0-9-]{0,63})")


class ModelKey(Secret):
    """What a provider shows to its model: the site's own key, or a user's for one run."""

    __slots__ = ()


def own_keys(headers: Mapping[str, str]) -> dict[str, ModelKey]:
    """The keys that a user sends along, by the name of the provider that each is for; "" names none.

    `x-api-key` is for whichever model answers, `x-byok-<provider>` (TanStack AI's) for that provider's.
    What is empty or badly named is no key.
    """
    keys: dict[str, ModelKey] = {}
    for name, value in headers.items():
        named = NAMED.fullmatch(name.lower())
        if value and (named or name.lower() == UNNAMED):
            keys[named[1] if named else ""] = ModelKey(value)
    return keys


def key_of(own: Mapping[str, ModelKey], site: ModelKey) -> ModelKey:
    """The key to call a model with that nobody has named.

    The user's if there is one, the site's if the user has brought none, and none at all where it would be a
    guess: a key is not shown to another provider than its own.
    """
    if not own:
        return site
    return own.get("") or (next(iter(own.values())) if len(own) == 1 else ModelKey())
