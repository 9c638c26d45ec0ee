"""The native protocol, as the unmodified `centrifuge-python` sees it: coming and going, channels,
who may do what, history, and what was missed. node's SDK is asked for more of it."""

import asyncio
import time

import jwt
import pytest
from centrifuge import ReplyError, StreamPosition
from native import SECRET, Company, run, serve, settles, token

KEYED = {"TOKEN_SECRET": SECRET, "TOKEN_LEEWAY": "0s"}
OTHERS = "not the secret, but as long as the secret is"


def scenario(start, body, **options):
    """Runs `body` with a server of its own and those who come to it."""
    server = serve(start, **options)

    async def inside():
        async with Company(server) as company:
            await body(company)

    run(inside())


def numbered(first, last):
    return [{"n": number} for number in range(first, last + 1)]


async def refusal(call) -> int:
    with pytest.raises(ReplyError) as refused:
        await call
    assert refused.value.message
    return refused.value.code


def test_what_is_published_reaches_everybody_on_the_channel_in_order(start):
    async def body(company):
        peers = [await company.dial() for _ in range(8)]
        channels = [await peer.subscribe("chat:lobby") for peer in peers]
        stranger = await (await company.dial()).subscribe("chat:elsewhere")
        for number in range(1, 51):
            await channels[0].publish({"n": number, "text": "ünï ☃ 😀"})
        for channel in channels:
            data = await channel.told.count(50)
            assert data == [entry | {"text": "ünï ☃ 😀"} for entry in numbered(1, 50)]
            pubs = [context.pub for context in channel.told.all("publication")]
            assert [pub.offset for pub in pubs] == list(range(1, 51))
            assert {pub.info.client for pub in pubs} == {peers[0].sdk.client_id}
        await company.api("publish", channel="chat:lobby", data="from a server", tags={"a": "b"})
        told = await channels[3].told.next("publication", lambda c: c.pub.data == "from a server")
        assert (told.pub.info, told.pub.tags) == (None, {"a": "b"})
        assert stranger.told.data == []

    scenario(start, body)


def test_who_unsubscribes_hears_no_more(start):
    async def body(company):
        peer, other = await company.dial(), await company.dial()
        channel, stays = await peer.subscribe("chat:lobby"), await other.subscribe("chat:lobby")
        await stays.publish("before")
        await channel.told.count(1)
        await channel.unsubscribe()

        async def is_alone():
            return (await stays.presence_stats()).num_clients == 1

        await settles(is_alone, "unsubscribed")
        await stays.publish("after")
        await stays.told.count(2)
        await channel.subscribe()
        await channel.told.next("subscribed")
        await stays.publish("again")
        assert await channel.told.count(2) == ["before", "again"]

    scenario(start, body)


def test_a_token_says_who_comes(start):
    async def body(company):
        ann, bob = await company.user("42", info={"name": "Ann"}), await company.user("7")
        tablet = await company.user("42")
        seat = token(sub="7", channel="chat:lobby", info={"seat": 3})
        channel = await ann.subscribe("chat:lobby", join_leave=True)
        await bob.subscribe("chat:lobby", token=seat)
        third = await tablet.subscribe("chat:lobby")
        stats = await channel.presence_stats()
        assert (stats.num_clients, stats.num_users) == (3, 2)
        clients = (await channel.presence()).clients
        assert set(clients) == {peer.sdk.client_id for peer in (ann, bob, tablet)}
        assert clients[ann.sdk.client_id].conn_info == {"name": "Ann"}
        assert clients[bob.sdk.client_id].chan_info == {"seat": 3}
        assert clients[tablet.sdk.client_id].user == "42"
        joined = await channel.told.next("join", lambda c: c.info.user == "7")
        assert joined.info.client == bob.sdk.client_id
        await third.unsubscribe()
        left = await channel.told.next("leave")
        assert left.info.client == tablet.sdk.client_id

    scenario(start, body, **KEYED)


