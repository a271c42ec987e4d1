"""What carries requests, over real sockets: one contract for all, and what the pool does beyond it."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from durable_chat.streams.client.pool import Pool
from durable_chat.streams.client.transport import Origin, Patience, Transport
from durable_chat.streams.protocol.exchange import Response
from tests.streams.scripted import HANG_UP, SOMEWHERE, Say, Scripted, outgoing
from tests.streams.transports import TRANSPORTS

OK = b"HTTP/1.1 200 OK\r\n"
AB = Say(OK + b"content-length: 2\r\n\r\nab")


async def read(response: Response) -> bytes:
    async with response:
        return await response.read()


# --- the contract ------------------------------------------------------------------------------------------


@pytest.fixture(params=TRANSPORTS)
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    async with aclosing(TRANSPORTS[request.param]()) as transport:
        yield transport


BODIES = {
    "length": ("GET", AB, 200, b"ab"),
    "nothing": ("PUT", Say(b"HTTP/1.1 201 Made\r\ncontent-length: 0\r\n\r\n"), 201, b""),
    "chunks": (
        "GET",
        Say(OK + b"Transfer-Encoding: Chunked\r\n\r\n1\r\na\r\n1;x=y\r\nb\r\n0\r\n\r\n"),
        200,
        b"ab",
    ),
    "trailers": (
        "GET",
        Say(OK + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx: t\r\n\r\n"),
        200,
        b"ab",
    ),
    "to the end": ("GET", Say(OK + b"\r\nab", last=True), 200, b"ab"),
    "HTTP/1.0": ("GET", Say(b"HTTP/1.0 200 OK\r\n\r\nab", last=True), 200, b"ab"),
    "no content": ("GET", Say(b"HTTP/1.1 204 None\r\n\r\n"), 204, b""),
    "not modified": ("GET", Say(b"HTTP/1.1 304 Same\r\ncontent-length: 5\r\n\r\n"), 304, b""),
    "head": ("HEAD", Say(OK + b"content-length: 5\r\n\r\n"), 200, b""),
    "head of chunks": ("HEAD", Say(OK + b"transfer-encoding: chunked\r\n\r\n"), 200, b""),
    "error": ("GET", Say(b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\nno"), 404, b"no"),
    "interim": (
        "GET",
        Say(b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Hints\r\nx: y\r\n\r\n" + AB.wire),
        200,
        b"ab",
    ),
}


@pytest.mark.parametrize("name", BODIES)
async def test_an_answer_is_what_was_sent(transport: Transport, name: str) -> None:
    method, said, status, body = BODIES[name]
    async with Scripted([said]) as service:
        response = await transport.send(service.asked(method))
        assert (response.status, await read(response)) == (status, body)
        assert "x" not in response.headers
        await transport.aclose()


async def test_headers_come_down_in_lower_case(transport: Transport) -> None:
    said = Say(OK + b"X-A: 1\r\nx-a:2\t \r\nX-Empty:\r\nX-Latin: \xe4\r\nContent-Length: 0\r\n\r\n")
    async with Scripted([said]) as service:
        response = await transport.send(service.asked())
        await response.aclose()
        kept = {name: value for name, value in response.headers.items() if name.startswith("x-")}
        assert kept == {"x-a": "1, 2", "x-empty": "", "x-latin": "ä"}
        await transport.aclose()


async def test_a_request_goes_out_whole(transport: Transport) -> None:
    body = b"x" * 1_000_000
    async with Scripted([AB, AB, AB]) as service:
        for method, sent in (("GET", b""), ("POST", body), ("POST", b"")):
            await read(await transport.send(service.asked(method, body=sent)))
        await transport.aclose()
    read_, append, empty = service.requests
    assert read_.startswith(b"GET /s?offset=-1 HTTP/1.1\r\n")
    assert b"content-length" not in read_.lower()
    assert append.endswith(b"\r\n\r\n" + body)
    assert b"content-length: 0\r\n" in empty.lower()
    for request in service.requests:
        assert b"\r\nauthorization: bearer sentinel\r\n" in request.lower()
        assert request.lower().count(b"\r\nhost: ") == 1


REUSED = {name for name, (_, said, _, _) in BODIES.items() if not said.last}


@pytest.mark.parametrize("name", BODIES)
async def test_a_connection_is_kept_when_its_answer_is_read(transport: Transport, name: str) -> None:
    method, said, _, _ = BODIES[name]
    async with Scripted([said, AB]) as service:
        await read(await transport.send(service.asked(method)))
        assert await read(await transport.send(service.asked())) == b"ab"
        assert service.connections == (1 if name in REUSED else 2)
        await transport.aclose()


async def test_a_connection_that_is_to_be_closed_is_closed(transport: Transport) -> None:
    said = Say(OK + b"Connection: Close\r\ncontent-length: 2\r\n\r\nab")
    async with Scripted([said, AB]) as service:
        assert await read(await transport.send(service.asked())) == b"ab"
        assert await read(await transport.send(service.asked())) == b"ab"
        assert service.connections == 2
        await transport.aclose()


BROKEN = {
    "at once": HANG_UP,
    "in the head": Say(OK, last=True),
    "before the body": Say(OK + b"content-length: 2\r\n\r\n", last=True),
    "in the body": Say(OK + b"content-length: 2\r\n\r\na", last=True),
    "in a chunk": Say(OK + b"transfer-encoding: chunked\r\n\r\n2\r\na", last=True),
    "between chunks": Say(OK + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n", last=True),
    "before the last end": Say(OK + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n", last=True),
    "not HTTP": Say(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "two lengths": Say(OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nabc"),
    "chunk without size": Say(OK + b"transfer-encoding: chunked\r\n\r\nx\r\nab\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_breaks_off_is_an_error(transport: Transport, name: str) -> None:
    async with Scripted([BROKEN[name]] * 2) as service:
        with pytest.raises((ConnectionError, TimeoutError)) as failed:
            await read(await transport.send(service.asked("POST", patience=Patience(read=1))))
        assert "sentinel" not in repr(failed.value)
        await service.is_left()
        await transport.aclose()


@pytest.mark.parametrize("said", [Say(b""), Say(OK + b"content-length: 2\r\n\r\na")])
async def test_silence_is_a_timeout(transport: Transport, said: Say) -> None:
    patience = Patience(connect=0.1, write=0.1, read=0.1)
    async with Scripted([said]) as service:
        with pytest.raises(TimeoutError):
            await read(await transport.send(service.asked(patience=patience)))
        await service.is_left()
        await transport.aclose()


async def test_a_large_body_comes_in_pieces(transport: Transport) -> None:
    size = 64 * 1024 * 1024
    async with Scripted([Say(OK + b"content-length: %d\r\n\r\n" % size + bytes(size))]) as service:
        async with await transport.send(service.asked()) as response:
            received = 0
            async for piece in response.body:  # type: ignore[union-attr]
                received += len(piece)
                assert len(piece) < 4 * 1024 * 1024
        assert received == size
        await transport.aclose()


# --- the pool ----------------------------------------------------------------------------------------------


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    async with aclosing(Pool(kept_seconds=60)) as pool:
        yield pool


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_what_may_be_asked_twice_survives_a_connection_that_is_no_more(pool: Pool, method: str) -> None:
    async with Scripted([AB, HANG_UP, Say(OK + b"content-length: 0\r\n\r\n")]) as service:
        await read(await pool.send(service.asked()))
        assert (await pool.send(service.asked(method))).status == 200
        assert (service.connections, len(service.requests)) == (2, 3)
        await pool.aclose()


async def test_an_append_is_not_sent_twice(pool: Pool) -> None:
    async with Scripted([AB, HANG_UP]) as service:
        await read(await pool.send(service.asked()))
        with pytest.raises(ConnectionError):
            await pool.send(service.asked("POST", body=b"[1]"))
        assert len(service.requests) == 2
        await pool.aclose()


@pytest.mark.parametrize("wire", [b"", b"HTTP/1.1 200"])
async def test_a_read_is_sent_twice_at_most_and_never_once_it_was_answered(pool: Pool, wire: bytes) -> None:
    async with Scripted([AB, Say(wire, last=True), Say(wire, last=True)]) as service:
        await read(await pool.send(service.asked()))
        with pytest.raises(ConnectionError):
            await pool.send(service.asked())
        assert len(service.requests) == (2 if wire else 3)
        await pool.aclose()


async def test_an_idle_connection_is_closed_after_a_while() -> None:
    async with Scripted([AB] * 3) as service, aclosing(Pool(kept_seconds=0.05)) as pool:
        responses = await asyncio.gather(*(pool.send(service.asked()) for _ in range(3)))
        assert [response.body for response in responses] == [b"ab"] * 3
        await service.is_left()
        assert service.connections == 3


async def test_what_nobody_asked_for_is_nobodys_answer(pool: Pool) -> None:
    """Else it were the next reader's."""
    async with Scripted([Say(AB.wire + OK + b"content-length: 6\r\n\r\nforged"), AB]) as service:
        assert await read(await pool.send(service.asked())) == b"ab"
        await service.is_left()
        assert await read(await pool.send(service.asked())) == b"ab"
        await pool.aclose()


