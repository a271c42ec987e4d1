"""DURABLE_CHAT: what is wrong is named, with the nearest right key."""

import re
from dataclasses import fields
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import modify_settings

from durable_chat import checks, conf
from durable_chat.keys import ModelKey
from durable_chat.streams.embedded import conf as embedded
from durable_chat.streams.protocol.secrets import StreamsSecret
from tests.live import ROOT

# Since Django 6.0 `check` looks at the databases too.
pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"STREAM": {}}, ["'STREAM'", "'STREAMS'"]),
        ({"STREAMS": {"DS_SECRETS": "x"}}, ["'DS_SECRETS'", "'DS_SECRET'"]),
        ({"PROVIDER": {"BACKEN": "x"}}, ["'BACKEN'", "'BACKEND'"]),
        ({"LEASE_SECONDS": "15"}, ["LEASE_SECONDS", "a number", "str"]),
        ({"LEASE_SECONDS": 0.1}, ["LEASE_SECONDS", "from 1 to"]),
        ({"LEASE_SECONDS": float("inf")}, ["LEASE_SECONDS", "from 1 to"]),
        *[
            ({key: value}, [key, "must be from"])
            for key in ("RUN_SECONDS", "SILENCE_SECONDS", "DRAIN_SECONDS", "SWEEP_SECONDS")
            for value in (-1, float("inf"), float("nan"), 10**400)
        ],
        ({"TASKS": {"AGAIN_SECONDS": float("inf")}}, ["AGAIN_SECONDS", "from 0.1 to"]),
        ({"MAX_BODY_BYTES": -1}, ["MAX_BODY_BYTES", "from 1 to"]),
        ({"MAX_BODY_BYTES": 10**30}, ["MAX_BODY_BYTES", "from 1 to"]),
        ({"MAX_RUNS": float("inf")}, ["MAX_RUNS", "a whole number"]),
        *[
            ({"STREAMS": {"ELECTRIC_URL": url}}, ["ELECTRIC_URL", "https://"])
            for url in (
                "streams.example",
                "http://[",
                "https://",
                "https://streams.example:99999",
                "https://streams.example:0",
                "https://streams.example\n",
                "https://streams.example?a=b",
                "https://streams example",
            )
        ],
        *[
            ({"STREAMS": {"DS_SERVICE_ID": "svc", "DS_SECRET": "s", key: secret}}, [key, "printable ASCII"])
            for key in ("DS_SECRET", "DS_READ_SECRET")
            for secret in ("s3cret\n", " s3cret", "s3\0cret", "s3crét")
        ],
        ({"PERMISSION": "durable_chat.permissions.SESSION_KEY"}, ["PERMISSION", "called"]),
        ({"PERMISSION": "tests.conftest.words"}, ["PERMISSION", "does not take"]),
        *[
            ({"ALLOWED_ORIGINS": [origin]}, ["ALLOWED_ORIGINS", "https://app"])
            for origin in ("*", "https://", "https://[", "https://app.example.com:99999")
        ],
        ({"ALLOWED_ORIGINS": "https://a.example"}, ["ALLOWED_ORIGINS", "list", "str"]),
        ({"ALLOWED_ORIGINS": [7]}, ["ALLOWED_ORIGINS", "list"]),
        ({"REAUTHORISE_SECONDS": 0}, ["REAUTHORISE_SECONDS", "from 0.1 to"]),
        ({"CREATE_ON_SEND": 1}, ["CREATE_ON_SEND", "True or False", "int"]),
        ({"MAX_BODY_BYTES": True}, ["MAX_BODY_BYTES", "a whole number", "bool"]),
        ({"STREAMS": []}, ["STREAMS", "dictionary"]),
        ([], ["DURABLE_CHAT", "dictionary"]),
        ({"PROVIDER": {"API_KEY": 7}}, ["API_KEY", "a string", "int"]),
        ({"STREAMS": {"DS_SERVICE_ID": "svc"}}, ["no DS_SECRET. "]),
        ({"STREAMS": {"DS_SECRET": "s"}}, ["no DS_SERVICE_ID"]),
        ({"STREAMS": {"DS_READ_SECRET": "s"}}, ["there is no DS_SERVICE_ID and no DS_SECRET. "]),
        ({"STREAMS": {"ELECTRIC_URL": "https://streams.example"}}, ["no DS_SERVICE_ID"]),
        (
            {
                "STREAMS": {
                    "ELECTRIC_URL": "https://h/v1/stream/svc",
                    "DS_SERVICE_ID": "svc",
                    "DS_SECRET": "s",
                }
            },
            ["ELECTRIC_URL", "without /v1/stream"],
        ),
        ({"STREAMS": {"DS_SERVICE_ID": "v1/stream/svc", "DS_SECRET": "s"}}, ["DS_SERVICE_ID", "segment"]),
        ({"PROVIDER": {"BACKEND": "no.such.function"}}, ["BACKEND", "no.such.function"]),
        ({"PERMISSION": "no.such.function"}, ["PERMISSION"]),
    ],
)
def test_check_names_the_problem(settings: Any, raw: Any, words: list[str]) -> None:
    settings.DURABLE_CHAT = raw
    with pytest.raises(SystemCheckError) as caught:
        call_command("check")
    for word in words:
        assert word in str(caught.value)
    assert "s3c" not in str(caught.value)


