"""The same server over TLS, through Python's `ssl` and `websockets`: both versions, an orderly end
on either side, tickets, and the answer to those who forget the `s`."""

import asyncio
import http.client
import json
import socket
import ssl
import subprocess
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

LIMIT_S = 30
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def certify(folder, name: str, *more: str) -> tuple[str, str]:
    """A certificate for localhost that signed itself, and its key."""
    certificate, key = str(folder / f"{name}.pem"), str(folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=tests",
               "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", *more]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return certify(tmp_path_factory.mktemp("certificates"), "own")


@pytest.fixture
def secure(start, pair):
    """A server that speaks TLS as well."""

    def begin(**options):
        options = {"TLS_LISTEN": "127.0.0.1:0", "TLS_CERT": pair[0], "TLS_KEY": pair[1]} | options
        return start(**options)

    return begin


def context(pair, version=None):
    context = ssl.create_default_context(cafile=pair[0])
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def dial(server, pair, path="/echo", **more):
    url = f"wss://localhost:{server.tls_port}{path}"
    return connect(url, ssl=context(pair), proxy=None, max_size=None, compression=None,
                   host="127.0.0.1", **more)


def wrapped(server, context, **more):
    stream = socket.create_connection(("127.0.0.1", server.tls_port), LIMIT_S)
    return context.wrap_socket(stream, server_hostname="localhost", **more)


def ask(stream, path="/health"):
    stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = b""
    while b"}" not in answer:
        chunk = stream.recv(65536)
        assert chunk, answer
        answer += chunk
    return answer


@pytest.mark.parametrize("version", VERSIONS)
def test_both_versions_are_spoken_and_verified(secure, pair, version):
    server = secure()
    with wrapped(server, context(pair, version)) as stream:
        assert stream.version() == version.name.replace("_", ".")
        assert b"healthy" in ask(stream)
        # The ends in order: ours is answered, and theirs precedes the FIN.
        plain = stream.unwrap()
        assert plain.recv(1) == b""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_older_versions_are_refused_by_an_alert(secure, pair, version):
    server = secure()
    older = context(pair)
    older.set_ciphers("ALL:@SECLEVEL=0")
    older.minimum_version = older.maximum_version = version
    with pytest.raises(ssl.SSLError, match="(?i)alert|unsupported"):
        wrapped(server, older)
    server.settles("tidemill_tls_handshakes_total", 1, result="failed")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_resumed(secure, pair, version):
    server = secure(REACTORS="2")
    shared = context(pair, version)
    with wrapped(server, shared) as stream:
        ask(stream)
        session = stream.session
        assert not stream.session_reused
    for _ in range(10):
        with wrapped(server, shared, session=session) as stream:
            ask(stream)
            assert stream.session_reused
            session = stream.session
    server.settles("tidemill_tls_handshakes_total", 10, result="resumed")


def test_http_keeps_its_connection(secure, pair):
    server = secure()
    client = http.client.HTTPSConnection(
        "localhost", server.tls_port, timeout=LIMIT_S, context=context(pair))
    for path in ["/health", "/ready", "/", "/health"] * 5:
        client.request("GET", path)
        answer = client.getresponse()
        assert answer.status == 200
        answer.read()
    server.settles("tidemill_tls_handshakes_total", 1, result="full")


def test_plain_http_is_told_what_to_do(secure):
    server = secure()
    client = http.client.HTTPConnection("127.0.0.1", server.tls_port, timeout=LIMIT_S)
    client.request("POST", "/api/publish", body=b"x" * 100_000)
    answer = client.getresponse()
    text = answer.read().decode()
    assert answer.status == 400
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "https://" in text and "wss://" in text


def test_messages_of_all_sizes_come_back(secure, pair):
    server = secure(MAX_MESSAGE_BYTES="4MiB")

    async def scenario():
        async with dial(server, pair) as client:
            for size in [0, 1, 125, 126, 16_383, 16_384, 65_535, 65_536, 1 << 20, 4 << 20]:
                message = bytes(range(256)) * (size // 256) + bytes(size % 256)
                await client.send(message)
                assert await client.recv() == message
            await client.send(["in ", "three ", "parts"])
            assert await client.recv() == "in three parts"
            await asyncio.wait_for(await client.ping(), LIMIT_S)

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))


