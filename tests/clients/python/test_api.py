"""The server API as the unmodified `cent` uses it: every method that it has, with real subscribers
that see what comes of it."""

import asyncio

import cent
import pytest
import requests
from native import API_KEY, SECRET, Company, run, serve, settles, token

KEYED = {"TOKEN_SECRET": SECRET, "TOKEN_REQUIRED": "false"}
NEWS = "chat:news"


class Api:
    """`cent`, whose methods are called by name: `await api("publish", channel=…)`."""

    def __init__(self, server, key=API_KEY):
        session = requests.Session()
        session.trust_env = False
        url = f"http://127.0.0.1:{server.port}/api"
        self.cent = cent.Client(url, key, timeout=20, session=session)

    async def __call__(self, method, **fields):
        return await asyncio.to_thread(getattr(self.cent, method), request(method, **fields))


def request(method, **fields):
    words = "".join(word.capitalize() for word in method.split("_"))
    return getattr(cent, f"{words}Request")(**fields)


def scenario(start, body, **options):
    """Runs `body` with those who come to a server of its own, and its API."""
    server = serve(start, **options)

    async def inside():
        async with Company(server) as company:
            await body(company, Api(server))

    run(inside())


async def fault(call) -> int:
    with pytest.raises(cent.CentApiResponseError) as refused:
        await call
    assert refused.value.message
    return refused.value.code


def test_what_is_published_reaches_subscribers_with_its_tags_and_place(start):
    async def body(company, api):
        channel = await (await company.dial()).subscribe(NEWS, recoverable=True)
        values = [{"text": "ünï ☃"}, [1, 2.5], "text", 7, True]
        results = [await api("publish", channel=NEWS, data=value, tags={"n": str(n)})
                   for n, value in enumerate(values)]
        assert await channel.told.count(len(values)) == values
        pubs = [context.pub for context in channel.told.all("publication")]
        assert [pub.tags for pub in pubs] == [{"n": str(n)} for n in range(len(values))]
        assert [pub.offset for pub in pubs] == [result.offset for result in results]
        assert {result.epoch for result in results} == {channel.context.stream_position.epoch}
        await api("publish", channel=NEWS, data=0, b64data="AP8=")
        assert (await channel.told.count(6))[5] == "AP8="

    scenario(start, body)


def test_who_publishes_again_under_the_same_key_publishes_once(start):
    async def body(company, api):
        channel = await (await company.dial()).subscribe(NEWS)
        keyed = {"channel": NEWS, "idempotency_key": "k" * 64}
        first = await api("publish", data="first", **keyed)
        assert await api("publish", data="repeated", **keyed) == first
        both = {"channels": [NEWS, "chat:other"], "idempotency_key": "k" * 64}
        repeated, new = (await api("broadcast", data="repeated", **both)).responses
        assert repeated.result == first and new.result.offset == 1
        last = await api("publish", channel=NEWS, data="last", idempotency_key="l")
        assert last.offset == first.offset + 1
        assert await channel.told.count(2) == ["first", "last"]
        long = api("publish", channel=NEWS, data="x", idempotency_key="k" * 65)
        assert await fault(long) == 107

    scenario(start, body)


def test_a_broadcast_answers_for_each_channel(start):
    async def body(company, api):
        peer = await company.dial()
        channels = [await peer.subscribe(f"chat:{number}") for number in range(20)]
        names = [f"chat:{number}" for number in range(20)] + ["nowhere:1", ""]
        responses = (await api("broadcast", channels=names, data={"n": 1})).responses
        for channel in channels:
            assert await channel.told.count(1) == [{"n": 1}]
        assert [response.result.offset for response in responses[:20]] == [1] * 20
        assert [response.error.code for response in responses[20:]] == [102, 107]
        assert await fault(api("broadcast", channels=[], data=1)) == 107

    scenario(start, body)


def test_servers_subscribe_and_unsubscribe_the_connections_of_a_user(start):
    async def body(company, api):
        anne, tablet = await company.user("anne"), await company.user("anne")
        bob = await company.user("bob")
        await api("subscribe", user="anne", channel=NEWS, data={"why": "you pay"}, info={"vip": 1})
        for peer in (anne, tablet):
            context = await peer.events.next("subscribed")
            assert (context.channel, context.data) == (NEWS, {"why": "you pay"})
        members = (await api("presence", channel=NEWS)).presence
        assert {member.user for member in members.values()} == {"anne"} and len(members) == 2
        assert members[anne.sdk.client_id].chan_info == {"vip": 1}
        await api("publish", channel=NEWS, data="for members")
        for peer in (anne, tablet):
            assert await peer.events.count(1) == ["for members"]

        await api("unsubscribe", user="anne", client=tablet.sdk.client_id, channel=NEWS)
        assert (await tablet.events.next("unsubscribed")).channel == NEWS
        await api("unsubscribe", user="anne", channel=NEWS)
        assert (await anne.events.next("unsubscribed")).channel == NEWS

        async def empty():
            stats = await api("presence_stats", channel=NEWS)
            return (stats.num_clients, stats.num_users) == (0, 0)

        await settles(empty, "empty")
        assert bob.events.all("subscribed") == []
        assert await fault(api("subscribe", user="anne", channel="nowhere:1")) == 102

    scenario(start, body, **KEYED)


