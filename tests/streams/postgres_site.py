"""The settings of the smallest site that keeps streams in PostgreSQL: the server, and nothing else."""

import os

from psycopg.conninfo import conninfo_to_dict

_given = conninfo_to_dict(os.environ["TEST_POSTGRES_URL"])

SECRET_KEY = "only-for-tests"
USE_TZ = True
INSTALLED_APPS = ["durable_chat.streams.embedded"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _given.pop("dbname"),
        "OPTIONS": {**_given, "options": f"-c search_path={os.environ['TEST_POSTGRES_SCHEMA']}"},
    }
}
