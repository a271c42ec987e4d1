"""`application = mount(get_asgi_application())`: the chat beside Django, under ASGI."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_chat.authentication import Authenticate
    from durable_chat.mounted import Mounted


def mount(
    django_application: Any,
    *,
    root: str = "/v1/stream/",
    authenticate: "Authenticate | str | None" = None,
) -> "Mounted":
    """The site's ASGI application.

    Reads of conversations, WebSockets and the streams below `root` are answered without Django's middleware
    and without a thread each; everything else goes to `django_application`.

    `authenticate`, an async function or its dotted path, tells who is behind an ASGI scope: a `Visitor`, a
    user, or None for nobody. It is asked again while a connection lasts. Without it the session tells.
    """
    # Not before this call: the import stands in asgi.py above `get_asgi_application()`, which loads the apps.
    from durable_chat.mounted import Mounted

    return Mounted(django_application, root, authenticate)
