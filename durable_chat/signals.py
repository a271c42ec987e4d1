"""What a host may listen to. Sent once, after the fact, from a thread: `sender` is the Run class."""

from django.dispatch import Signal

run_started = Signal()  # run_id, conversation_id
run_finished = Signal()  # run_id, conversation_id, state ("done" or "stopped")
run_failed = Signal()  # run_id, conversation_id, state ("failed" or "interrupted")
