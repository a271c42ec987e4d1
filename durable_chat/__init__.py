"""AI chat for Django in which no token is lost or doubled, whoever dies."""

__version__ = "0.1.0"
