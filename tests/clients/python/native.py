"""What the tests of the native protocol share: a server with four reactors, the unmodified SDK with
what it told the application, tokens, the server API, a proxy that cuts."""

import asyncio
import itertools
import json
import random
import secrets
import time
import urllib.request

import jwt
from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler

PATH = "/connection/websocket"
SECRET = secrets.token_hex(32)
API_KEY = "the-key-of-the-server-api"
LIMIT_S = 60
# How long anything may take that does not wait for a timer of the server.
PATIENCE_S = 15

OPEN = {
    f"allow_{what}_for_{who}": True
    for what in ("subscribe", "publish", "presence", "history")
    for who in ("client", "anonymous")
}
KEPT = {"history_size": 1000, "history_ttl": "300s"}
NAMESPACES = [
    {"name": "chat", **OPEN, **KEPT, "presence": True, "join_leave": True,
     "allow_user_limited_channels": True},
    {"name": "feed", **OPEN, "history_size": 10, "history_ttl": "300s", "force_recovery": True},
    {"name": "read", "allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True},
    {"name": "plain", **OPEN},
    {"name": "wild", **OPEN, "allow_wildcards": True},
    {"name": "shut"},
]


def serve(start, **options):
    """A server with four reactors and the namespaces above."""
    options = {"REACTORS": "4", "API_KEY": API_KEY, "DRAIN_TIME": "0",
               "NAMESPACES": json.dumps(NAMESPACES)} | options
    return start(**options)


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario, LIMIT_S))


def token(**claims) -> str:
    """A token that is good for a minute, but for what `claims` say."""
    return jwt.encode({"exp": int(time.time()) + 60} | claims, SECRET, algorithm="HS256")


class Events:
    """What an SDK object told the application, in order."""

    def __init__(self):
        self.list = []
        self._past = {}
        self._more = asyncio.Event()

    def add(self, name, context):
        self.list.append((name, context))
        self._more.set()

    def all(self, name):
        return [context for kind, context in self.list if kind == name]

    @property
    def data(self):
        return [context.pub.data for context in self.all("publication")]

    async def next(self, name, test=lambda context: True):
        """The next event of this name that passes the test; those before it are taken as well."""

        def find():
            for at in range(self._past.get(name, 0), len(self.list)):
                kind, context = self.list[at]
                if kind == name and test(context):
                    self._past[name] = at + 1
                    return context

        return await self.until(find, name)

    async def count(self, many, patience=PATIENCE_S):
        """Waits until so many publications are there, and gives the data of all."""
        await self.until(lambda: len(self.data) >= many, f"publication {many}", patience)
        return self.data

    async def until(self, find, what, patience=PATIENCE_S):
        deadline = time.monotonic() + patience
        while not (found := find()):
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), deadline - time.monotonic())
            except TimeoutError:
                last = "\n  ".join(map(str, self.list[-12:]))
                raise AssertionError(
                    f"no {what}, but at last of {len(self.list)}:\n  {last}"
                ) from None
        return found


def telling(handler, events):
    """A handler of the SDK that tells `events` everything."""

    def teller(name):
        async def tell(self, context):
            events.add(name.removeprefix("on_"), context)

        return tell

    names = [name for name in vars(handler) if name.startswith("on_")]
    return type("Telling", (handler,), {name: teller(name) for name in names})()


class Peer:
    """One SDK client."""

    def __init__(self, address, **options):
        options = {"min_reconnect_delay": 0.01, "max_reconnect_delay": 0.2, "timeout": PATIENCE_S,
                   "proxy": None} | options
        self.events = Events()
        self.sdk = Client(address, telling(ClientEventHandler, self.events), **options)

    async def connect(self):
        await self.sdk.connect()
        return await self.events.next("connected")

    def channel(self, name, **options):
        """A subscription that nobody has asked for yet."""
        options = {"min_resubscribe_delay": 0.01, "max_resubscribe_delay": 0.2} | options
        events = Events()
        handler = telling(SubscriptionEventHandler, events)
        subscription = self.sdk.new_subscription(name, handler, **options)
        subscription.told = events
        return subscription

    async def subscribe(self, name, **options):
        """A subscription, with what the server said as `context`."""
        subscription = self.channel(name, **options)
        await subscription.subscribe()
        subscription.context = await subscription.told.next("subscribed")
        return subscription

    async def refused(self, name, **options):
        """How the server refuses a subscription."""
        subscription = self.channel(name, **options)
        await subscription.subscribe()
        told = await subscription.told.next("unsubscribed")
        self.sdk.remove_subscription(subscription)
        return told


