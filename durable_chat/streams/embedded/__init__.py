"""The server as a Django app (label ``durable_streams``): settings, one server a process, an ASGI door."""
