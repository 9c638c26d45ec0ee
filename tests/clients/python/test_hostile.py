"""What no client sends by itself: the server answers, or closes with a code and a reason. It never
panics, its log does not grow with what it is sent, and meanwhile it serves others."""

import itertools
import json
import re

import pytest
from wire import (API_KEY, BINARY, SECRET, Api, Closed, Line, Native, Socket, frame, strict, token)

KINDS = {
    f"allow_{what}_for_{who}": True
    for what in ("subscribe", "publish", "presence", "history") for who in ("client", "anonymous")
}
NAMESPACES = [{"name": "chat", "raw": True, "presence": True, "join_leave": True,
               "history_size": 100, "history_ttl": "300s", **KINDS}]
# Lines of the log that starting and stopping take.
LINES_USUAL = 20
METHODS = ("publish broadcast subscribe unsubscribe disconnect refresh presence presence_stats "
           "history history_remove channels info batch send broadcast_all connections stats "
           "revoke").split()


@pytest.fixture
def server(start):
    """A server that is watched by somebody who is served, and has not panicked in the end."""
    options = {"API_KEY": API_KEY, "REACTORS": "4", "DRAIN_TIME": "0", "CLOSE_TIMEOUT": "100ms",
               "TOKEN_SECRET": SECRET, "TOKEN_REQUIRED": "false", "LOG_FORMAT": "text",
               "NAMESPACES": json.dumps(NAMESPACES)}
    server = start(**options)
    with Native(server, token(sub="witness")) as witness:
        assert witness.code("subscribe", channel="chat:witness") == 0
        yield server
        assert witness.code("publish", channel="chat:witness", data="served") == 0
        assert witness.publications("served") == [("chat:witness", "served")]
    log = server.log.read_text()
    assert "panic" not in log.lower(), log
    assert len(log.splitlines()) < LINES_USUAL, log
    assert server.process.poll() is None


def told(server, *lines, connects=True, kind=None):
    """What the server says to these messages: the codes of its answers by their ids, and how it
    closed."""
    codes = {}
    with Native(server, connects=False) as peer:
        if connects:
            peer.command("connect")
        for line in lines:
            peer.send(line, *([kind] if kind else []))
        # The last of all, which is only answered when nothing before has ended it.
        peer.send('{"id":4000000000,"rpc":{"method":"last"}}')
        try:
            while 4_000_000_000 not in codes:
                answer = peer.line()
                if "id" in answer:
                    codes[answer["id"]] = answer.get("error", {}).get("code", 0)
        except Closed as closed:
            assert closed.reason, f"{closed.code} without a reason"
            return codes, closed.code
    return codes, None


GARBAGE = [
    "garbage", "[]", "null", "true", "1", '"x"', "[" * 60_000, '{"a":' * 12_000, "{", "}", "\x00",
    '{"id":2}{"id":3}', '{"id":2,"publish":{"channel":"chat:x","data":1}}\x00', "\ufeff{}",
    '{"id":2,"publish":{"channel":"chat:x","data":"\x00"}}', "{'id':2}", '{"id":2,}',
    '{"id":2,"publish":{"channel":"chat:x","data":NaN}}', '{"id":02,"rpc":{}}',
    '{"id":2,"publish":{"channel":"chat:x","data":1},"subscribe":{"channel":"chat:x"}}',
    '{"id":2,"publish":5}', '{"publish":{"channel":"chat:x","data":1}}',
    '{"id":2,"publish":{"channel":5,"data":1}}', '{"id":2,"subscribe":{"channel":["chat:x"]}}',
    '{"id":2,"subscribe":{"channel":"chat:\\ud800"}}',
    '{"id":2,"subscribe":{"channel":"chat:x","recover":"yes"}}',
    '{"id":2,"subscribe":{"channel":"chat:x","offset":-1,"recover":true}}',
    '{"id":2,"history":{"channel":"chat:x","limit":"5"}}',
    '{"id":2,"history":{"channel":"chat:x","limit":1e30}}',
    '{"id":2,"history":{"channel":"chat:x","since":5}}',
    '{"id":2,"refresh":{"token":5}}',
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=[text[:40] for text in GARBAGE])
def test_what_is_no_command_ends_the_connection_for_good(server, garbage):
    codes, closed = told(server, garbage)
    assert closed == 3501 and 4_000_000_000 not in codes
    assert told(server, garbage, connects=False)[1] == 3501