def test_a_subscription_by_a_server_recovers_from_a_place(start):
    async def body(company, api):
        place = await api("publish", channel=NEWS, data="seen")
        for data in ("missed", "missed, too"):
            await api("publish", channel=NEWS, data=data)
        anne = await company.user("anne")
        since = cent.StreamPosition(offset=place.offset, epoch=place.epoch)
        await api("subscribe", user="anne", channel=NEWS, recover_since=since)
        assert (await anne.events.next("subscribed")).channel == NEWS
        assert await anne.events.count(2) == ["missed", "missed, too"]
        await api("publish", channel=NEWS, data="later")
        assert await anne.events.count(3) == ["missed", "missed, too", "later"]

    scenario(start, body, **KEYED)


def test_servers_disconnect_users_and_connections_with_a_code_and_a_reason(start):
    async def body(company, api):
        anne, tablet = await company.user("anne"), await company.user("anne")
        bob, stranger = await company.user("bob"), await company.dial()
        out = cent.Disconnect(code=4555, reason="signed out")
        keep = [tablet.sdk.client_id]
        await api("disconnect", user="anne", whitelist=keep, disconnect=out)
        told = await anne.events.next("disconnected")
        assert (told.code, told.reason) == (4555, "signed out")

        await api("disconnect", user="", client=stranger.sdk.client_id)
        told = await stranger.events.next("disconnected")
        assert (told.code, told.reason) == (3503, "force disconnect")
        # After a code below 3500 the SDK comes back, as another connection.
        before = bob.sdk.client_id
        back = cent.Disconnect(code=3011, reason="come back")
        await api("disconnect", user="bob", session=before, disconnect=back)
        assert (await bob.events.next("connecting", lambda told: told.code == 3011)).reason
        await bob.events.next("connected", lambda told: told.client != before)
        assert tablet.events.all("disconnected") == bob.events.all("disconnected") == []

        # A connection that has gone is nobody; what is no client id is a mistake.
        await api("disconnect", user="bob", client=before)
        assert await fault(api("disconnect", user="bob", client="7")) == 107
        assert await fault(api("disconnect", user="")) == 107
        for code in (0, 1000, 5000):
            wrong = cent.Disconnect(code=code, reason="x")
            assert await fault(api("disconnect", user="bob", disconnect=wrong)) == 107

    scenario(start, body, **KEYED)


def test_servers_say_when_a_connection_expires(start):
    async def body(company, api):
        async def fresh(context):
            return token(sub="anne")

        anne = await company.user("anne")
        renewed = await company.dial(token=token(sub="anne"), get_token=fresh)
        await api("refresh", user="anne", client=renewed.sdk.client_id, expired=True)
        # The SDK gets another token, and comes back.
        await renewed.events.next("connecting", lambda told: told.code == 3005)
        await renewed.events.next("connected", lambda told: told.client)
        assert anne.events.all("disconnected") == []
        await api("refresh", user="anne", client=anne.sdk.client_id, expire_at=1)
        await anne.events.next("connecting", lambda told: told.code == 3005)

    scenario(start, body, **KEYED)


