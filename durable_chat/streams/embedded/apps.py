"""The embedded server's place in Django."""

from django.apps import AppConfig


class DurableStreamsConfig(AppConfig):
    """Its models are the tables of the PostgreSQL store, made on PostgreSQL only."""

    name = "durable_chat.streams.embedded"
    label = "durable_streams"
    verbose_name = "Durable streams"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from durable_chat.streams.embedded import checks  # noqa: F401  (it registers itself)
