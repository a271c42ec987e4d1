"""A host that does what leaks: it logs everything, fails everywhere, and has a model that quotes its key."""

import logging
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from typing import NoReturn

from django.http import HttpRequest, HttpResponse
from django.urls import path

from durable_chat import backends, conf
from durable_chat.exceptions import ProviderError
from durable_chat.keys import own_keys
from durable_chat.messages import Prompt
from project.urls import urlpatterns as demo

CONTROL = "control-that-must-be-found"


def provoking(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Fails before or after the view, as `X-Provoke` asks."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.headers.get("x-provoke") == "before":
            raise RuntimeError("before the view")
        response = get_response(request)
        if request.headers.get("x-provoke") == "after":
            raise RuntimeError("after the view")
        return response

    return middleware


def provoked(request: HttpRequest) -> NoReturn:
    """An error page shows the variables of every frame."""
    settings, keys = conf.get(), own_keys(request.headers)
    streams = backends.get_streams()
    handler = streams.handler
    prompt = Prompt("c", "r", (), {}, key=settings.provider.api_key, own_keys=keys)
    raise RuntimeError(f"{settings} {keys} {streams} {handler} {prompt}")


async def answer(prompt: Prompt) -> AsyncIterator[str]:
    """Tells the fingerprints of its keys, so that a test sees which they were; fails as it is asked to."""
    asked = prompt.messages[-1].text()
    logging.getLogger("model").debug("%s: %s", CONTROL, asked)
    yield f"{fingerprint(prompt.api_key)} "
    if "raise" in asked:
        raise RuntimeError(f"The key {prompt.api_key} of {prompt.own_keys} is wrong.")
    if "tell" in asked:
        raise ProviderError(f"The key {prompt.api_key} is wrong.")
    yield " ".join(fingerprint(key.reveal()) for key in prompt.own_keys.values())


def fingerprint(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:12]


urlpatterns = [path("provoked/", provoked), *demo]
