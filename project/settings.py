"""The demo: the smallest site that hosts durable_chat, configured by the environment and `.env`."""

from pathlib import Path

import environ

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.Env()
env.read_env(BASE_DIR / ".env")

DEBUG = env.bool("DEBUG", default=True)
SECRET_KEY = env("SECRET_KEY", default="django-insecure-development-only-set-SECRET_KEY-in-production")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "daphne",  # `manage.py runserver` serves ASGI; must stand before staticfiles
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "durable_chat",
    "durable_chat.streams.embedded",  # optional: its commands, admin page and PostgreSQL store
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Runs write while people read: let a writer wait for the lock, and begin as a writer.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "project" / "static"]
LOGIN_URL = "admin:login"

DEFAULT_EXCEPTION_REPORTER_FILTER = "durable_chat.reporting.KeysHidden"  # needed by USER_KEYS

DURABLE_CHAT = {
    # Auth layer 1: this server to the streams service. Empty: the embedded server, in this process.
    "STREAMS": {
        "ELECTRIC_URL": env("ELECTRIC_URL", default=""),
        "DS_SERVICE_ID": env("DS_SERVICE_ID", default=""),
        "DS_SECRET": env("DS_SECRET", default=""),
        "DS_READ_SECRET": env("DS_READ_SECRET", default=""),
    },
    # Auth layer 2: this server to the model.
    "PROVIDER": {
        "BACKEND": env("PROVIDER_BACKEND", default="scripted"),
        "API_KEY": env("PROVIDER_API_KEY", default=""),
    },
    "LAUNCHER": env("LAUNCHER", default="process"),
    "TASKS": {
        "BACKEND": env("TASKS_BACKEND", default="default"),
        "QUEUE": env("TASKS_QUEUE", default="default"),
        "AGAIN_SECONDS": env.float("TASKS_AGAIN_SECONDS", default=60.0),
    },
    "PERMISSION": env("PERMISSION", default="durable_chat.permissions.may"),
    "REAUTHORISE_SECONDS": env.float("REAUTHORISE_SECONDS", default=30.0),
    "ALLOWED_ORIGINS": env.list("ALLOWED_ORIGINS", default=[]),
    "USER_KEYS": env("USER_KEYS", default="forbidden"),
    "CREATE_ON_SEND": env.bool("CREATE_ON_SEND", default=False),
    "WHEN_BUSY": env("WHEN_BUSY", default="reject"),
    "LEASE_SECONDS": env.float("LEASE_SECONDS", default=15.0),
    "SWEEP_SECONDS": env.float("SWEEP_SECONDS", default=1.0),
    "MAX_BODY_BYTES": env.int("MAX_BODY_BYTES", default=32 * 1024 * 1024),
    "MAX_RUNS": env.int("MAX_RUNS", default=100),
    "RUN_SECONDS": env.float("RUN_SECONDS", default=600.0),
    "SILENCE_SECONDS": env.float("SILENCE_SECONDS", default=120.0),
    "ANSWER_BYTES": env.int("ANSWER_BYTES", default=4 * 1024 * 1024),
    "DRAIN_SECONDS": env.float("DRAIN_SECONDS", default=10.0),
    "ON_ERROR": env("ON_ERROR", default="durable_chat.exceptions.public"),
}

DURABLE_STREAMS = {
    "WRITE_TOKEN": env("DS_EMBEDDED_WRITE_TOKEN", default=""),
    "READ_TOKEN": env("DS_EMBEDDED_READ_TOKEN", default=""),
    "ANONYMOUS": env.bool("DS_EMBEDDED_ANONYMOUS", default=False),
    "RECENT_BYTES": env.int("DS_EMBEDDED_RECENT_BYTES", default=32 * 1024 * 1024),
}