def test_bytes_are_no_commands(server):
    line = b'{"id":2,"publish":{"channel":"chat:x","data":1}}'
    assert told(server, line, kind=BINARY)[1] == 3501
    with Native(server) as peer:
        peer.write(frame(b'{"id":2,"rpc":{"method":"\xff"}}'))
        assert peer.ending().code == 1007


@pytest.mark.parametrize("method", ["subscribe", "publish", "presence", "history", "rpc", "send",
                                    "refresh", "sub_refresh", "unsubscribe", "fly"])
def test_connect_comes_first(server, method):
    fields = {"channel": "chat:x", "data": 1, "token": token(sub="42"), "method": "x"}
    with Native(server) as other:
        assert other.code("subscribe", channel="chat:x") == 0
        codes, closed = told(server, json.dumps({"id": 1, method: fields}), connects=False)
        assert (codes, closed) == ({}, 3501)
        assert other.code("publish", channel="chat:x", data="first") == 0
        assert other.publications("first") == [("chat:x", "first")]


@pytest.mark.parametrize("number", ["-1", "0", "1.5", "1e3", "4294967296", "18446744073709551616",
                                    "1" * 400, '"2"', "null", "true", "[]", "{}"])
def test_an_id_is_a_number_from_one_on(server, number):
    line = f'{{"id":{number},"publish":{{"channel":"chat:x","data":1}}}}'
    assert told(server, line)[1] == 3501


def test_connect_comes_once(server):
    assert told(server, '{"id":2,"connect":{}}') == ({1: 0}, 3501)


def test_an_id_may_be_used_again(server):
    with Native(server) as peer:
        for _ in range(3):
            line = '{"id":7,"publish":{"channel":"chat:x","data":1}}'
            peer.send(f"{line}\n{line}")
            assert [peer.line(), peer.line()] == [{"id": 7, "publish": {}}] * 2


def test_many_commands_in_a_message_and_lines_with_nothing_on_them(server):
    lines = "\n".join(f'\r\n \n{{"id":{n},"publish":{{"channel":"chat:x","data":{n}}}}}\t\r'
                      for n in range(2, 1002))
    with Native(server) as other:
        assert other.code("subscribe", channel="chat:x") == 0
        codes, closed = told(server, "", "\n\n\n", " \r\n", "{}", lines, "{}\n{}\n\n")
        heard = other.publications(1001)
    assert closed is None and codes == dict.fromkeys([1, *range(2, 1002)], 0) | {4_000_000_000: 104}
    assert heard == [("chat:x", n) for n in range(2, 1002)]


def test_fields_that_nobody_knows_do_nothing(server):
    odd = '"__proto__":{"admin":true},"constructor":[],"":0,"a\\u0000":1'
    deep = "[" * 20_000 + "]" * 20_000
    codes, closed = told(
        server, f'{{"id":2,"subscribe":{{"channel":"chat:x",{odd}}}}}',
        f'{{"id":3,"publish":{{"channel":"chat:x","data":{{{odd}}},"deep":{deep}}}}}',
        '{"id":4,"__proto__":{}}', '{"id":5,"fly":{}}', '{"id":6,"rpc":{"method":"__proto__"}}')
    assert closed is None
    assert codes == {1: 0, 2: 0, 3: 0, 4: 104, 5: 104, 6: 104, 4_000_000_000: 104}


NUMBERS = ["1e999999", "-1e-999999", "9" * 1000, "0.1" + "0" * 500 + "1", "-0", "1E+2",
           "18446744073709551616", "9007199254740993"]


@pytest.mark.parametrize("data", [*NUMBERS, '"\\ud800"', '"\\u0000"', '"\\u2028"', '"\u2028"',
                                  '{"a":1,"a":2}', '{"__proto__":1}', "[" * 128 + "]" * 128])
def test_data_arrives_as_it_was_written(server, data):
    with Native(server) as peer, Socket(server, "/raw/chat:x") as raw:
        assert peer.code("subscribe", channel="chat:x") == 0
        body = f'{{"channel":"chat:x","data":{data}}}'
        for number in (101, 102):
            peer.send(f'{{"id":{number},"publish":{body[:-1]}}}}}')
            while f'"data":{data}' not in (text := peer.message()):
                assert "error" not in text, text
            assert raw.message() == data
        assert Api(server).ask("/api/publish", body)[0] == 200
        while f'"data":{data}' not in peer.message():
            pass
        assert raw.message() == data


