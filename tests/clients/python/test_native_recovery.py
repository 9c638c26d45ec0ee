"""What a subscriber missed, as the unmodified `centrifuge-python` asks for it: after a cut, too
late, from a server that started anew; and subscribers that are cut off again and again. KILL_SEED
repeats a run."""

import asyncio
import json
import os
import random

from native import OPEN, Company, run, serve
from test_native import numbered, scenario

SUBSCRIBERS = 10
MESSAGES = 400
BATCH = 10
KILL_PATIENCE_S = 40


async def away(proxy, channel, meanwhile=None):
    """Cuts, and has `meanwhile` done before the peer is back. Gives what it was told then."""
    proxy.shut()
    await channel.told.next("subscribing", lambda context: context.code != 0)
    if meanwhile:
        await meanwhile
    proxy.reopen()
    return await channel.told.next("subscribed")


def test_what_was_missed_comes_in_its_place(start):
    async def body(company):
        proxy = await company.proxy()
        peer = await company.dial(proxy.url)
        channel = await peer.subscribe("chat:lobby", recoverable=True)
        assert channel.context.recoverable and channel.context.stream_position.offset == 0
        await company.publish("chat:lobby", [1, 2])
        await channel.told.count(2)
        told = await away(proxy, channel, company.publish("chat:lobby", [3, 4, 5]))
        assert told.was_recovering and told.recovered
        await company.publish("chat:lobby", [6])
        assert await channel.told.count(6) == numbered(1, 6)
        again = await away(proxy, channel)
        assert again.recovered
        await company.publish("chat:lobby", [7])
        assert await channel.told.count(7) == numbered(1, 7)

    scenario(start, body)


def test_what_is_no_longer_kept_cannot_be_recovered_and_it_is_said_so(start):
    async def body(company):
        proxy = await company.proxy()
        channel = await (await company.dial(proxy.url)).subscribe("feed:x")
        assert channel.context.recoverable, "the namespace insists on it"
        told = await away(proxy, channel, company.publish("feed:x", range(1, 12)))
        assert told.was_recovering and not told.recovered
        assert told.stream_position.offset == 11
        await company.publish("feed:x", [12])
        assert await channel.told.count(1) == numbered(12, 12)

    scenario(start, body)


def test_who_was_there_comes_back_to_the_next_server_and_its_epoch(start):
    server = serve(start)

    async def inside():
        async with Company(server) as company:
            peer = await company.dial()
            channel = await peer.subscribe("chat:x", recoverable=True)
            await company.publish("chat:x", [1])
            await channel.told.count(1)
            await asyncio.to_thread(server.stop)
            told = await peer.events.next("connecting", lambda context: context.code != 0)
            assert told.code == 3001 and told.reason
            company.server = await asyncio.to_thread(
                lambda: serve(start, LISTEN=f"127.0.0.1:{server.port}")
            )
            told = await channel.told.next("subscribed")
            assert told.was_recovering and not told.recovered
            before = channel.context.stream_position
            assert told.stream_position.epoch != before.epoch
            await company.publish("chat:x", [2])
            assert await channel.told.count(2) == numbered(1, 2)

    run(inside())


def test_subscribers_that_are_cut_off_again_and_again_miss_nothing(start):
    seed = int(os.environ.get("KILL_SEED") or random.randrange(2**32))
    print(f"KILL_SEED={seed}")
    kept = [{"name": "kill", **OPEN, "history_size": 4000, "history_ttl": "300s"}]

    async def body(company):
        proxy = await company.proxy(seed)
        publisher = await company.dial()
        peers = await asyncio.gather(*(company.dial(proxy.url) for _ in range(SUBSCRIBERS)))
        channels = [await peer.subscribe("kill:x", recoverable=True) for peer in peers]
        for first in range(1, MESSAGES, BATCH):
            proxy.cut_some(0.4, 700)
            await asyncio.gather(*(
                publisher.sdk.publish("kill:x", number) for number in range(first, first + BATCH)
            ))
            # Time for those who were cut off to come back, all or some of them.
            await asyncio.sleep(proxy.random.random() * 0.12)
        expected = list(range(1, MESSAGES + 1))
        for peer, channel in zip(peers, channels):
            assert await channel.told.count(MESSAGES, KILL_PATIENCE_S) == expected
            offsets = [context.pub.offset for context in channel.told.all("publication")]
            assert offsets == expected
            subscribed = channel.told.all("subscribed")
            assert all(told.recovered for told in subscribed if told.was_recovering)
            assert len(peer.events.all("connected")) >= 4

    scenario(start, body, NAMESPACES=json.dumps(kept))
