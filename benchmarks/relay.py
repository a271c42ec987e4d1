"""Our read proxy before a service, on a free port whose URL it prints: ``python -m benchmarks.relay URL``."""

import sys

from benchmarks.serve import ROOT, serve
from durable_chat.connections import http_transport
from durable_chat.streams.client.http import HTTPHandler
from durable_chat.streams.client.relay import Relay, Upstream
from durable_chat.streams.embedded.asgi import StreamsApplication
from durable_chat.streams.server import Access


def main() -> None:
    relay = Relay(Upstream(HTTPHandler(f"{sys.argv[1]}{ROOT}", http_transport)))
    serve(StreamsApplication(relay, root=ROOT, access=Access(anonymous=True)))


if __name__ == "__main__":
    main()