def test_data_that_nests_too_deep_is_refused_everywhere(server):
    for depth in (129, 1000, 20_000):
        data = "[" * depth + "]" * depth
        body = f'{{"channel":"chat:x","data":{data}}}'
        codes, closed = told(server, f'{{"id":2,"publish":{body}}}')
        assert (codes[2], closed) == (107, None)
        answer = json.loads(Api(server).ask("/api/publish", body)[1])
        assert answer["error"]["code"] == 107


LINES = ["a\nb", "a\r\nb", '{"a":\n1}', '[1,\r\n2]', "\n", "", "\x00", "\x1b[0m",
         '{"a":1}\n{"b":2}', "\u2028\u2029\x85", '"\t"', '"\n"',
         "nul", "NaN", "\ufeff1", "[" * 200 + "]" * 200, "\\",
         '"\\', '","push":{}']


def test_what_comes_from_raw_is_one_object_on_one_line(server):
    with Native(server) as peer, Socket(server, "/raw/chat:x") as raw:
        assert peer.code("subscribe", channel="chat:x") == 0
        api = Api(server)
        for text in LINES:
            raw.send(text)
            pub = peer.push("pub")
            assert pub["data"] in (text, json_or_none(text)), text
            assert api.ask("/raw/chat:x", text, Content_Type="text/plain")[0] == 200
            assert peer.push("pub")["data"] == pub["data"]
            assert raw.message() == text
        raw.send(b"\n\xff{}", BINARY)
        assert peer.push("pub")["data"] == "Cv97fQ=="


