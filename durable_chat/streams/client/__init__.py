"""Clients of a streams server, whatever carries their requests; over HTTP it is `client.http.HTTPHandler`."""

from durable_chat.streams.client.client import StreamClient
from durable_chat.streams.client.producer import Producer
from durable_chat.streams.client.subscriber import subscribe
from durable_chat.streams.client.values import Appended, Batch, Head, Stamp

__all__ = ["Appended", "Batch", "Head", "Producer", "Stamp", "StreamClient", "subscribe"]
