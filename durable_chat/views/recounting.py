"""An ended run whose log was lost, told anew from its rows."""

from durable_chat.answers import message_id
from durable_chat.chunks import (
    Chunk,
    run_error,
    run_finished,
    run_started,
    text_content,
    text_end,
    text_start,
)
from durable_chat.models import Run


def recount(run: Run) -> list[Chunk]:
    """RUN_STARTED, what the answer's text says, and how it ended. Reads the database."""
    thread_id, name = run.conversation_id, message_id(run.pk)
    text = "\n\n".join(filter(None, (row.value().text() for row in run.messages.filter(role="assistant"))))
    said = [text_start(name), text_content(name, text), text_end(name)] if text else []
    return [run_started(thread_id, run.pk, message_id=name), *said, _end(run)]


def _end(run: Run) -> Chunk:
    if run.state == Run.State.DONE:
        return run_finished(run.conversation_id, run.pk, usage=run.usage)
    return run_error(run.notice, thread_id=run.conversation_id, run_id=run.pk, code=str(run.state))