def test_a_hundred_at_once(secure, pair):
    server = secure(REACTORS="2")

    async def one(number):
        async with dial(server, pair, "/ws") as client:
            assert json.loads(await client.recv())["event"] == "connected"
            for round_ in range(20):
                text = f"{number} {round_} " * (1 + 50 * round_)
                await client.send(text)
                assert await client.recv() == text
        assert client.close_code == 1000

    async def scenario():
        await asyncio.gather(*(one(number) for number in range(100)))

    asyncio.run(asyncio.wait_for(scenario(), 2 * LIMIT_S))
    server.settles("tidemill_connections", 0)
    server.settles("tidemill_closed_total", 100, code="1000")
    assert server.metric("tidemill_tls_handshakes_total", result="failed") == 0


def test_who_vanishes_without_a_goodbye_harms_nobody(secure, pair):
    server = secure()

    async def scenario():
        async with dial(server, pair) as stays:
            for _ in range(20):
                gone = await dial(server, pair)
                gone.transport.abort()
            await stays.send("undisturbed")
            assert await stays.recv() == "undisturbed"

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))
    server.settles("tidemill_closed_total", 20, code="1006")


def test_shutting_down_says_1001_and_then_goodbye(secure, pair):
    server = secure()

    async def scenario():
        clients = await asyncio.gather(*(dial(server, pair) for _ in range(30)))
        server.terminate()
        for client in clients:
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd.code == 1001

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))
    assert server.wait() == 0


def test_a_new_certificate_is_shown_after_a_signal(secure, pair, tmp_path):
    certificate, key = certify(tmp_path, "own")
    server = secure(TLS_CERT=certificate, TLS_KEY=key)
    old = open(certificate).read()
    with wrapped(server, context((certificate, key))) as stays:
        certify(tmp_path, "next")
        for kind in ["pem", "key"]:
            (tmp_path / f"next.{kind}").replace(tmp_path / f"own.{kind}")
        server.process.send_signal(1)
        server.settles("tidemill_reloads_total", 1, result="ok")
        new = open(certificate).read()
        assert new != old
        deadline = time.monotonic() + LIMIT_S
        while (ssl.get_server_certificate(("127.0.0.1", server.tls_port)).split() != new.split()):
            assert time.monotonic() < deadline, "the old certificate is shown"
            time.sleep(0.02)
        assert b"healthy" in ask(stays)


def test_a_client_shows_its_certificate(secure, pair, tmp_path):
    certificate, key = certify(tmp_path, "client", "-addext", "keyUsage=critical,keyCertSign,digitalSignature")
    server = secure(TLS_CLIENT_CA=certificate, TLS_CLIENT_AUTH="required")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        with wrapped(server, context(pair)) as stream:
            ask(stream)
    leaf, leaf_key = str(tmp_path / "leaf.pem"), str(tmp_path / "leaf.key")
    extensions = tmp_path / "extensions"
    extensions.write_text("extendedKeyUsage=clientAuth\nsubjectAltName=DNS:device\n")
    request = subprocess.run(
        ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", leaf_key, "-subj",
         "/CN=device"], check=True, capture_output=True).stdout
    subprocess.run(["openssl", "x509", "-req", "-CA", certificate, "-CAkey", key, "-days", "2",
                    "-CAcreateserial", "-extfile", str(extensions), "-out", leaf],
                   input=request, check=True, capture_output=True)
    known = context(pair)
    known.load_cert_chain(leaf, leaf_key)
    with wrapped(server, known) as stream:
        assert b"healthy" in ask(stream)


def test_a_stalled_handshake_is_ended_in_time(secure):
    server = secure(HANDSHAKE_TIMEOUT="1s")
    with socket.create_connection(("127.0.0.1", server.tls_port), LIMIT_S) as stream:
        stream.sendall(b"\x16\x03\x01")
        began = time.monotonic()
        assert stream.recv(1) == b""
        assert 0.5 < time.monotonic() - began < 8
    server.settles("tidemill_tls_handshakes_total", 1, result="timeout")