async def test_a_service_that_answers_before_it_has_read_gets_no_more_on_that_connection(pool: Pool) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Large\r\ncontent-length: 0\r\n\r\n")
        await until_closed.wait()
        writer.transport.abort()

    until_closed = asyncio.Event()
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        origin = Origin("http", *server.sockets[0].getsockname())
        for _ in range(2):
            asked = outgoing("POST", origin=origin, body=bytes(1 << 26), patience=Patience(write=1, read=1))
            assert (await pool.send(asked)).status == 413
        until_closed.set()


async def test_an_address_that_says_nothing_is_not_waited_for(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one is tried beside it."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.2", 0), backlog=0) as mute, socket.socket() as only_one_waits:
        only_one_waits.connect(mute.getsockname())
        async with Scripted([AB]) as service:
            names = [mute.getsockname(), ("127.0.0.1", service.port)]
            resolve = loop.getaddrinfo

            async def addresses(host: str, *args: Any, **kwargs: Any) -> Any:
                if host != SOMEWHERE.host:
                    return await resolve(host, *args, **kwargs)
                return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", name) for name in names]

            monkeypatch.setattr(loop, "getaddrinfo", addresses)
            assert await read(await pool.send(outgoing())) == b"ab"
            await pool.aclose()


async def test_closing_hangs_up_on_everybody(pool: Pool) -> None:
    async with Scripted([AB, Say(OK + b"content-length: 2\r\n\r\na")]) as service:
        idle, reading = await asyncio.gather(pool.send(service.asked()), pool.send(service.asked()))
        await pool.aclose()
        assert pool.closed
        await service.is_left()
        with pytest.raises(ConnectionError):
            await asyncio.gather(read(idle), read(reading))


async def test_nothing_is_kept_once_it_is_closed(pool: Pool) -> None:
    async with Scripted([AB]) as service:
        await pool.aclose()
        assert await read(await pool.send(service.asked())) == b"ab"
        await service.is_left()


# --- TLS ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "streams")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "streams.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def test_a_connection_may_be_encrypted(certificate: Path, tls: ssl.SSLContext) -> None:
    pool = Pool(tls=ssl.create_default_context(cafile=certificate))
    async with Scripted([AB, AB], tls=tls) as service, aclosing(pool):
        for _ in range(2):
            assert await read(await pool.send(service.asked(scheme="https"))) == b"ab"
        assert service.connections == 1


async def test_who_does_not_speak_tls_is_not_waited_for(pool: Pool) -> None:
    async with Scripted([]) as service:
        with pytest.raises(TimeoutError):
            await pool.send(service.asked(scheme="https", patience=Patience(connect=0.1)))
        await service.is_left()


async def test_a_certificate_that_nobody_vouches_for_is_refused(pool: Pool, tls: ssl.SSLContext) -> None:
    async with Scripted([AB], tls=tls) as service:
        with pytest.raises(ssl.SSLCertVerificationError):
            await pool.send(service.asked(scheme="https"))
        assert service.requests == []
