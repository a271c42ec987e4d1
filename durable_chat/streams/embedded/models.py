"""The tables of the PostgreSQL store, so that migrations make them. The store itself speaks SQL."""

from django.db import models


class Stream(models.Model):
    """A stream's state, as ``stores.base.Stream`` explains it.

    ``source``, ``position`` and ``sub_offset`` are set for a fork. ``size`` is in bytes; ``ends`` is when it
    expires if it is not used again, in Unix seconds.
    """

    path = models.TextField(db_collation="C")  # sorts by code point
    tag = models.TextField()
    content_type = models.TextField()
    ttl = models.BigIntegerField(null=True)
    expires_at = models.TextField(null=True)  # noqa: DJ001 - the RFC 3339 text that came, or nothing
    tail = models.BigIntegerField()
    closed = models.BooleanField()
    closer = models.TextField(null=True)  # noqa: DJ001 - a producer's name may be anything
    closer_epoch = models.BigIntegerField(null=True)
    closer_seq = models.BigIntegerField(null=True)
    last_seq = models.TextField(null=True)  # noqa: DJ001 - the empty text is a sequence number too
    touched = models.FloatField()
    source = models.TextField(null=True)  # noqa: DJ001 - most streams are no fork
    position = models.BigIntegerField(null=True)
    sub_offset = models.BigIntegerField(null=True)
    forks = models.BigIntegerField()
    deleted = models.BooleanField()
    ends = models.FloatField(null=True)
    size = models.BigIntegerField()

    class Meta:
        db_table = "durable_streams_stream"
        required_db_vendor = "postgresql"
        indexes = [
            models.Index(
                fields=["ends"], name="durable_streams_stream_ends", condition=models.Q(ends__isnull=False)
            )
        ]
        # Not ``unique=True``, which adds an index for LIKE that nothing here would use.
        constraints = [models.UniqueConstraint(fields=["path"], name="durable_streams_stream_path")]

    def __str__(self) -> str:
        return self.path


class Batch(models.Model):
    """What one append wrote: the stream's content from position ``start`` to ``finish``.

    No foreign key is enforced: only the store writes, under the stream's row lock, and a check for each row
    would cost as much as the row.
    """

    pk = models.CompositePrimaryKey("stream", "finish")
    stream = models.ForeignKey(Stream, models.CASCADE, db_constraint=False, db_index=False)
    finish = models.BigIntegerField()
    start = models.BigIntegerField()
    data = models.BinaryField()

    class Meta:
        db_table = "durable_streams_batch"
        required_db_vendor = "postgresql"
        verbose_name_plural = "batches"

    def __str__(self) -> str:
        return f"{self.start} to {self.finish}"


class Producer(models.Model):
    """The last batch that a stream took from a producer."""

    pk = models.CompositePrimaryKey("stream", "producer_id")
    stream = models.ForeignKey(Stream, models.CASCADE, db_constraint=False, db_index=False)
    producer_id = models.TextField()
    epoch = models.BigIntegerField()
    seq = models.BigIntegerField()

    class Meta:
        db_table = "durable_streams_producer"
        required_db_vendor = "postgresql"

    def __str__(self) -> str:
        return f"{self.producer_id} at {self.epoch}/{self.seq}"