@pytest.mark.parametrize("kind", ["of somebody else", "none at all", "not good yet", "absent"])
def test_a_bad_token_ends_it_for_good(start, kind):
    soon = int(time.time()) + 60
    bad = {
        "of somebody else": jwt.encode({"sub": "42", "exp": soon}, OTHERS, algorithm="HS256"),
        "none at all": "nonsense",
        "not good yet": token(sub="42", nbf=soon),
        "absent": "",
    }[kind]

    async def body(company):
        peer = company.peer(token=bad)
        await peer.sdk.connect()
        told = await peer.events.next("disconnected")
        assert told.reason
        assert told.code == 3500 or kind == "absent" and told.code in (101, 3501)
        assert not peer.events.all("connected")

    scenario(start, body, **KEYED)


def test_an_expired_token_is_replaced(start):
    async def body(company):
        async def fresh():
            return token(sub="42")

        expired = token(sub="42", exp=int(time.time()) - 60)
        peer = await company.dial(token=expired, get_token=fresh)
        assert [context.error.code for context in peer.events.all("error")] == [109]
        lost = company.peer(token=expired)
        await lost.sdk.connect()
        assert (await lost.events.next("disconnected")).code == 1, "the SDK has no other token"

    scenario(start, body, **KEYED)


def test_connections_and_subscriptions_live_as_long_as_their_tokens_are_renewed(start):
    def ends():
        return int(time.time()) + 2

    async def never(*_):
        await asyncio.Event().wait()

    async def outlive(company):
        asked = []

        async def of_connection():
            asked.append("connection")
            return token(sub="42", exp=ends())

        async def of_channel(channel):
            asked.append(channel)
            return token(sub="42", channel=channel, exp=ends())

        # The SDK gives up two seconds after a ping that does not come.
        peer = await company.dial(get_token=of_connection, max_server_ping_delay=2)
        channel = await peer.subscribe("$mine", get_token=of_channel)

        # Longer than the server waits for a fresh one.
        async def is_refreshed():
            return asked.count("connection") >= 6 and asked.count("$mine") >= 6

        await settles(is_refreshed, "asked for six tokens each")
        await channel.publish("still here")
        assert await channel.told.count(1) == ["still here"]
        assert len(peer.events.all("connecting")) == len(channel.told.all("subscribed")) == 1

    async def end(company):
        one = await company.dial(token=token(sub="7", exp=ends()), get_token=never)
        other = await company.user("7")
        mine = token(sub="7", channel="$mine", exp=ends())
        channel = await other.subscribe("$mine", token=mine, get_token=never)
        told = await one.events.next("connecting", lambda c: c.code != 0)
        assert told.code == 3005 and told.reason
        told = await channel.told.next("subscribing", lambda c: c.code != 0)
        assert told.code == 2501 and told.reason
        assert len(other.events.all("connecting")) == 1

    async def body(company):
        await asyncio.gather(outlive(company), end(company))

    scenario(start, body, **KEYED, PING_INTERVAL="1s", PONG_TIMEOUT="1s")


def test_what_is_not_granted_is_refused(start):
    async def body(company):
        peer = await company.user("42")
        reader = await peer.subscribe("read:all")
        sdk = peer.sdk
        assert await refusal(reader.publish("no")) == 103
        assert await refusal(sdk.publish("none:x", "no")) == 102
        assert await refusal(sdk.presence("plain:x")) == 108
        assert await refusal(sdk.history("plain:x")) == 108
        assert await refusal(sdk.rpc("sum", {"of": [1, 2]})) == 104
        for name, code in {"shut:x": 103, "none:x": 102, "$mine": 103, "private-x": 103,
                           "chat#7": 103, "#7": 103, "chat:a.*": 103}.items():
            assert (await peer.refused(name)).code == code, name
        for wrong in (token(sub="7", channel="$mine"), token(sub="42", channel="$others"), "?"):
            assert (await peer.refused("$mine", token=wrong)).code == 103
        for name in ("chat#42", "#42", "chat#5,42"):
            mine = await peer.subscribe(name)
            await mine.publish("for me")
            assert await mine.told.count(1) == ["for me"]
        proven = await peer.subscribe("$mine", token=token(sub="42", channel="$mine"))
        await proven.publish("mine alone")
        assert await proven.told.count(1) == ["mine alone"]
        assert len(peer.events.all("connecting")) == 1

    scenario(start, body, **KEYED)