def test_history_is_read_in_both_directions_and_removed(start):
    async def body(company, api):
        places = [await api("publish", channel=NEWS, data=n) for n in range(1, 11)]
        top = await api("history", channel=NEWS)
        assert (top.publications, top.offset, top.epoch) == ([], 10, places[0].epoch)

        async def read(**fields):
            history = await api("history", channel=NEWS, **fields)
            assert history.offset == 10
            assert all(pub.data == pub.offset for pub in history.publications)
            return [pub.offset for pub in history.publications]

        assert await read(limit=-1) == list(range(1, 11))
        assert await read(limit=3) == [1, 2, 3]
        assert await read(limit=3, reverse=True) == [10, 9, 8]
        since = cent.StreamPosition(offset=4, epoch=top.epoch)
        assert await read(limit=2, since=since) == [5, 6]
        assert await read(limit=2, since=since, reverse=True) == [3, 2]
        assert await read(limit=-1, since=cent.StreamPosition(offset=8)) == [9, 10]
        other = cent.StreamPosition(offset=4, epoch="another")
        assert await fault(api("history", channel=NEWS, limit=1, since=other)) == 112

        await api("publish", channel=NEWS, data="passing", skip_history=True)
        assert await read(limit=-1) == list(range(1, 11))
        await api("history_remove", channel=NEWS)
        assert await read(limit=-1) == []
        assert await fault(api("history", channel="plain:x", limit=1)) == 108
        assert await fault(api("history_remove", channel="plain:x")) == 108
        assert await fault(api("history", channel="nowhere:x")) == 102

    scenario(start, body)


def test_presence_tells_who_is_there(start):
    async def body(company, api):
        anne, tablet = await company.user("anne"), await company.user("anne", info={"of": "tablet"})
        for peer in (anne, tablet, await company.user("bob")):
            await peer.subscribe(NEWS)
        members = (await api("presence", channel=NEWS)).presence
        assert sorted(member.user for member in members.values()) == ["anne", "anne", "bob"]
        assert all(client == member.client for client, member in members.items())
        assert members[tablet.sdk.client_id].conn_info == {"of": "tablet"}
        stats = await api("presence_stats", channel=NEWS)
        assert (stats.num_clients, stats.num_users) == (3, 2)
        assert await fault(api("presence", channel="plain:x")) == 108
        assert await fault(api("presence_stats", channel="plain:x")) == 108

    scenario(start, body, **KEYED)


def test_channels_of_all_reactors_are_listed(start):
    async def body(company, api):
        peers = [await company.dial() for _ in range(2)]
        for number in range(40):
            await peers[0].subscribe(f"chat:{number}")
        await peers[1].subscribe("chat:7")
        await peers[1].subscribe("plain:7")
        channels = (await api("channels")).channels
        assert len(channels) == 41
        assert channels["chat:7"].num_clients == 2 and channels["chat:8"].num_clients == 1
        channels = (await api("channels", pattern="*:7")).channels
        assert sorted(channels) == ["chat:7", "plain:7"]
        assert (await api("channels", pattern="nothing*")).channels == {}

        async def counted():
            [node] = (await api("info")).nodes
            assert node.uid and node.name and node.version and node.uptime >= 0
            return (node.num_clients, node.num_subs, node.num_channels) == (2, 42, 41)

        await settles(counted, "counted")

    scenario(start, body)


def test_a_batch_answers_each_command_in_its_place(start):
    async def body(company, api):
        channel = await (await company.dial()).subscribe(NEWS)
        commands = [request("publish", channel=NEWS, data=n) for n in range(10)]
        commands += [request("history", channel=NEWS, limit=-1), request("info"),
                     request("broadcast", channels=[NEWS, "chat:other"], data=10),
                     request("channels"), request("presence_stats", channel=NEWS)]
        for parallel in (False, True):
            replies = (await api("batch", requests=commands, parallel=parallel)).replies
            offset = 11 * parallel
            assert [reply.offset for reply in replies[:10]] == list(range(offset + 1, offset + 11))
            assert [pub.offset for pub in replies[10].publications] == list(range(1, offset + 11))
            assert replies[12].responses[0].result.offset == offset + 11
            assert NEWS in replies[13].channels and replies[14].num_clients == 1
        assert await channel.told.count(22) == list(range(11)) * 2

    scenario(start, body)


def test_cent_without_threads_is_served_as_well(start):
    async def body(company, api):
        channel = await (await company.dial()).subscribe(NEWS)
        url = f"http://127.0.0.1:{company.server.port}/api"
        async with cent.AsyncClient(url, API_KEY) as client:
            publishes = [client.publish(request("publish", channel=NEWS, data=n))
                         for n in range(50)]
            results = await asyncio.gather(*publishes)
        assert sorted(result.offset for result in results) == list(range(1, 51))
        assert sorted(await channel.told.count(50)) == list(range(50))

    scenario(start, body)


def test_the_wrong_key_is_refused_and_without_one_there_is_no_api(start):
    for key in ("", "another", API_KEY[:-1], API_KEY + "x"):
        with pytest.raises(cent.CentUnauthorizedError):
            asyncio.run(Api(serve(start), key)("info"))
    with pytest.raises(cent.CentTransportError) as refused:
        asyncio.run(Api(start())("info"))
    assert refused.value.status_code == 403
