"""Settings into objects: the one place that knows which class stands behind which setting."""

from collections.abc import Callable
from functools import lru_cache
from inspect import signature
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from durable_chat import conf
from durable_chat.connections import http_transport
from durable_chat.messages import Prompt
from durable_chat.permissions import Permission
from durable_chat.providers.base import ModelProvider
from durable_chat.providers.callable import CallableProvider
from durable_chat.providers.scripted import ScriptedProvider
from durable_chat.streams.client import StreamClient
from durable_chat.streams.client.http import HTTPHandler
from durable_chat.streams.client.relay import Relay, Upstream
from durable_chat.streams.client.repeating import Repeating
from durable_chat.streams.embedded.process import handle, server
from durable_chat.streams.hub import Hub


def get_streams() -> StreamClient:
    """The streams service: the embedded server in this process, or a remote one behind HTTP."""
    streams = conf.get().streams
    return StreamClient(_remote(streams) if streams.remote else handle)


def get_hub() -> Hub:
    """The live reads of the same, for readers in this process that want frames rather than answers."""
    streams = conf.get().streams
    return _remote(streams).hub if streams.remote else server().hub


@lru_cache(maxsize=1)
def _remote(streams: conf.StreamsSettings) -> Relay:
    service = HTTPHandler(
        streams.base_url, http_transport, token=streams.ds_secret, read_token=streams.ds_read_secret
    )
    return Relay(Upstream(Repeating(service)))


@lru_cache(maxsize=1)
def get_provider() -> ModelProvider:
    """The model that answers."""
    backend = conf.get().provider.backend
    if backend == "scripted":
        return ScriptedProvider()
    try:
        return CallableProvider(backend)
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f'{conf.NAME}["PROVIDER"]["BACKEND"]: {error}') from error


@lru_cache(maxsize=1)
def get_permission() -> Permission:
    """The callable that decides who may do what with a conversation."""
    path = conf.get().permission
    try:
        permission: Permission = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f'{conf.NAME}["PERMISSION"]: {error}') from error
    _check_permission(permission, path)
    return permission


@lru_cache(maxsize=1)
def get_on_error() -> Callable[[Exception, Prompt], Any]:
    """The function, or coroutine function, that makes of a provider's error what users read."""
    path = conf.get().on_error
    try:
        tell: Callable[[Exception, Prompt], Any] = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f'{conf.NAME}["ON_ERROR"]: {error}') from error
    try:
        signature(tell).bind(None, None)
    except TypeError:
        raise ImproperlyConfigured(
            f'{conf.NAME}["ON_ERROR"] names {path!r}, which is no function (error, prompt) -> str.'
        ) from None
    return tell


def _check_permission(permission: Any, path: str) -> None:
    """Named here, rather than as a refusal of everybody at the first request."""
    where = f'{conf.NAME}["PERMISSION"] names {path!r}'
    if not callable(permission):
        raise ImproperlyConfigured(f"{where}, which cannot be called.")
    try:
        signature(permission).bind(None, None, "read")
    except TypeError:
        raise ImproperlyConfigured(f"{where}, which does not take (visitor, conversation, action).") from None


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == conf.NAME:
        for cached in (_remote, get_provider, get_permission, get_on_error):
            cached.cache_clear()


setting_changed.connect(_forget, dispatch_uid="durable_chat.backends")
