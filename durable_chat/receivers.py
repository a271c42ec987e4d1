"""Ours to receive: a conversation saved has a stream, a conversation deleted has none."""

import logging
from functools import partial
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in
from django.db import transaction
from django.db.models import F
from django.db.models.signals import post_save, pre_delete
from django.dispatch import receiver
from django.http import HttpRequest

from durable_chat import backends
from durable_chat.models import Conversation, Run, Tombstone
from durable_chat.permissions import visitor_of
from durable_chat.runs import heart, loop, tombs
from durable_chat.streams.protocol.errors import StreamError

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0  # what a save or a delete may wait for the streams service


@receiver(post_save, sender=Conversation, dispatch_uid="durable_chat.create_stream")
def create_stream(instance: Conversation, created: bool, raw: bool, using: str, **kwargs: Any) -> None:
    """Eager creation: clients give up for good on a stream that is not there when they first look.

    After the commit, so that no stream is made for a row that is rolled back. When the service is down the
    save still succeeds, and the first read or send creates the stream instead.
    """
    if created and not raw:
        create = partial(_in_time, backends.get_streams().create, instance.stream_path)
        transaction.on_commit(create, using=using, robust=True)


@receiver(pre_delete, sender=Conversation, dispatch_uid="durable_chat.erase_stream")
def erase_stream(instance: Conversation, using: str, **kwargs: Any) -> None:
    """Stop the run, and note in the deletion's own transaction that the stream must go."""
    # Its lock before those of its runs, also when it goes with its owner.
    Conversation.objects.using(using).filter(pk=instance.pk).update(epoch=F("epoch") + 1)
    active = Run.objects.using(using).active().filter(conversation=instance)
    for run_id in active.values_list("pk", flat=True):
        _in_time(heart.halt, run_id)
    Tombstone.objects.using(using).get_or_create(path=instance.stream_path)
    transaction.on_commit(partial(_in_time, tombs.erase), using=using, robust=True)


@receiver(user_logged_in, dispatch_uid="durable_chat.adopt")
def adopt(request: HttpRequest, user: AbstractBaseUser, **kwargs: Any) -> None:
    """Who signs in keeps the conversations that they began before."""
    anonymous = visitor_of(request).anonymous_id
    if anonymous:
        begun = Conversation.objects.filter(owner=None, visitor=anonymous)
        begun.update(owner_id=user.pk, visitor="")


def _in_time(function: Any, *args: Any) -> bool:
    """Do it on the background loop and wait a little; what fails is logged, never raised into a save."""
    try:
        loop.block(function, *args, timeout=PATIENCE_SECONDS)
    except (StreamError, TimeoutError) as error:
        log.warning("%s failed for now: %s", function.__name__, type(error).__name__)
        return False
    return True
