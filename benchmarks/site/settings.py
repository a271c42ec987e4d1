"""The demo's settings, open to everybody, with the measured model."""

from project.settings import *  # noqa: F403
from project.settings import DURABLE_CHAT as _CHAT
from project.settings import INSTALLED_APPS as _APPS

DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "benchmarks.site.urls"
INSTALLED_APPS = [app for app in _APPS if app != "daphne"]
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
DURABLE_CHAT = {
    **_CHAT,
    "PERMISSION": "benchmarks.site.urls.everybody",
    "PROVIDER": {"BACKEND": "benchmarks.site.model.answer"},
    "STREAMS": {},
}
