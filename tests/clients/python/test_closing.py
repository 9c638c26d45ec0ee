"""How a connection ends: whose fault it was, which code says so, and what the other side sees."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

LIMIT_S = 30
LIMIT_BYTES = 64 << 10


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario, LIMIT_S))


def dial(server, path="/echo"):
    return connect(server.url(path), proxy=None, max_size=None, compression=None)


async def code_after(server, action):
    """The close code that the server sends after `action`, which gets an open connection."""
    async with dial(server) as socket:
        await action(socket)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await socket.recv()
        assert closed.value.rcvd is not None, "the server sent no Close frame"
        return closed.value.rcvd.code


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1011, 3000, 4000, 4999])
def test_a_close_is_answered_with_its_code(server, code):
    async def scenario():
        async with dial(server) as socket:
            await socket.close(code, "as you like")
            assert socket.protocol.close_rcvd.code == code
            assert socket.protocol.close_rcvd_then_sent is False

    run(scenario())


def test_what_was_sent_before_a_close_is_echoed_before_it(server):
    async def scenario():
        async with dial(server) as socket:
            for number in range(100):
                await socket.send(str(number))
            closing = asyncio.create_task(socket.close())
            assert [await socket.recv() for _ in range(100)] == [str(n) for n in range(100)]
            await closing
            assert socket.close_code == 1000

    run(scenario())


def test_a_message_at_the_limit_passes_and_one_byte_more_is_1009(server):
    async def too_large(socket):
        await socket.send("x" * LIMIT_BYTES)
        assert len(await socket.recv()) == LIMIT_BYTES
        await socket.send("x" * (LIMIT_BYTES + 1))

    assert run(code_after(server, too_large)) == 1009


def test_fragments_are_counted_together(server):
    async def too_large(socket):
        await socket.send(["x" * 1000] * 66)

    assert run(code_after(server, too_large)) == 1009


@pytest.mark.parametrize(
    "text", [b"\xff", b"ok\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"],
    ids=["never-valid", "cut-short", "surrogate", "beyond-unicode"],
)
def test_text_that_is_not_utf8_is_1007(server, text):
    async def send(socket):
        await socket.send(text, text=True)

    assert run(code_after(server, send)) == 1007


MASK = b"\x00\x00\x00\x00"


@pytest.mark.parametrize(
    "frames",
    {
        "unmasked": b"\x81\x02hi",
        "reserved-opcode": b"\x83\x80" + MASK,
        "reserved-control-opcode": b"\x8b\x80" + MASK,
        "reserved-bit": b"\xc1\x80" + MASK,
        "fragmented-ping": b"\x09\x80" + MASK,
        "long-ping": b"\x89\xfe\x00\x7e" + MASK,
        "continuation-of-nothing": b"\x80\x80" + MASK,
        "message-inside-a-message": b"\x01\x80" + MASK + b"\x81\x80" + MASK,
        "length-not-minimal": b"\x81\xfe\x00\x01" + MASK,
        "length-with-bit-63": b"\x82\xff\x80" + bytes(7) + MASK,
        "close-of-one-byte": b"\x88\x81" + MASK + b"\x03",
        "close-1005": b"\x88\x82" + MASK + b"\x03\xed",
        "close-1006": b"\x88\x82" + MASK + b"\x03\xee",
        "close-999": b"\x88\x82" + MASK + b"\x03\xe7",
    }.items(),
    ids=lambda pair: pair[0],
)
def test_a_breach_of_the_protocol_is_1002(server, frames):
    async def send(socket):
        socket.transport.write(frames[1])

    assert run(code_after(server, send)) == 1002


def test_who_vanishes_is_counted_as_1006_and_harms_nobody(start):
    server = start()

    async def scenario():
        async with dial(server) as stays:
            for _ in range(10):
                gone = await dial(server)
                gone.transport.abort()
            await stays.send("undisturbed")
            assert await stays.recv() == "undisturbed"

    run(scenario())
    server.settles("tidemill_closed_total", 10, code="1006")
    server.settles("tidemill_connections", 0)


def test_shutting_down_says_1001_to_everyone_and_exits_0(start):
    server = start()

    async def scenario():
        sockets = await asyncio.gather(*(dial(server, "/ws") for _ in range(50)))
        server.terminate()
        for socket in sockets:
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await socket.recv()
            assert closed.value.rcvd.code == 1001
            assert closed.value.rcvd.reason == "server shutting down"

    run(scenario())
    assert server.wait() == 0
