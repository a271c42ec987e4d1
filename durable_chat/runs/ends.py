"""How a run ends: its state, what its readers are told, what the host is told."""

import logging
import traceback
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Final

from durable_chat import backends
from durable_chat.chunks import BadChunk, plain
from durable_chat.connections import in_thread
from durable_chat.exceptions import FAILED
from durable_chat.messages import Prompt
from durable_chat.models import Run
from durable_chat.runs.strays import within

log = logging.getLogger(__name__)

ON_ERROR_SECONDS: Final = 5.0
LONGEST_TEXT: Final = 2000  # characters of what ON_ERROR says

NO_RESULT: Final = "The answer ended without a result."


@dataclass(frozen=True, slots=True)
class End:
    """`text` and `code` are for readers, in the terminal chunk of an answer that is not whole.

    `error` is for the host's eyes.
    """

    state: Run.State
    code: str = ""
    text: str = ""
    error: str = ""


WHOLE: Final = End(Run.State.DONE)
STOPPED: Final = End(Run.State.STOPPED, "stopped", "The answer was stopped.")
INTERRUPTED: Final = End(
    Run.State.INTERRUPTED, "interrupted", "The answer was interrupted. Send again to go on."
)
SLOW: Final = End(
    Run.State.FAILED, "time_limit", "The answer took too long, so it ends here.", "RUN_SECONDS have passed."
)
LONG: Final = End(
    Run.State.FAILED, "size_limit", "The answer became too long, so it ends here.", "It exceeds ANSWER_BYTES."
)
SILENT: Final = End(
    Run.State.FAILED,
    "silence_limit",
    "The model fell silent, so the answer ends here. Try again.",
    "The provider yielded nothing for SILENCE_SECONDS.",
)
SHUTDOWN: Final = End(
    Run.State.INTERRUPTED,
    "interrupted",
    "The server was restarted in the middle of this answer. Send again to go on.",
    "The process was told to end, and DRAIN_SECONDS have passed.",
)


async def failed(error: BaseException, prompt: Prompt) -> End:
    """The end of a run whose provider raised: the text is ON_ERROR's, the details are the host's."""
    detail = described(error)
    log.error("provider of run %s failed: %s", prompt.run_id, detail)
    raised = error if isinstance(error, Exception) else RuntimeError("The provider ended its own task.")
    return End(Run.State.FAILED, "provider_failed", await _told(raised, prompt), detail)


async def _told(error: Exception, prompt: Prompt) -> str:
    """What ON_ERROR makes of an error. What fails, is late or quotes a key leaves the generic one."""
    tell = backends.get_on_error()
    asked = tell(error, prompt) if iscoroutinefunction(tell) else in_thread(tell, error, prompt)
    try:
        text = plain(await within(ON_ERROR_SECONDS, asked))
    except (Exception, SystemExit) as failure:  # noqa: BLE001 - the host's own function
        log.error("ON_ERROR failed for run %s: %s", prompt.run_id, described(failure))  # noqa: TRY400
        return FAILED
    if not isinstance(text, str) or not text.strip() or prompt.quotes_key(text):
        return FAILED
    return text[:LONGEST_TEXT]


def described(error: BaseException) -> str:
    """Which error, and where it was raised: not its text, which may quote a key or what was said.

    The sentence of a BadChunk is our own, and says what to yield instead.
    """
    if isinstance(error, BadChunk):
        return f"BadChunk: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(
        [type(error).__name__, *(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames))]
    )
