"""Auth layer 2: the keys that models are called with."""

from durable_chat.streams.protocol.secrets import Secret


class ModelKey(Secret):
    """What a provider shows to its model: the site's own key, or a user's for one run."""

    __slots__ = ()
