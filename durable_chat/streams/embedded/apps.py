"""The embedded server's place in Django."""

from django.apps import AppConfig


class DurableStreamsConfig(AppConfig):
    """Has no models: its store owns its schema."""

    name = "durable_chat.streams.embedded"
    label = "durable_streams"
    verbose_name = "Durable streams"
