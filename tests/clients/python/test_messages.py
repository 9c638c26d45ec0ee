"""What is sent comes back: text and binary, whole and fragmented, one and many."""

import asyncio
import random

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

SIZES = [0, 1, 125, 126, 127, 65535, 65536]
LIMIT_S = 60


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario, LIMIT_S))


def dial(url, **options):
    options = {"proxy": None, "max_size": None, "compression": None, **options}
    return connect(url, **options)


@pytest.mark.parametrize("path", ["/", "/ws", "/chat", "/chat?room=1"])
def test_a_welcome_comes_first_then_the_echo(server, path, is_welcome):
    async def scenario():
        async with dial(server.url(path)) as socket:
            assert is_welcome(await socket.recv())
            await socket.send("hello there")
            assert await socket.recv() == "hello there"
            await socket.send(b"\x00\xff")
            assert await socket.recv() == b"\x00\xff"

    run(scenario())


@pytest.mark.parametrize("size", SIZES)
def test_text_stays_text_and_binary_stays_binary(server, size):
    text, binary = "x" * size, random.Random(size).randbytes(size)

    async def scenario():
        async with dial(server.url()) as socket:
            for message in (text, binary, text):
                await socket.send(message)
                assert await socket.recv() == message

    run(scenario())


def test_text_beyond_ascii_survives(server):
    text = "κόσμε — Gezeitenmühle 🌊 \U0010ffff \x00"

    async def scenario():
        async with dial(server.url()) as socket:
            await socket.send(text)
            assert await socket.recv() == text

    run(scenario())


@pytest.mark.parametrize(
    "fragments",
    [["a"] * 1000, ["", "one", "", "two", ""], [b"\x00" * 40000, b"\x01" * 25000], ["", ""]],
    ids=["many", "with-empty-ones", "large", "nothing"],
)
def test_fragments_come_back_as_one_message(server, fragments):
    async def scenario():
        async with dial(server.url()) as socket:
            await socket.send(fragments)
            assert await socket.recv() == type(fragments[0])().join(fragments)

    run(scenario())


def test_a_ping_between_fragments_is_answered_before_the_message_ends(server):
    async def scenario():
        async with dial(server.url()) as socket:
            answered = asyncio.Event()

            async def fragments():
                yield "first, "
                pong = await socket.ping(b"between")
                await pong
                answered.set()
                yield "last"

            await socket.send(fragments())
            assert await socket.recv() == "first, last"
            assert answered.is_set()

    run(scenario())


@pytest.mark.parametrize("payload", [b"", b"x", b"\x00\xff" * 62])
def test_a_pong_carries_the_payload_of_its_ping(server, payload):
    async def scenario():
        async with dial(server.url()) as socket:
            await (await socket.ping(payload))

    run(scenario())


class Observed(ClientConnection):
    """Keeps the payload of each ping that the server sends."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.pings = asyncio.Queue()

    def process_event(self, event):
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.pings.put_nowait(bytes(event.data))
        super().process_event(event)


def test_the_server_pings_with_a_heartbeat_and_keeps_who_answers(start):
    server = start(PING_INTERVAL="300ms", PONG_TIMEOUT="300ms")

    async def scenario():
        async with dial(server.url(), create_connection=Observed) as socket:
            for _ in range(4):
                assert await socket.pings.get() == b"heartbeat"
            await socket.send("still here")
            assert await socket.recv() == "still here"

    run(scenario())


def test_messages_sent_without_waiting_come_back_in_order(server):
    messages = [f"{n} {'x' * (n % 300)}" for n in range(5000)]

    async def scenario():
        async with dial(server.url(), max_queue=None) as socket:

            async def send():
                for message in messages:
                    await socket.send(message)

            sending = asyncio.create_task(send())
            assert [await socket.recv() for _ in messages] == messages
            await sending

    run(scenario())


def test_large_messages_pass_where_the_limit_is_raised(start):
    server = start(MAX_MESSAGE_BYTES="16MiB")
    binary = random.Random(1).randbytes(16 << 20)

    async def scenario():
        async with dial(server.url()) as socket:
            for message in (binary, "é" * (8 << 20), b"small"):
                await socket.send(message)
                assert await socket.recv() == message

    run(scenario())


def test_five_hundred_connections_talk_at_once(start):
    server = start()

    async def talk(number):
        async with dial(server.url(), open_timeout=LIMIT_S) as socket:
            for turn in range(20):
                message = f"{number}/{turn}" * (1 + number % 50)
                await socket.send(message)
                assert await socket.recv() == message

    async def scenario():
        await asyncio.gather(*(talk(number) for number in range(500)))

    run(scenario())
    assert server.metric("tidemill_connections_total") >= 500
    server.settles("tidemill_connections", 0)
