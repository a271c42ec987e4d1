"""For `DEFAULT_EXCEPTION_REPORTER_FILTER = "durable_chat.reporting.KeysHidden"`: no report shows a key."""

import re

from django.views.debug import SafeExceptionReporterFilter


class KeysHidden(SafeExceptionReporterFilter):
    """Django's own filter, which knows `x-api-key` but not `x-byok-<provider>` for a secret."""

    hidden_settings = re.compile(f"{SafeExceptionReporterFilter.hidden_settings.pattern}|BYOK", re.IGNORECASE)
