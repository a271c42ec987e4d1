"""Another host's settings: its own addresses, and CSRF tokens in the session, out of scripts' reach."""

from tests.browser.settings import *  # noqa: F403

ROOT_URLCONF = "tests.browser.host"
CSRF_USE_SESSIONS = True
