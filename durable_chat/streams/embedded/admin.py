"""The streams in the admin: a page to look at them, for staff; nothing there can be changed."""

from typing import Any, Final
from urllib.parse import urlencode

from asgiref.sync import async_to_sync
from django.contrib import admin
from django.contrib.admin import AdminSite
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.views.decorators.http import require_safe

from durable_chat.streams.embedded import process
from durable_chat.streams.embedded.descriptions import describe
from durable_chat.streams.protocol.errors import StreamError

PAGE: Final = 100
URL_NAME: Final = "durable_streams"


def add_to(site: AdminSite) -> None:
    """Give a site the page, and its index the way there. For a site of the host's own; ours is done below.

    The streams are in no table of Django's, so there is no model to register: this wraps the two methods
    which a subclass of ``AdminSite`` would override.
    """
    urls, apps = site.get_urls, site.get_app_list

    def get_urls() -> list[URLPattern | URLResolver]:
        page = require_safe(lambda request: streams(request, site))
        return [path("durable-streams/", site.admin_view(page), name=URL_NAME), *urls()]

    def get_app_list(request: HttpRequest, app_label: str | None = None) -> list[Any]:
        listed = list(apps(request, app_label))
        return listed if app_label else sorted([*listed, _entry(site)], key=lambda app: app["name"].lower())

    site.get_urls = get_urls  # type: ignore[method-assign]
    site.get_app_list = get_app_list  # type: ignore[method-assign]


def _entry(site: AdminSite) -> dict[str, Any]:
    url = reverse(f"admin:{URL_NAME}", current_app=site.name)
    page = {"name": "Streams", "object_name": "Stream", "perms": {"view": True}, "admin_url": url}
    return {
        "name": "Durable streams",
        "app_label": "durable_streams",
        "app_url": url,
        "has_module_perms": True,
        "models": [{**page, "add_url": None, "view_only": True}],
    }


def streams(request: HttpRequest, site: AdminSite) -> HttpResponse:
    """A page of streams: ``q`` is how their paths begin, ``after`` the last path of the page before."""
    prefix, after = request.GET.get("q", "").strip(), request.GET.get("after", "")
    found, problem, status = [], "", 200
    try:
        found = async_to_sync(process.store().scan)(prefix=prefix, after=after, limit=PAGE + 1)
    except StreamError as error:
        problem, status = str(error), error.status
    except ImproperlyConfigured as error:
        problem, status = str(error), 503
    shown = [describe(listed) for listed in found[:PAGE]]
    further = urlencode({"q": prefix, "after": shown[-1]["path"]}) if len(found) > PAGE else ""
    context = {
        **site.each_context(request),
        "title": "Durable streams",
        "streams": shown,
        "query": prefix,
        "after": after,
        "further": further,
        "problem": problem,
    }
    request.current_app = site.name
    return TemplateResponse(request, "admin/durable_streams/streams.html", context, status=status)


add_to(admin.site)
