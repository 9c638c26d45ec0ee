"""What the server API has beyond Centrifugo's, over plain HTTP: direct messages to connections of
every dialect, who is connected, numbers; and what it says to requests that make no sense."""

import asyncio
import http.client
import json
import re
import socket
import time

import pytest
from native import API_KEY, PATIENCE_S, SECRET, Company, run, serve, settles, token
from websockets.asyncio.client import connect

NEWS = "chat:news"
PATH = "/connection/websocket"
PLAIN = ("/", "/echo", "/raw/lobby")


class Api:
    """One keep-alive connection; what went wrong is an answer like others."""

    def __init__(self, server):
        self.http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)

    def ask(self, path, body=None, verb="POST", key=API_KEY):
        body = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        self.http.request(verb, f"/api/{path}", body, {"X-API-Key": key} if key else {})
        answer = self.http.getresponse()
        return answer.status, answer.read()

    def call(self, method, **body):
        status, answer = self.ask(method, body)
        assert status == 200, answer
        return json.loads(answer)

    def result(self, method, **body):
        answer = self.call(method, **body)
        assert answer.keys() == {"result"}, answer
        return answer["result"]

    def error(self, method, **body):
        answer = self.call(method, **body)
        assert answer.keys() == {"error"}, answer
        return answer["error"]["code"], answer["error"]["message"]


class Native:
    """A client that shows every push, which the SDK does not."""

    def __init__(self, opened):
        self.socket = opened
        self.pushes = []

    @classmethod
    async def dial(cls, server, **credentials):
        client = cls(await dial(server, PATH))
        await client.socket.send(json.dumps({"id": 1, "connect": credentials}))
        client.id = (await client.line(lambda line: line.get("id") == 1))["connect"]["client"]
        return client

    async def line(self, test):
        while True:
            if not self.pushes:
                text = await asyncio.wait_for(self.socket.recv(), PATIENCE_S)
                self.pushes = [json.loads(line) for line in text.split("\n")]
            line = self.pushes.pop(0)
            if test(line):
                return line

    async def message(self):
        return (await self.line(lambda line: "message" in line.get("push", {})))["push"]


async def dial(server, path, query=""):
    return await connect(server.url(path) + query, proxy=None, compression=None)


async def heard(peer):
    return await asyncio.wait_for(peer.recv(), PATIENCE_S)


KEYED = {"TOKEN_SECRET": SECRET, "TOKEN_REQUIRED": "false"}


def scenario(start, body, **options):
    server = serve(start, **options)
    run(body(server, Api(server)))


def test_a_broadcast_to_all_reaches_every_dialect(start):
    async def body(server, api):
        peers = [await dial(server, path) for path in PLAIN for _ in range(3)]
        for peer in peers[:3]:
            assert "Welcome" in await heard(peer)
        natives = [await Native.dial(server) for _ in range(3)]
        assert api.result("broadcast_all", data={"all": "hear"}) == {}
        for peer in peers:
            assert json.loads(await heard(peer)) == {"all": "hear"}
        for native in natives:
            assert (await native.message()) == {"message": {"data": {"all": "hear"}}}
        # Each of them once: what comes next is the next.
        api.result("broadcast_all", b64data="AP8=")
        assert [await heard(peer) for peer in peers] == [b"\x00\xff"] * 9
        for native in natives:
            assert (await native.message()) == {"message": {"data": "AP8="}}
        for peer in [*peers, *(native.socket for native in natives)]:
            await peer.close()

    scenario(start, body)


def test_a_user_and_a_connection_are_told_something_of_their_own(start):
    async def body(server, api):
        anne = token(sub="anne")
        echo = await dial(server, "/echo", f"?token={anne}")
        natives = [await Native.dial(server, token=anne) for _ in range(3)]
        bob = await Native.dial(server, token=token(sub="bob"))
        assert api.result("send", user="anne", data={"to": "anne"}) == {}
        assert json.loads(await heard(echo)) == {"to": "anne"}
        for native in natives:
            assert (await native.message())["message"]["data"] == {"to": "anne"}
        api.result("send", client=natives[1].id, data=[1, "only"])
        api.result("send", user="bob", data="to bob")
        assert (await bob.message())["message"]["data"] == "to bob"
        assert (await natives[1].message())["message"]["data"] == [1, "only"]
        # The others have heard nothing in between.
        api.result("send", user="anne", data="last")
        for native in natives:
            assert (await native.message())["message"]["data"] == "last"
        # Nobody is there to hear it, and that is no mistake.
        assert api.result("send", user="nobody", data=1) == {}
        assert api.error("send", data=1)[0] == 107
        assert api.error("send", user="anne") == (
            107, "bad request: data: expected a value, and found none")

    scenario(start, body, **KEYED)