def json_or_none(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def test_what_comes_from_the_api_is_one_object_on_one_line(server):
    with Native(server) as peer:
        assert peer.code("subscribe", channel="chat:x") == 0
        odd = '"k\\n\\u2028\\"":"v\\r\\n"'
        body = f'{{\n"channel":"chat:x",\r\n"data":\n{{\t"a":\n[1,\r2]}}\n,"tags":{{\n{odd}}}\n}}'
        assert Api(server).ask("/api/publish", body)[0] == 200
        pub = peer.push("pub")
        assert pub["data"] == {"a": [1, 2]} and pub["tags"] == {'k\n\u2028"': "v\r\n"}
        send = f'{{"client":"{peer.client}","data":\n[\n1\n]\n}}'
        assert Api(server).ask("/api/send", send)[0] == 200
        assert peer.push("message")["data"] == [1]


def test_tokens_of_others_and_tokens_that_are_none(server):
    for odd in ("x" * 60_000, "a.b.c", "." * 60_000, "\\u0000", token(sub="42") + "x"):
        line = f'{{"id":1,"connect":{{"token":"{odd}"}}}}'
        assert told(server, line, connects=False)[1] == 3500
    mine = token(sub="42")
    for method, fields in {"refresh": {"token": token(sub="7")},
                           "sub_refresh": {"channel": "$x", "token": token(sub="7", channel="$x")},
                           }.items():
        with Native(server, mine) as peer:
            own = token(sub="42", channel="$x")
            assert peer.code("subscribe", channel="$x", token=own) == 0
            peer.command(method, **fields)
            assert peer.ending().code == 3500
    with Native(server, mine) as peer:
        own = token(sub="42", channel="$x")
        assert peer.code("sub_refresh", channel="$x", token=own) == 103, "not subscribed"
        assert peer.code("unsubscribe", channel="$x") == 0
    with Native(server) as nobody:
        nobody.command("refresh", token=mine)
        assert nobody.ending().code == 3500


def test_a_user_hears_what_servers_say_whatever_it_says_of_reserved_names(server):
    reserved = ["\x01u42", "\x01", "\x01u", "\x01broadcast"]
    with Native(server, token(sub="42")) as peer, Native(server, token(sub="7")) as other:
        for name, client in itertools.product(reserved, (peer, other)):
            for method in ("publish", "subscribe", "presence", "presence_stats", "history",
                           "unsubscribe"):
                assert client.code(method, channel=name, data=1) == 107, (method, name)
        api = Api(server)
        for method in ("publish", "subscribe", "unsubscribe", "presence", "presence_stats",
                       "history", "history_remove"):
            assert api.code(method, channel="\x01u42", data=1, user="42") == 107, method
        for path in ("/raw/%01u42", "/raw/\\u0001u42%01", "/raw/%2501u42%01"):
            assert Socket(server, path).status == 400
            assert api.ask(path, "x")[0] == 400
        assert not [name for name in api.result("channels")["channels"] if "\x01" in name]
        api.result("send", user="42", data="mine")
        assert peer.push("message")["data"] == "mine"
        api.result("send", user="7", data="yours")
        assert other.push("message")["data"] == "yours"


def request(path, body, verb="POST") -> bytes:
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"{verb} {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


# For each method a body that it takes, and of what types its fields are. `any` takes everything.
FIELDS = {
    "publish": ({"channel": "chat:x", "data": 1}, "channel:str data:any b64data:str tags:dict "
                "skip_history:bool idempotency_key:str"),
    "broadcast": ({"channels": ["chat:x"], "data": 1}, "channels:list tags:dict b64data:str"),
    "subscribe": ({"channel": "chat:x", "user": "u"}, "channel:str user:str client:str "
                  "session:str info:any data:any recover_since:dict expire_at:int"),
    "unsubscribe": ({"channel": "chat:x", "user": "u"}, "channel:str user:str client:str"),
    "disconnect": ({"user": "u"}, "user:str client:str disconnect:dict whitelist:list"),
    "refresh": ({"user": "u"}, "user:str client:str expire_at:int expired:bool"),
    "presence": ({"channel": "chat:x"}, "channel:str"),
    "presence_stats": ({"channel": "chat:x"}, "channel:str"),
    "history": ({"channel": "chat:x"}, "channel:str limit:int since:dict reverse:bool"),
    "history_remove": ({"channel": "chat:x"}, "channel:str"),
    "channels": ({}, "pattern:str"),
    "send": ({"user": "u", "data": 1}, "user:str client:str data:any b64data:str"),
    "broadcast_all": ({"data": 1}, "data:any b64data:str"),
    "connections": ({}, "user:str limit:int"),
}
VALUES = {"str": ["text", "\\u0000", "\ud83d\ude00"], "int": [5, 10**30, -(10**30)], "bool": [True],
          "list": [[], [5], [[]], [None], ["\n"]], "dict": [{}, {"a": 5}], "float": [1.5, 1e300]}


@pytest.mark.parametrize("method", FIELDS)
def test_every_field_has_its_type(server, method):
    api = Api(server)
    body, fields = FIELDS[method]
    assert api.code(method, **body) == 0
    for field, kind in (field.split(":") for field in fields.split()):
        for other, values in VALUES.items():
            for value in values:
                status, answer = api.ask(f"/api/{method}", body | {field: value})
                answer = strict(answer.decode())
                where = f"{method} {field}={value!r}: {answer}"
                assert status == 200 and len(answer) == 1, where
                if kind not in ("any", other):
                    assert answer["error"]["code"] == 107, where
                    assert field in answer["error"]["message"], where
        assert api.code(method, **body | {"nobody": "knows"}, **{"__proto__": []}) == 0


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b"{", b"{}{}", b"\xff", b"\xef\xbb\xbf{}",
                                  b'{"channel":"chat:x","data":1', b"[" * 500_000, b"\0" * 1000,
                                  b'{"a":' * 100_000])
def test_a_body_that_is_no_object_is_a_mistake(server, body):
    api = Api(server)
    for method in METHODS:
        status, answer = api.ask(f"/api/{method}", body)
        if method == "revoke":
            assert status == 400, answer
        else:
            assert (status, strict(answer.decode())["error"]["code"]) == (200, 107), method
    assert api.code("publish", channel="chat:x", data=1) == 0
    odd = b'{"channel":"chat:\\ud800","data":1}'
    assert strict(api.ask("/api/publish", odd)[1].decode())["error"]["code"] == 107


