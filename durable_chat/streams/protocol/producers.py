"""Idempotent producers: which batch is new, which is a repeat, which is refused (section 5.2.1)."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from durable_chat.streams.protocol.errors import BadRequest, InvalidEpochStart, ProducerGap, StaleEpoch
from durable_chat.streams.protocol.headers import LONGEST_NAME, PRODUCER_EPOCH, PRODUCER_ID, PRODUCER_SEQ

_LARGEST: Final = 2**53 - 1  # what JavaScript counts to without loss


class ProducerStamp(NamedTuple):
    """What a producer says of one batch: who it is, its generation, the batch's number in it."""

    producer_id: str
    epoch: int
    seq: int


class ProducerState(NamedTuple):
    """What a stream remembers of one producer: its epoch and the last seq that was accepted in it."""

    epoch: int
    seq: int


def is_new(state: ProducerState | None, stamp: ProducerStamp) -> bool:
    """Whether a batch is to be appended (``True``) or has been already (``False``).

    Raises ``StaleEpoch``, ``InvalidEpochStart`` or ``ProducerGap``. A producer that the stream does not know
    begins at seq 0 of any epoch.
    """
    if state is None:
        return _next(stamp, expected=0)
    if stamp.epoch < state.epoch:
        raise StaleEpoch(headers={PRODUCER_EPOCH: str(state.epoch)})
    if stamp.epoch > state.epoch:
        if stamp.seq != 0:
            raise InvalidEpochStart
        return True
    return stamp.seq > state.seq and _next(stamp, expected=state.seq + 1)


def _next(stamp: ProducerStamp, *, expected: int) -> bool:
    if stamp.seq == expected:
        return True
    raise ProducerGap(
        headers={"producer-expected-seq": str(expected), "producer-received-seq": str(stamp.seq)}
    )


def parse(headers: Mapping[str, str]) -> ProducerStamp | None:
    """The stamp that a request carries, if any. Raises ``BadRequest`` unless it is whole and well formed."""
    given = [headers.get(name) for name in (PRODUCER_ID, PRODUCER_EPOCH, PRODUCER_SEQ)]
    if given == [None, None, None]:
        return None
    producer_id, epoch, seq = given
    if not producer_id or epoch is None or seq is None:
        raise BadRequest("Producer-Id, Producer-Epoch and Producer-Seq go together, and none is empty.")
    if len(producer_id) > LONGEST_NAME:
        raise BadRequest(f"Producer-Id has at most {LONGEST_NAME} characters.")
    return ProducerStamp(producer_id, _integer(epoch), _integer(seq))


def _integer(text: str) -> int:
    if len(text) > 16 or not (text.isascii() and text.isdigit()) or int(text) > _LARGEST:
        raise BadRequest("Producer-Epoch and Producer-Seq are integers from 0 to 2^53-1.")
    return int(text)