def test_connections_are_listed_and_each_can_be_closed_by_its_id(start):
    async def body(server, api):
        began = int(time.time())
        async with Company(server) as company:
            anne = await company.user("anne")
            await anne.subscribe(NEWS)
            await anne.subscribe("plain:x")
            raw = await dial(server, "/raw/lobby")
            echoes = [await dial(server, "/echo") for _ in range(5)]
            found = api.result("connections")["connections"]
            assert len(found) == 7
            client = anne.sdk.client_id
            shown = found[client]
            assert sorted(shown.pop("channels")) == [NEWS, "plain:x"]
            assert shown.pop("remote").startswith("127.0.0.1:")
            assert began <= shown.pop("connected_at") <= shown.pop("last_seen") <= time.time() + 1
            assert shown == {"client": client, "user": "anne", "dialect": "native",
                             "transport": "websocket", "protocol": "json"}
            by_dialect = sorted(each["dialect"] for each in found.values())
            assert by_dialect == ["echo"] * 5 + ["native", "raw"]
            [lobby] = [each for each in found.values() if each["dialect"] == "raw"]
            assert lobby["channels"] == ["lobby"] and lobby["user"] == ""

            def get(query):
                [got, posted] = [api.ask(f"connections?{query}", verb=verb)
                                 for verb in ("GET", "POST")]
                assert got[0] == posted[0] == 200
                assert json.loads(got[1]).keys() == json.loads(posted[1]).keys()
                return json.loads(got[1])

            assert get("user=anne")["result"]["connections"].keys() == {client}
            assert get("user=nobody&limit=5")["result"] == {"connections": {}}
            some = get("limit=3")["result"]
            assert len(some["connections"]) == 3 and some["truncated"]
            assert "truncated" not in get("limit=7")["result"]
            assert get("limit=1001")["error"]["code"] == get("limit=x")["error"]["code"] == 107

            out = {"code": 4001, "reason": "go"}
            api.result("disconnect", client=lobby["client"], disconnect=out)
            await asyncio.wait_for(raw.wait_closed(), PATIENCE_S)
            assert (raw.close_code, raw.close_reason) == (4001, "go")

            async def gone():
                return len(api.result("connections")["connections"]) == 6

            await settles(gone, "gone")
            for echo in echoes:
                await echo.close()

    scenario(start, body, **KEYED)


def test_numbers_of_the_server_follow_what_happens(start):
    async def body(server, api):
        async with Company(server) as company:
            peer = await company.dial()
            channel = await peer.subscribe(NEWS)
            for number in range(5):
                api.result("publish", channel=NEWS, data=number)
            await channel.told.count(5)

            async def counted():
                status, answer = api.ask("stats", verb="GET")
                assert status == 200
                stats = json.loads(answer)["result"]
                return stats if stats["deliveries_total"] >= 5 else None

            stats = await settles(counted, "delivered")
            assert stats["connections"] == stats["connections_by_dialect"]["native"] == 1
            assert (stats["channels"], stats["subscriptions"], stats["reactors"]) == (1, 1, 4)
            published = stats["publications_by_dialect"]
            assert published["server"] == sum(published.values()) == 5
            assert stats["version"] and stats["resident_bytes"] > 0 and stats["uptime"] >= 0
            assert {"buffer_bytes", "mail_bytes", "messages_sent_total"} <= stats.keys()

    scenario(start, body)


def test_one_connection_of_a_server_publishes_in_order(start):
    async def body(server, api):
        async with Company(server) as company:
            channels = [await (await company.dial()).subscribe(NEWS) for _ in range(3)]
            for number in range(1, 501):
                place = api.result("publish", channel=NEWS, data=number)
                assert place["offset"] == number
            for channel in channels:
                assert await channel.told.count(500) == list(range(1, 501))

    scenario(start, body)


def test_requests_may_be_sent_before_the_answers_to_others_are_there(start):
    server = serve(start)
    body = json.dumps({"channel": NEWS, "data": "x"})
    head = f"POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as ours:
        ours.sendall(request * 300)
        answers = b""
        while answers.count(b"HTTP/1.1 200 ") < 300 or not answers.endswith(b"}}"):
            chunk = ours.recv(65536)
            assert chunk, answers
            answers += chunk
    offsets = [int(offset) for offset in re.findall(rb'"offset":(\d+)', answers)]
    assert offsets == list(range(1, 301))


def test_data_is_passed_on_as_it_was_written_in_one_line(start):
    async def body(server, api):
        lobby = await dial(server, "/raw/lobby")

        async def subscribed():
            return api.result("channels")["channels"] == {"lobby": {"num_clients": 1}}

        await settles(subscribed, "subscribed")
        for text in ("1e400", "0.10", "null", '{"b": 1,"a":[ 2 ],"a":"\\u0041"}', '"\\n"'):
            status, answer = api.ask("publish", f'{{"channel":"lobby","data": {text} }}')
            assert status == 200 and b"result" in answer
            assert await heard(lobby) == text
        api.ask("publish", '{"channel":"lobby","data":{\r\n"a"\n:1}}')
        assert await heard(lobby) == '{  "a" :1}'
        await lobby.close()

    scenario(start, body)