def test_too_much_at_once_is_refused_as_a_whole(server):
    api = Api(server)
    with Native(server) as peer:
        assert peer.code("subscribe", channel="chat:x") == 0
        names = ["chat:x"] + [f"chat:{n}" for n in range(60_000)]
        assert api.code("broadcast", channels=names, data=1) == 107
        publish = {"publish": {"channel": "chat:x", "data": 1}}
        assert api.code("batch", commands=[publish] * 1001) == 106
        with Line(server) as line:
            line.write(request("/api/publish", b" " * (1 << 20) + b"{}")[:1000])
            assert line.response()[0] == 413
        many = {"channels": ["chat:x"] * 8000, "data": 2}
        assert [*api.result("broadcast", **many)["responses"][-1]] == ["result"]
        assert {data for _, data in peer_hears(peer, 8000)} == {2}
    commands = [{"batch": {"commands": [publish]}}, {}, 5, {"__proto__": {}},
                {**publish, "info": {}}]
    _, answer = api.ask("/api/batch", {"commands": commands})
    codes = [reply["error"]["code"] for reply in strict(answer.decode())["replies"]]
    assert codes == [104, 107, 107, 104, 107]


def peer_hears(peer, many):
    heard = []
    while len(heard) < many:
        push = peer.next_push()
        if "pub" in push:
            heard.append((push["channel"], push["pub"]["data"]))
    return heard


def test_a_body_that_ends_in_the_middle_is_nothing(server):
    whole = request("/api/publish", {"channel": "chat:x", "data": "cut"})
    with Native(server) as peer:
        assert peer.code("subscribe", channel="chat:x") == 0
        for end in range(1, len(whole), 7):
            with Line(server) as line:
                line.write(whole[:end])
        with Line(server) as line:
            for at in range(len(whole)):
                line.write(whole[at:at + 1])
            assert line.response()[0] == 200
        assert peer.push("pub")["data"] == "cut"
        assert peer.code("publish", channel="chat:x", data="last") == 0
        assert peer.publications("last") == [("chat:x", "last")]


def test_requests_sent_at_once_are_answered_in_their_order(server):
    asked = []
    for n in range(100):
        asked += [
            request("/api/publish", {"channel": f"chat:{n % 7}", "data": n}),
            request("/raw/chat:raw", b"x"), request("/api/publish", b"{"),
            request("/health", b"", "GET"), request("/api/channels", {"pattern": "nothing"}),
            request("/api/history", {"channel": "chat:nobody", "limit": n}),
        ]
    with Line(server) as line:
        line.write(b"".join(asked))
        for n in range(100):
            answers = [line.response() for _ in range(6)]
            assert {status for status, _ in answers} == {200}
            published, _, refused, _, channels, history = [
                strict(body.decode()) for _, body in answers]
            assert published["result"]["offset"] == n // 7 + 1
            assert refused["error"]["code"] == 107 and channels == {"result": {"channels": {}}}
            assert history["result"]["offset"] == 0


@pytest.mark.parametrize("refused", [
    request("/api/nothing", {}), request("/raw/", b"x"), request("/raw/nowhere:x", b"x"),
    request("/api/info", {}, "PUT"), b"nonsense\r\n\r\n",
    request("/api/info", {}).replace(b"X-API-Key: the", b"X-API-Key: not"),
    b"POST /api/info HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"POST /api/info HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /api/info HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /api/info HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n"
    b"\r\n0\r\n\r\n",
])
def test_what_follows_a_request_that_was_refused_is_not_taken_for_another(server, refused):
    hidden = request("/api/publish", {"channel": "chat:x", "data": "hidden"})
    with Native(server) as peer, Line(server) as line:
        assert peer.code("subscribe", channel="chat:x") == 0
        line.write(refused + hidden)
        assert line.response()[0] >= 400
        with pytest.raises(ConnectionError):
            line.response()
        assert peer.code("publish", channel="chat:x", data="last") == 0
        assert peer.publications("last") == [("chat:x", "last")]


def test_who_leaves_before_the_answer_harms_nobody(server):
    with Native(server) as peer:
        assert peer.code("subscribe", channel="chat:x") == 0
        for n in range(200):
            with Line(server) as line:
                line.write(request("/api/publish", {"channel": "chat:x", "data": n})
                           + request("/api/channels", {}) + request("/api/connections", {}))
        # What was sent whole was published; who asked is gone.
        assert sorted(data for _, data in peer_hears(peer, 200)) == list(range(200))
    for method in ("subscribe", "history", "presence", "publish"):
        for _ in range(50):
            with Native(server) as peer:
                peer.command(method, channel="chat:x", data=1)
    server.settles("tidemill_subscriptions", 1)
    assert Api(server).result("presence_stats", channel="chat:x")["num_clients"] == 0


