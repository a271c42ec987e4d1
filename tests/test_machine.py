"""Runs under any order of events, against a model: sends, hearts, stops, deaths, recoveries, zombies."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from durable_chat import backends
from durable_chat.answers import Answer
from durable_chat.chunks import is_terminal
from durable_chat.exceptions import Busy
from durable_chat.messages import Message, Turn, fold
from durable_chat.models import Conversation, Run
from durable_chat.runs import loop, progress
from durable_chat.runs.admission import Due, Ending, Existing, Queued, admit
from durable_chat.runs.claim import Claim, Fenced
from durable_chat.runs.execute import PRODUCER_ID
from durable_chat.runs.queue import next_in_line, withdraw
from durable_chat.runs.recover import recover
from durable_chat.streams.client import Producer
from durable_chat.streams.protocol.errors import StaleEpoch

LEASE = 1000.0
STEPS = 7
TRIGGERS = st.sampled_from(["send", "submit"])


@dataclass(eq=False)
class Writer:
    """A process that writes one run, step by step; `step` is the next one that it takes."""

    claim: Claim
    asked: str
    step: int = 0
    stopped: bool = False
    dead: bool = False  # its lease has run out; it may yet wake up
    waited: bool = False
    offset: str = ""
    answer: Answer = field(init=False)
    producer: Producer = field(init=False)

    def __post_init__(self) -> None:
        claim = self.claim
        self.offset = claim.offset
        self.answer = Answer(thread_id=claim.conversation_id, run_id=claim.run_id)
        self.producer = Producer(backends.get_streams(), claim.stream_path, id=PRODUCER_ID, epoch=claim.epoch)

    def go_on(self) -> None:
        """Take the next step. Raises StaleEpoch or Fenced once somebody has taken over."""
        (self._echo, self._accept, self._start, self._say, self._end, self._close, self._release)[self.step]()
        self.step += 1

    def finish(self) -> None:
        while not self.released:
            self.go_on()

    @property
    def started(self) -> bool:
        return self.step > 2

    @property
    def ending(self) -> bool:
        return self.step > 4

    @property
    def closed(self) -> bool:
        return self.step > 5

    @property
    def released(self) -> bool:
        return self.step > 6

    def _append(self, chunks: Any) -> None:
        self.offset = loop.block(self.producer.append, chunks, timeout=30)

    def _echo(self) -> None:
        if self.claim.opening:
            self._append(self.claim.opening)

    def _accept(self) -> None:
        progress.accepted(self.claim, self.offset)

    def _start(self) -> None:
        self._append([self.answer.started()])

    def _say(self) -> None:
        chunks = self.answer.chunks("word ")
        for chunk in chunks:
            self.answer.stored(chunk)
        self._append(chunks)

    def _end(self) -> None:
        progress.end(self.claim)

    def _close(self) -> None:
        self._append([*self.answer.close(""), self.answer.finished()])

    def _release(self) -> None:
        progress.release(self.claim, Run.State.DONE, self.offset, messages=self.answer.messages)


class Runs(RuleBasedStateMachine):
    """One conversation. The model is `active`, `line` and `ends`: what the rows must say after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.conversation = Conversation.objects.create()
        self.active: Writer | None = None
        self.zombies: list[Writer] = []
        self.line: dict[str, str] = {}  # run -> message, in order
        self.ends: dict[str, str] = {}  # run -> state
        self.answered: dict[str, str] = {}  # message -> its newest run
        self.messages = 0
        self.epoch = 0

    # what people do

    @rule(policy=st.sampled_from(["reject", "queue", "interrupt"]), trigger=TRIGGERS)
    def send(self, policy: str, trigger: Any) -> None:
        self.messages += 1
        self._send(f"m-{self.messages}", policy, trigger)

    @precondition(lambda self: self.answered)
    @rule(data=st.data(), policy=st.sampled_from(["reject", "queue"]), trigger=TRIGGERS)
    def send_again(self, data: Any, policy: str, trigger: Any) -> None:
        self._send(data.draw(st.sampled_from(sorted(self.answered))), policy, trigger)

    def _send(self, id: str, policy: str, trigger: Any) -> None:
        expected = self._expected(id, policy, trigger)
        message = Message(id=id, role="user", parts=({"type": "text", "content": id},))
        turn = Turn(message, trigger, {}, "tanstack")
        named = {"holder": "writer", "lease_seconds": LEASE, "when_busy": policy}
        if isinstance(expected, type) and issubclass(expected, Exception):
            with pytest.raises(expected):
                admit(self.conversation.pk, turn, **named)
            return
        found = admit(self.conversation.pk, turn, **named)
        if isinstance(found, Existing):
            assert found.run_id == expected
            return
        assert type(found) is expected
        self.answered[id] = found.run_id
        if isinstance(found, Claim):
            self._begun(found, id)
        else:
            self.line[found.run_id] = id
            if policy == "interrupt" and self.active is not None:
                self.active.stopped = True

    def _expected(self, id: str, policy: str, trigger: str) -> Any:
        """An error, the kind of what is new, or the run that there is."""
        active = self.active
        if active is not None and active.dead:
            return Due
        last = self.answered.get(id)
        writes = active is not None and active.claim.run_id == last
        if last in self.line or (writes and not (active and active.ending)) or (last and trigger == "submit"):
            return last
        if active is not None and active.ending:
            return Ending
        if active is not None and policy == "reject":
            return Busy
        return Queued if active is not None or (self.line and policy != "reject") else Claim

    @rule()
    def stop(self) -> None:
        stopped = progress.request_stop(self.conversation.pk, None)
        assert (stopped.pk if stopped else None) == (self.active.claim.run_id if self.active else None)
        if self.active is not None:
            self.active.stopped = True

    @precondition(lambda self: self.line)
    @rule(data=st.data(), flag=st.booleans())
    def take_back(self, data: Any, flag: bool) -> None:
        run_id = data.draw(st.sampled_from(list(self.line)))
        self.answered.pop(self.line.pop(run_id))
        self.ends[run_id] = "stopped"
        if flag:  # whoever looks at the line next finds it
            Run(pk=run_id).stop()
            self.advance()
        else:
            assert withdraw(self.conversation.pk, run_id)

    # what processes do

    @precondition(lambda self: self.active is not None and not self.active.dead)
    @rule(steps=st.integers(1, STEPS))
    def write(self, steps: int) -> None:
        for _ in range(steps):
            if self.active is not None:
                self._write(self.active)

    def _write(self, writer: Writer) -> None:
        writer.go_on()
        if writer.released:
            self.ends[writer.claim.run_id] = "done"
            self.active = None

    @precondition(lambda self: self.active is not None)
    @rule(steps=st.integers(0, STEPS))
    def die(self, steps: int) -> None:
        """After a few steps; or it is only frozen, and will go on when nobody expects it."""
        assert self.active is not None
        self.write(steps)
        if self.active is not None and not self.active.dead:
            progress.abandon(self.active.claim)
            self.active.dead = True

    @precondition(lambda self: self.zombies)
    @rule()
    def wake(self) -> None:
        zombie = self.zombies.pop()
        with pytest.raises((StaleEpoch, Fenced)):
            zombie.finish()

    @rule()
    def beat(self) -> None:
        writers = [*self.zombies, *([self.active] if self.active is not None else [])]
        for writer in writers:
            claim, fenced = writer.claim, writer.dead or writer in self.zombies
            told = progress.beat({claim.run_id: claim.epoch}, holder="writer", lease_seconds=LEASE)
            held = set() if fenced else {claim.run_id}
            assert told == (held, held if writer.stopped else set())

    @rule(hurried=st.booleans())
    def advance(self, *, hurried: bool = False) -> None:
        claim = next_in_line(self.conversation.pk, holder="writer", lease_seconds=LEASE, hurried=hurried)
        waiting = next(iter(self.line), None)
        if self.active is not None or waiting is None:
            assert claim is None
            return
        assert claim is not None
        assert claim.run_id == waiting
        asked = self.line.pop(waiting)
        self._begun(claim, asked, stopped=hurried and bool(self.line), waited=True)

    @rule()
    def attend(self) -> None:
        claim = loop.block(recover, self.conversation.pk, holder="recoverer", timeout=30)
        dead = self.active
        if dead is None or not dead.dead:
            assert claim is None
            return
        assert claim is not None
        assert claim.run_id == dead.claim.run_id
        self.active = None
        self.epoch = claim.epoch
        self.zombies.append(dead)
        if dead.waited and not dead.started and not dead.stopped:
            self.line = {claim.run_id: dead.asked, **self.line}
        elif dead.closed:
            self.ends[claim.run_id] = "done"
        else:
            self.ends[claim.run_id] = "stopped" if dead.stopped else "interrupted"
        if dead.step == 0 and not dead.waited and dead.claim.opening:
            self.answered.pop(dead.asked)  # it was never said

    def _begun(self, claim: Claim, asked: str, *, stopped: bool = False, waited: bool = False) -> None:
        assert claim.epoch > self.epoch
        assert claim.stopping == stopped
        self.epoch = claim.epoch
        self.active = Writer(claim, asked, stopped=stopped, waited=waited)

    # what must always be so

    @invariant()
    def the_rows_say_what_the_model_says(self) -> None:
        runs = {run.pk: run for run in self.conversation.runs.all()}
        active = [run.pk for run in runs.values() if run.active]
        assert active == ([self.active.claim.run_id] if self.active else [])
        line = self.conversation.runs.queued().order_by("place")
        assert [run.pk for run in line] == list(self.line)
        assert {pk: run.state for pk, run in runs.items() if not run.unfinished} == self.ends

    @invariant()
    def the_stream_and_the_rows_agree(self) -> None:
        self.conversation.refresh_from_db()
        assert self.conversation.epoch == self.epoch
        batch = loop.block(backends.get_streams().read, self.conversation.stream_path, timeout=30)
        chunks = list(batch.items)
        for run_id, state in self.ends.items():
            ends = [chunk for chunk in chunks if is_terminal(chunk, run_id)]
            assert len(ends) <= 1
            assert ends or state == "stopped"  # what was withdrawn was never said
        if self.active is None and self.conversation.offset == batch.offset:
            shown = [row.value() for row in self.conversation.messages.visible()]
            assert [*map(_told, shown)] == [*map(_told, fold(chunks))]


def _told(message: Message) -> tuple[Any, ...]:
    return message.id, message.parts, message.metadata


def test_runs_under_any_order_of_events(site: None) -> None:
    # Without shrinking, which would take minutes: what fails is printed step by step.
    bounds = settings(max_examples=40, stateful_step_count=25, phases=[Phase.reuse, Phase.generate])
    run_state_machine_as_test(Runs, settings=bounds)