def test_a_home_that_is_full_says_so_and_recovers(start):
    async def body(server, api):
        publish = {"publish": {"channel": "plain:x", "data": "x" * 900}}
        async with Company(server) as company:
            channel = await (await company.dial()).subscribe("plain:x")
            status, answer = api.ask("batch", {"commands": [publish] * 1000, "parallel": True})
            assert status == 200
            replies = json.loads(answer)["replies"]
            taken = [reply for reply in replies if "publish" in reply]
            refused = [reply["error"]["code"] for reply in replies if "error" in reply]
            assert len(taken) + len(refused) == 1000 and len(taken) > 10
            assert refused and set(refused) == {111}
            assert len(await channel.told.count(len(taken))) == len(taken)
            assert api.result("publish", channel="plain:x", data="after")["offset"]
            assert (await channel.told.count(len(taken) + 1))[-1] == "after"

    scenario(start, body, MAX_MAIL_BYTES="64KiB")


def test_a_long_history_ends_early_and_says_so(start):
    async def body(server, api):
        for number in range(40):
            api.result("publish", channel=NEWS, data=f"{number} " + "x" * 60_000)
        found, since = 0, None
        while True:
            more = {"since": since} if since else {}
            part = api.result("history", channel=NEWS, limit=-1, **more)
            publications = part["publications"]
            assert [pub["offset"] for pub in publications] == list(
                range(found + 1, found + len(publications) + 1))
            found += len(publications)
            if not part.get("truncated"):
                break
            assert publications
            since = {"offset": publications[-1]["offset"], "epoch": part["epoch"]}
        assert found == 40 and since

    scenario(start, body)


WRONG = {
    "publish": [
        "", "[]", "5", "{", "{}", b"\xff", {"channel": 5, "data": 1}, {"channel": "", "data": 1},
        {"channel": "a", "tags": {"a": 1}, "data": 1}, {"channel": "a\u0001", "data": 1},
        {"channel": "x" * 201, "data": 1}, {"channel": "a", "b64data": "!"}, {"channel": "a"},
        {"channel": "a", "data": 1, "skip_history": "yes"}, '{"channel":"a","data":1}{}',
        '{"channel":"a","channel":"b","data":1}', "[" * 100_000,
        '{"channel":"a","data":' + "[" * 200 + "]" * 200 + "}",
    ],
    "broadcast": [{"channels": "a", "data": 1}, {"channels": [1], "data": 1}, {"data": 1},
                  {"channels": ["a"] * 10_000, "data": 1}],
    "history": [{"channel": NEWS, "limit": "5"}, {"channel": NEWS, "limit": -2},
                {"channel": NEWS, "since": 5}, {"channel": NEWS, "since": {"offset": "1"}}],
    "disconnect": [{}, {"user": 5}, {"client": "x"}, {"user": "a", "whitelist": ["x"]}],
    "subscribe": [{"channel": "a"}, {"user": "a"}, {"user": "a", "channel": "a", "expire_at": "x"}],
    "batch": [{}, {"commands": {}}, "[]"],
    "connections": [{"limit": "x"}, {"user": 5}],
}


def test_requests_that_make_no_sense_are_told_what_was_expected(start):
    api = Api(serve(start))
    for method, bodies in WRONG.items():
        for body in bodies:
            status, answer = api.ask(method, body)
            error = json.loads(answer)["error"]
            assert (status, error["code"]) == (200, 107), (method, str(body)[:80], answer)
            assert error["message"].startswith("bad request: "), answer
    assert api.error("publish", channel="nowhere:x", data=1)[0] == 102
    assert api.error("publish", channel="a", data=1, version=7)[0] == 108
    override = {"presence": {"value": True}}
    assert api.error("subscribe", channel="a", user="u", override=override)[0] == 108
    assert api.error("connections", expression="true")[0] == 108
    assert api.error("batch", commands=[{"info": {}}] * 1001)[0] == 106
    replies = api.call("batch", commands=[{"fly": {}}, {"info": {}}, 5, {"publish": 5}])["replies"]
    codes = [reply.get("error", {}).get("code") for reply in replies]
    assert codes == [104, None, 107, 107]


@pytest.mark.parametrize("verb, path, key, status", [
    ("POST", "publish", None, 401), ("POST", "publish", "wrong", 401),
    ("GET", "connections", None, 401), ("GET", "stats", "wrong", 401),
    ("GET", "publish", API_KEY, 405), ("PUT", "stats", API_KEY, 405), ("GET", "info", API_KEY, 405),
    ("POST", "fly", API_KEY, 404), ("POST", "", API_KEY, 404), ("POST", "publish/", API_KEY, 404),
])
def test_requests_of_other_kinds_have_a_status(start, verb, path, key, status):
    api = Api(serve(start))
    assert api.ask(path, {"channel": "a", "data": 1}, verb, key)[0] == status


def test_with_an_admin_listener_the_api_is_only_there(start):
    server = serve(start, ADMIN_LISTEN="127.0.0.1:0")
    assert Api(server).ask("info", {})[0] == 404