def test_missing_addresses_are_an_error(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.test_conf"
    with pytest.raises(SystemCheckError, match=r"E003(?s:.*)include\(\"durable_chat.urls\"\)"):
        call_command("check")


urlpatterns: list[Any] = []  # a host that forgot


@modify_settings(INSTALLED_APPS={"remove": "django.contrib.sessions"})
def test_missing_sessions_are_an_error() -> None:
    with pytest.raises(SystemCheckError, match=r"E004.*'django.contrib.sessions' in INSTALLED_APPS"):
        call_command("check")


def test_first_use_names_it_too(settings: Any) -> None:
    settings.DURABLE_CHAT = {"STREAM": {}}
    with pytest.raises(ImproperlyConfigured, match="STREAMS"):
        conf.get()


@pytest.mark.parametrize("url", ["", "https://api.electric-sql.cloud", "https://api.electric-sql.cloud//"])
def test_the_root_has_a_default(settings: Any, url: str) -> None:
    settings.DURABLE_CHAT = {"STREAMS": {"ELECTRIC_URL": url, "DS_SERVICE_ID": "svc", "DS_SECRET": "s"}}
    assert conf.get().streams.base_url == "https://api.electric-sql.cloud/v1/stream/svc"


def test_empty_variables_mean_the_embedded_server(settings: Any) -> None:
    names = ("ELECTRIC_URL", "DS_SERVICE_ID", "DS_SECRET", "DS_READ_SECRET")
    settings.DURABLE_CHAT = {"STREAMS": dict.fromkeys(names, "")}
    assert not conf.get().streams.remote


def test_nothing_set_is_right(settings: Any) -> None:
    del settings.DURABLE_CHAT
    assert conf.get() == conf.Settings()
    call_command("check")


def test_the_two_layers_have_two_types_and_no_repr_shows_a_secret(settings: Any) -> None:
    settings.DURABLE_CHAT = {
        "STREAMS": {"ELECTRIC_URL": "https://streams.example//", "DS_SERVICE_ID": "svc", "DS_SECRET": "one"},
        "PROVIDER": {"API_KEY": "two"},
    }
    parsed = conf.get()
    assert parsed.streams.base_url == "https://streams.example/v1/stream/svc"
    assert parsed.streams.ds_secret == StreamsSecret("one")
    assert parsed.provider.api_key == ModelKey("two")
    assert "'one'" not in repr(parsed)
    assert "'two'" not in repr(parsed)


@pytest.mark.parametrize(
    ("setting", "known"),
    [
        ("DURABLE_CHAT", {field.name.upper() for field in fields(conf.Settings)}),
        ("DURABLE_STREAMS", set(embedded._DEFAULTS)),
    ],
)
def test_the_readme_lists_every_setting_once(setting: str, known: set[str]) -> None:
    _, _, table = (ROOT / "README.md").read_text().partition(f"| `{setting}` | default |")
    listed = re.findall(r"^\| `([A-Z_]+)` \|", table.partition("\n\n")[0], re.MULTILINE)
    assert sorted(listed) == sorted(known)


def test_the_demo_and_its_example_know_the_same_variables() -> None:
    read = re.findall(r'env(?:\.\w+)?\("([A-Z_]+)"', (ROOT / "project/settings.py").read_text())
    shown = re.findall(r"^#([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(read)


class Replica:
    """A router of a host that reads elsewhere than it writes."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"


def test_check_names_a_router_that_reads_elsewhere(settings: Any) -> None:
    settings.DATABASE_ROUTERS = [Replica()]
    (error,) = checks.check_routers()
    assert "router" in error.msg
    settings.DATABASE_ROUTERS = []
    assert checks.check_routers() == []
