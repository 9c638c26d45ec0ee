"""Before the first frame: refusals with their statuses, subprotocols, and plain HTTP."""

import asyncio
import base64
import json
import socket

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

LIMIT_S = 20
KEY = base64.b64encode(b"sixteen bytes ok").decode()
GOOD = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def exchange(server, request: bytes):
    """Status, headers (lower case) and body of the answer to raw bytes, read to the end."""
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_S) as stream:
        stream.sendall(request)
        answer = b""
        while chunk := stream.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split(" ")[1]), headers, body


def request(line="GET /echo HTTP/1.1", without=(), extra=(), **changed):
    headers = {**GOOD, **{name.replace("_", "-"): value for name, value in changed.items()}}
    lines = [line, *(f"{n}: {v}" for n, v in headers.items() if n not in without), *extra]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


REFUSED = {
    "no-key": (400, request(without=["Sec-WebSocket-Key"])),
    "short-key": (400, request(Sec_WebSocket_Key="c2hvcnQ=")),
    "key-not-base64": (400, request(Sec_WebSocket_Key="!" * 24)),
    "no-connection": (400, request(without=["Connection"])),
    "no-host": (400, request(without=["Host"])),
    "two-hosts": (400, request(extra=["Host: elsewhere"])),
    "http-1.0": (400, request("GET /echo HTTP/1.0")),
    "body": (400, request(extra=["Content-Length: 2"]) + b"hi"),
    "two-framings": (400, request(extra=["Content-Length: 2", "Transfer-Encoding: chunked"])),
    "unequal-lengths": (400, request(extra=["Content-Length: 0", "Content-Length: 1"])),
    "obs-fold": (400, request(extra=["X-Long: one", " two"])),
    "control-byte": (400, request(extra=["X-Odd: a\x01b"])),
    "bare-lf": (400, request().replace(b"\r\nUpgrade", b"\nUpgrade")),
    "no-http": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello \r\n\r\n"),
    "post": (405, request("POST /echo HTTP/1.1")),
    "no-version": (426, request(without=["Sec-WebSocket-Version"])),
    "version-8": (426, request(Sec_WebSocket_Version="8")),
    "unknown-path": (404, request("GET /nowhere HTTP/1.1")),
    "long-target": (414, request(f"GET /{'x' * 8000} HTTP/1.1")),
    "large-header": (431, request(extra=[f"X-Large: {'x' * 9000}"])),
}
EXPECTED_HEADER = {
    405: ("allow", "get"),
    426: ("sec-websocket-version", "13"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_faulty_upgrade_is_refused_with_its_status(server, name):
    expected, sent = REFUSED[name]
    status, headers, body = exchange(server, sent)
    assert status == expected
    assert headers["connection"] == "close"
    assert json.loads(body)["error"]
    assert int(headers["content-length"]) == len(body)
    if status in EXPECTED_HEADER:
        header, value = EXPECTED_HEADER[status]
        assert value in headers[header]


def test_a_request_may_come_a_byte_at_a_time_with_frames_behind_it(server):
    ping = b"\x89\x80\x00\x00\x00\x00"
    close = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
    sent = request(Connection="keep-alive, Upgrade") + ping + close
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_S) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in sent:
            stream.send(bytes([byte]))
        answer = b""
        while chunk := stream.recv(4096):
            answer += chunk
    head, _, frames = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert frames == b"\x8a\x00\x88\x02\x03\xe8"


def test_the_client_sees_the_status_of_a_refusal(server):
    async def scenario():
        with pytest.raises(InvalidStatus) as refused:
            await connect(server.url("/nowhere"), proxy=None)
        assert refused.value.response.status_code == 404

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["json", "chat"], "json"), (["other", "chat"], "chat"), (["other"], None), (None, None)],
)
def test_the_first_offered_subprotocol_that_is_allowed_is_chosen(start, offered, chosen):
    server = start(SUBPROTOCOLS="chat,json")

    async def scenario():
        async with connect(server.url(), subprotocols=offered, proxy=None) as client:
            assert client.subprotocol == chosen

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))


def test_compression_that_is_offered_is_not_needed(server):
    async def scenario():
        async with connect(server.url(), compression="deflate", proxy=None) as client:
            await client.send("squeeze me" * 100)
            assert await client.recv() == "squeeze me" * 100

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))


def test_beyond_the_connection_cap_the_answer_is_503(start):
    server = start(MAX_CONNECTIONS="5")

    async def scenario():
        inside = [await connect(server.url(), proxy=None) for _ in range(5)]
        status, headers, body = exchange(server, request())
        assert status == 503
        assert int(headers["retry-after"]) >= 1
        assert json.loads(body)["error"]
        await inside.pop().close()
        for attempt in range(100):
            try:
                inside.append(await connect(server.url(), proxy=None))
                break
            except InvalidStatus:
                await asyncio.sleep(0.05)
        assert len(inside) == 5, "the place of a closed connection was not given again"
        for client in inside:
            await client.close()

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))


def test_plain_http_is_answered_as_such(server):
    status, content_type, body = server.get("/health")
    assert (status, content_type, json.loads(body)) == (200, "application/json", {"status": "healthy"})
    assert server.get("/ready")[0] == 200
    status, content_type, page = server.get("/")
    assert content_type.startswith("text/html") and "WebSocket" in page
    status, content_type, metrics = server.get("/metrics")
    assert content_type.startswith("text/plain")
    assert "# TYPE tidemill_connections gauge" in metrics


def test_one_connection_serves_request_after_request(server):
    get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = get.replace(b"GET", b"HEAD")
    last = get.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_S) as stream:
        stream.sendall(get + head + last)
        answer = b""
        while chunk := stream.recv(65536):
            answer += chunk
    assert answer.count(b"HTTP/1.1 200 ") == 3
    assert answer.count(b'{"status":"healthy"}') == 2
