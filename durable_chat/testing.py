"""For a host's own tests."""

from durable_chat import connections
from durable_chat.runs import heart, loop, sweep


def drain(timeout: float = 30.0) -> None:
    """Wait until this process writes no answer any more; let it look for none, and keep no connection.

    Call it before a test's database goes away: runs do not end with the request that began them. Raises
    TimeoutError after `timeout` seconds.
    """
    loop.block(sweep.stop, timeout=timeout)
    loop.block(heart.drain, timeout=timeout)
    connections.let_go()