class Company:
    """All who came to a server; they leave when it is left."""

    def __init__(self, server):
        self.server = server
        self.peers = []
        self.proxies = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *failure):
        await asyncio.gather(*(peer.sdk.disconnect() for peer in self.peers))
        for proxy in self.proxies:
            await proxy.close()

    def peer(self, address=None, **options):
        self.peers.append(Peer(address or self.server.url(PATH), **options))
        return self.peers[-1]

    async def dial(self, address=None, **options):
        peer = self.peer(address, **options)
        await peer.connect()
        return peer

    async def user(self, sub, **claims):
        return await self.dial(token=token(sub=sub, **claims))

    async def proxy(self, seed=1):
        self.proxies.append(await Proxy.before(self.server.port, seed))
        return self.proxies[-1]

    async def api(self, method, **body):
        """The result of a request to the server API, which must succeed."""
        answer = await asyncio.to_thread(self._ask, method, body)
        assert "error" not in answer, f"{method} {body}: {answer}"
        return answer["result"]

    def _ask(self, method, body):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.server.port}/api/{method}", json.dumps(body).encode(),
            {"X-API-Key": API_KEY, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    async def publish(self, channel, numbers):
        for number in numbers:
            await self.api("publish", channel=channel, data={"n": number})


async def settles(ask, what):
    """Waits for what only asking again can tell."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := await ask()):
        assert time.monotonic() < deadline, f"never {what}"
        await asyncio.sleep(0.02)
    return answer


class Proxy:
    """A TCP proxy that cuts: with a reset or without, between two messages or in the middle of
    one."""

    @classmethod
    async def before(cls, port, seed):
        proxy = cls()
        proxy.port = port
        proxy.random = random.Random(seed)
        proxy.is_shut = False
        proxy._lines = {}
        proxy._numbers = itertools.count()
        proxy._server = await asyncio.start_server(proxy._join, "127.0.0.1", 0)
        proxy.url = f"ws://127.0.0.1:{proxy._server.sockets[0].getsockname()[1]}{PATH}"
        return proxy

    async def _join(self, reader, writer):
        if self.is_shut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        number = next(self._numbers)
        line = self._lines[number] = {"left": None, "writers": (writer, back)}
        passing = [asyncio.ensure_future(part) for part in (
            self._pass(reader, back), self._pass(there, writer, line))]
        await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        self._lines.pop(number, None)
        for task in passing:
            task.cancel()
        for end in line["writers"]:
            end.transport.abort() if line["left"] else end.close()

    async def _pass(self, reader, writer, line=None):
        try:
            while chunk := await reader.read(65536):
                if line is not None and line["left"] is not None:
                    chunk, line["left"] = chunk[: line["left"]], line["left"] - len(chunk)
                writer.write(chunk)
                await writer.drain()
                if line is not None and line["left"] is not None and line["left"] <= 0:
                    return
        except OSError:
            pass

    def cut_some(self, share, bytes_max):
        """Cuts this share of the connections, each once at most so many bytes more have passed."""
        for line in list(self._lines.values()):
            if line["left"] is None and self.random.random() < share:
                self._cut(line, self.random.choice([0, self.random.randint(1, bytes_max)]))

    def shut(self):
        """Cuts every connection, and refuses new ones until `reopen`."""
        self.is_shut = True
        for line in list(self._lines.values()):
            self._cut(line, 0)

    def reopen(self):
        self.is_shut = False

    def _cut(self, line, left):
        line["left"] = left
        if left == 0:
            for end in line["writers"]:
                end.transport.abort()

    async def close(self):
        self.shut()
        self._server.close()
