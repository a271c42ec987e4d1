"""The demo's addresses."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from project import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.HomeView.as_view(), name="home"),
    path("c/<slug:conversation_id>/", views.ConversationView.as_view(), name="conversation"),
    path("", include("durable_chat.urls")),
    path("admin/", admin.site.urls),
]
