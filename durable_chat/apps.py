"""The app's place in Django."""

from django.apps import AppConfig


class DurableChatConfig(AppConfig):
    """Registers checks and receivers; touches no database and no network."""

    name = "durable_chat"
    verbose_name = "Durable chat"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from durable_chat import checks, receivers, warnings  # noqa: F401  (they register themselves)
