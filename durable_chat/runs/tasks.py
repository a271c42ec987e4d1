"""What a worker does: the task that writes one answer. Carries the run's id and nothing else."""

from durable_chat import conf
from durable_chat.runs import ends, launch, loop, shutdown, sweep
from durable_chat.runs.workers import framework
from durable_chat.streams.departure import departure

_task = framework().task(backend=conf.get().tasks.backend, queue_name=conf.get().tasks.queue)


@_task  # type: ignore[untyped-decorator]  # from one of two packages
def answer(run_id: str) -> None:
    """Write the answer of an accepted run, from here to its end. Nothing happens when it is delivered twice.

    A worker that is told to end, or that gives its tasks no more time, ends the answer in its order.
    """
    if departure.begun:
        answer.enqueue(run_id)  # for a worker that stays
        return
    shutdown.watch()
    sweep.start()
    try:
        loop.block(launch.take_up, run_id, timeout=None)
    except BaseException:
        loop.block(launch.end, run_id, ends.SHUTDOWN, timeout=shutdown.STOP_SECONDS)
        raise