def test_verbs_and_paths_that_there_are_not(server):
    api = Api(server)
    for method, verb in itertools.product(METHODS, ("GET", "HEAD", "PUT", "DELETE", "PATCH")):
        status, _ = api.ask(f"/api/{method}", verb=verb)
        is_readable = method in ("connections", "stats") and verb in ("GET", "HEAD")
        assert status in ((200, 405) if is_readable else (405,)), (method, verb)
    for path in ("/api", "/api/", "/api/publish/", "/api/Publish", "/api//publish",
                 "/api/./publish", "/api/%70ublish", "/api/publish%00", "/API/publish",
                 "/raw", "/apipublish"):
        for verb in ("GET", "POST", "PUT"):
            assert api.ask(path, verb=verb)[0] == 404, (verb, path)
    for verb in ("GET", "HEAD", "PUT", "DELETE"):
        assert api.ask("/raw/chat:x", verb=verb)[0] in (405, 426), verb
    assert Socket(server, "/api/publish").status in (404, 405)


def test_nothing_but_the_key_opens_the_api(server):
    keys = ["", " ", API_KEY[:-1], API_KEY + "x", API_KEY.upper(), f"{API_KEY},{API_KEY}",
            token(sub="42"), SECRET]
    for method, key in itertools.product(METHODS, keys):
        assert Api(server, key).ask(f"/api/{method}", {})[0] == 401
    stranger = Api(server, None)
    for path in ("/api/info", f"/api/info?api_key={API_KEY}", f"/api/info?X-API-Key={API_KEY}",
                 "/raw/chat:x"):
        for headers in ({}, {"Authorization": f"apikey {API_KEY}"}, {"X_API_Key_": API_KEY}):
            assert stranger.ask(path, {}, **headers)[0] == 401


def test_with_a_listener_of_its_own_the_api_is_nowhere_else(start):
    server = start(API_KEY=API_KEY, ADMIN_LISTEN="127.0.0.1:0", DRAIN_TIME="0",
                   NAMESPACES=json.dumps(NAMESPACES))
    port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", server.log.read_text())[-1])
    assert port != server.port
    for method in METHODS:
        assert Api(server).ask(f"/api/{method}", {})[0] == 404
        assert Api(server, port=port).ask(f"/api/{method}", {})[0] in (200, 400)
        assert Api(server, None, port=port).ask(f"/api/{method}", {})[0] == 401
    with Native(server) as peer:
        assert peer.code("subscribe", channel="chat:x") == 0
        assert Api(server, port=port).code("publish", channel="chat:x", data="admin") == 0
        assert peer.publications("admin")
    for path in ("/raw/chat:x", "/connection/websocket", "/echo"):
        server.port, public = port, server.port
        assert Socket(server, path).status == 404
        server.port = public


@pytest.mark.parametrize("is_required", [True, False])
def test_who_has_not_connected_hears_nothing(start, is_required):
    server = start(API_KEY=API_KEY, REACTORS="4", DRAIN_TIME="0", CLOSE_TIMEOUT="100ms",
                   TOKEN_SECRET=SECRET, TOKEN_REQUIRED=str(is_required).lower())
    api, user = Api(server), token(sub="42")
    lost = token(sub="42", channels=["demo:x", "nowhere:x"])
    with Native(server, connects=False) as silent, Native(server, connects=False) as refused, \
            Native(server, user) as peer:
        assert refused.code("connect", token=lost) == 102
        api.result("broadcast_all", data="for those who were let in")
        api.result("send", user="42", data="for the user")
        heard = [peer.push("message")["data"] for _ in range(2)]
        assert sorted(heard) == ["for the user", "for those who were let in"]
        assert silent.settle() == refused.settle() == []
        # It may still become one of them.
        assert silent.code("connect", token=user) == refused.code("connect", token=user) == 0
        api.result("send", user="42", data="for all three")
        for each in (silent, refused, peer):
            assert each.push("message")["data"] == "for all three"