def test_a_pattern_hears_of_every_channel_that_it_matches(start):
    async def body(company):
        peer, other = await company.dial(), await company.dial()
        pattern = await peer.subscribe("wild:a.*")
        for name in ("wild:a.1", "wild:b.1", "wild:a", "wild:a.x.y", "wild:a.2"):
            await other.sdk.publish(name, name)
        await pattern.told.count(3)
        assert sorted(pattern.told.data) == ["wild:a.1", "wild:a.2", "wild:a.x.y"]

    scenario(start, body)


def test_history_is_told_from_any_position_in_both_directions(start):
    async def body(company):
        channel = await (await company.dial()).subscribe("chat:lobby")
        for entry in numbered(1, 20):
            await channel.publish(entry)

        async def offsets(**options):
            told = await channel.history(**options)
            assert told.offset == 20
            return [pub.offset for pub in told.publications]

        epoch = (await channel.history(limit=0)).epoch
        since = StreamPosition(offset=12, epoch=epoch)
        assert await offsets(limit=0) == []
        assert await offsets(limit=-1) == list(range(1, 21))
        assert await offsets(limit=3) == [1, 2, 3]
        assert await offsets(limit=3, since=since) == [13, 14, 15]
        assert await offsets(limit=3, reverse=True) == [20, 19, 18]
        assert await offsets(limit=3, since=since, reverse=True) == [11, 10, 9]
        elsewhere = StreamPosition(offset=12, epoch="other")
        assert await refusal(channel.history(limit=3, since=elsewhere)) == 112

    scenario(start, body)


def test_a_token_brings_subscriptions_along_and_they_recover(start):
    async def body(company):
        proxy = await company.proxy()
        claims = token(sub="42", channels=["feed:a", "$mine"])
        peer = await company.dial(proxy.url, token=claims)
        told = peer.events
        await told.until(lambda: len(told.all("subscribed")) == 2, "two subscriptions")
        for name in ("feed:a", "$mine"):
            await company.publish(name, [1])
        await told.count(2)
        proxy.shut()
        await told.next("connecting", lambda c: c.code != 0)
        for name in ("feed:a", "$mine"):
            await company.publish(name, [2, 3])
        proxy.reopen()
        await told.until(lambda: len(told.all("subscribed")) == 4, "two subscriptions again")
        for name in ("feed:a", "$mine"):
            await company.publish(name, [4])
        await told.count(6)
        heard = [(c.channel, c.pub.data["n"]) for c in told.all("publication")]
        assert [n for name, n in heard if name == "feed:a"] == [1, 2, 3, 4]
        assert [n for name, n in heard if name == "$mine"] == [1, 4]

    scenario(start, body, **KEYED)


def test_a_server_directs_a_users_subscriptions_and_connections(start):
    async def body(company):
        peer, other = await company.user("42"), await company.user("7")
        await company.api("subscribe", user="42", channel="plain:news", data={"why": 1})
        told = await peer.events.next("subscribed")
        assert (told.channel, told.data) == ("plain:news", {"why": 1})
        await company.publish("plain:news", [1])
        assert await peer.events.count(1) == numbered(1, 1)
        await company.api("unsubscribe", user="42", channel="plain:news")
        assert (await peer.events.next("unsubscribed")).channel == "plain:news"
        again = {"code": 3011, "reason": "force reconnect"}
        await company.api("disconnect", user="42", disconnect=again)
        told = await peer.events.next("connecting", lambda c: c.code != 0)
        assert (told.code, told.reason) == (3011, "force reconnect")
        await peer.events.next("connected")
        await company.api("disconnect", user="42")
        told = await peer.events.next("disconnected")
        assert 3500 <= told.code < 4000 and told.reason
        assert len(other.events.all("connecting")) == 1

    scenario(start, body, **KEYED)


def test_a_message_over_the_limit_ends_it_for_good(start):
    async def body(company):
        peer = await company.dial()
        channel = await peer.subscribe("plain:lobby")
        await channel.publish("x" * 1900)
        assert len((await channel.told.count(1))[0]) == 1900
        lost = asyncio.ensure_future(peer.sdk.publish("plain:lobby", "x" * 2000))
        told = await peer.events.next("connecting", lambda c: c.code != 0)
        assert told.code == 3, "message size limit"
        await asyncio.gather(lost, return_exceptions=True)

    scenario(start, body, MAX_MESSAGE_BYTES="2000")
