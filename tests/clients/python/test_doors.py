"""Every door tried against every kind of namespace and name: the native protocol with a token for
the channel and without, `/raw` as a socket and as a request, the server API. What each must say is
the table below, taken from the documents; that a refusal keeps what it refuses is heard."""

import itertools
import json
from urllib.parse import quote

import pytest
from wire import API_KEY, SECRET, Api, Closed, Native, Socket, token

WHATS = ("subscribe", "publish", "presence", "history")
KEPT = {"presence": True, "history_size": 100, "history_ttl": "300s"}


def granted(*whos, whats=WHATS):
    return {f"allow_{what}_for_{who}": True for what in whats for who in whos}


OPEN = granted("client", "anonymous") | KEPT
NAMESPACES = [
    {"name": "open", "raw": True, **OPEN},
    {"name": "users", "raw": True, **granted("client"), **KEPT},
    {"name": "subs", "raw": True, **granted("subscriber", "anonymous", whats=WHATS[1:]),
     **granted("client", "anonymous", whats=WHATS[:1]), **KEPT},
    {"name": "watch", "raw": True, **granted("client", "anonymous", whats=WHATS[:1]), **KEPT},
    {"name": "lone", "raw": True, **granted("anonymous"), **KEPT},
    {"name": "blind", **granted("client", "anonymous")},
    {"name": "shut", "raw": True},
    {"name": "guard", "raw": True, "protected": True, **OPEN},
    {"name": "limit", "raw": True, "allow_user_limited_channels": True, **OPEN},
    {"name": "wild", "allow_wildcards": True, **OPEN},
]
FREE = "yes yes yes yes"
SHUT = "no no no no"
ODD = " ".join(["107"] * 4)
ABSENT = " ".join(["102"] * 4)
# A name, what `/raw` does with it, what user 42 may and what who has no user id may: subscribe,
# publish, ask who is on, ask what was; and what 42 may once subscribed by a token for the channel.
# `sub` is yes for subscribers, `none` that it is not kept, `either` that or not allowed. `usual`
# stands for what holds in names without a prefix, where it depends on the exposure.
TABLE = [
    ("open:x", "raw", FREE, FREE, "yes yes yes"),
    ("open::x", "raw", FREE, FREE, "yes yes yes"),
    ("open:private-x", "raw", FREE, FREE, "yes yes yes"),
    ("users:x", "raw", FREE, SHUT, "yes yes yes"),
    ("subs:x", "raw", "yes sub sub sub", "yes sub sub sub", "yes yes yes"),
    ("watch:x", "raw", "yes no no no", "yes no no no", "no no no"),
    ("lone:x", "raw", SHUT, SHUT, "no no no"),
    ("blind:x", "", "yes yes none none", "yes yes none none", "yes none none"),
    ("shut:x", "raw", "no no either either", "no no either either", "no either either"),
    ("guard:x", "raw", SHUT, SHUT, "yes yes yes"),
    ("demo:x", "", FREE, FREE, "yes yes yes"),
    ("limit:x", "raw", FREE, FREE, "yes yes yes"),
    ("limit:x#42", "raw", FREE, SHUT, None),
    ("limit:x#7,42", "raw", FREE, SHUT, None),
    ("limit:x#7", "raw", SHUT, SHUT, None),
    ("limit:x#4", "raw", SHUT, SHUT, None),
    ("limit:x#42x", "raw", SHUT, SHUT, None),
    ("limit:x#", "raw", SHUT, SHUT, None),
    ("limit:x#42#7", "raw", SHUT, SHUT, None),
    ("open:x#42", "raw", SHUT, SHUT, None),
    ("wild:x", "", FREE, FREE, "yes yes yes"),
    ("wild:x.*", "", "yes no no no", "yes no no no", None),
    ("wild:*", "", "yes no no no", "yes no no no", None),
    ("wild:x*", "", SHUT, SHUT, None),
    ("wild:x.*.y", "", SHUT, SHUT, None),
    ("wild:x.**", "", SHUT, SHUT, None),
    ("open:x.*", "", SHUT, SHUT, None),
    ("*:x", "", ABSENT, ABSENT, None),
    ("*", "", SHUT, SHUT, None),
    ("x.*", "", SHUT, SHUT, None),
    ("x", "raw", "usual", "usual", "yes none yes"),
    ("ünï ☃/?&%", "raw", "usual", "usual", "yes none yes"),
    ("%2342", "raw", "usual", "usual", "yes none yes"),
    ("%01u42", "raw", "usual", "usual", "yes none yes"),
    ("x" * 200, "raw", "usual", "usual", "yes none yes"),
    ("private-x", "raw", "no no either no", "no no either no", "yes none yes"),
    # This one says by its name that who is on is kept.
    ("presence-x", "raw", SHUT, SHUT, "yes yes yes"),
    ("$x", "raw", "no no either no", "no no either no", "yes none yes"),
    ("#42", "raw", "usual", "no no either no", None),
    ("x#7,42", "raw", "usual", "no no either no", None),
    ("#7", "raw", "no no either no", "no no either no", None),
    ("nowhere:x", "", ABSENT, ABSENT, None),
    ("OPEN:x", "", ABSENT, ABSENT, None),
    (" open:x", "", ABSENT, ABSENT, None),
    ("open\u200b:x", "", ABSENT, ABSENT, None),
    (":x", "", ABSENT, ABSENT, None),
    ("", "odd", ODD, ODD, None),
    ("x" * 201, "odd", ODD, ODD, None),
    ("open:" + "x" * 5000, "odd", ODD, ODD, None),
    ("a\x00b", "odd", ODD, ODD, None),
    ("a\nb", "odd", ODD, ODD, None),
    ("open:\x7f", "odd", ODD, ODD, None),
    ("\x01u42", "odd", ODD, ODD, None),
    ("\x01", "odd", ODD, ODD, None),
    ("open:\x01u42", "odd", ODD, ODD, None),
]
USUAL = {
    "loopback": {"anonymous": "yes yes none sub"},
    "elsewhere": {"anonymous": "yes no none no"},
    "keyed": {"42": "yes yes none sub", "anonymous": "yes no none no"},
}
CODES = {"yes": {0}, "no": {103}, "none": {108}, "either": {103, 108}, "102": {102}, "107": {107}}
KEYED = {"TOKEN_SECRET": SECRET}
EXPOSURES = {
    "loopback without a key": ("loopback", {}),
    "reachable from elsewhere": ("elsewhere", {"LISTEN": "127.0.0.1:0,0.0.0.0:0"}),
    "with a token key": ("keyed", KEYED),
    "with a token key, tokens not required": ("keyed", {**KEYED, "TOKEN_REQUIRED": "false"}),
}


class Visit:
    """One asker at one name, through every door, and a watcher who hears what came of it."""

    numbers = itertools.count(1)

    def __init__(self, house, asker, row):
        self.house, self.asker = house, asker
        self.name, self.raw, *rights, self.proven = row
        rights = rights[asker == "anonymous"]
        rights = house.usual[asker] if rights == "usual" else rights
        self.rights = dict(zip(WHATS, rights.split()))
        self.peer = house.peers[asker]
        self.published = []
        self.is_watched = self.watch()

    def watch(self):
        """Whether the channel is one that a server may publish to. A pattern is none."""
        watcher, watched = self.house.watcher, self.house.watched
        if "*" in self.name or self.name in watched:
            return self.name in watched
        fields = {"client": watcher.client, "channel": self.name}
        if self.house.api.code("subscribe", **fields) != 0:
            return False
        watcher.push("subscribe", self.name)
        watched.add(self.name)
        return True

    def word(self):
        return f"{next(self.numbers)}"

    def check(self, door, seen, right, *, is_subscribed=False):
        if right == "sub":
            right = "yes" if is_subscribed else "no"
        where = f"{self.house.exposure}, {self.asker}, {self.name[:40]!r}: {door}"
        assert seen in CODES[right], f"{where} answered {seen}, expected {right}"
        return seen == 0

    def natively(self, rights, is_subscribed):
        word = self.word()
        ask = {"publish": {"data": word}, "presence": {}, "history": {"limit": 1}}
        for what, fields in ask.items():
            seen = self.peer.code(what, channel=self.name, **fields)
            self.check(f"native {what}", seen, rights[what], is_subscribed=is_subscribed)
            if what == "publish" and seen == 0:
                self.published.append(word)
        seen = self.peer.code("presence_stats", channel=self.name)
        self.check("native presence_stats", seen, rights["presence"], is_subscribed=is_subscribed)

    def subscribe(self, right, **credential):
        seen = self.peer.code("subscribe", channel=self.name, **credential)
        return self.check(f"native subscribe {list(credential)}", seen, right)

    def without_token(self):
        self.natively(self.rights, False)
        if self.subscribe(self.rights["subscribe"]):
            self.natively(self.rights, True)
            assert self.peer.code("unsubscribe", channel=self.name) == 0

    def with_token(self):
        user = {} if self.asker == "anonymous" else {"sub": self.asker}
        others = {"sub": "7"}
        for wrong in (token(channel=self.name, **others), token(channel="other", **user),
                      token(**user), "x.y.z"):
            seen = self.peer.code("subscribe", channel=self.name, token=wrong)
            assert seen in (102, 103, 107), f"{self.name!r}: {seen} for a token of another"
        if self.asker == "anonymous" or self.proven is None:
            return
        mine = token(channel=self.name, **user)
        assert self.subscribe("yes", token=mine)
        self.natively(dict(zip(WHATS[1:], self.proven.split())), True)
        assert self.peer.code("unsubscribe", channel=self.name) == 0
        # Whoever has left is as if never there.
        self.natively(self.rights, False)

    def raw_socket(self):
        path = f"/raw/{quote(self.name, safe='')}{self.house.queries[self.asker]}"
        with Socket(self.house.server, path) as peer:
            right = self.rights["subscribe"] if self.raw == "raw" else "no"
            expected = {"yes": 101, "no": 403}[right] if self.raw != "odd" else 400
            where = f"{self.house.exposure}, {self.asker}, {self.name[:40]!r} on /raw"
            assert peer.status == expected, f"{where}: {peer.status}, expected {expected}"
            if peer.status != 101:
                assert list(json.loads(peer.body)) == ["error"], where
                return
            word = self.word()
            peer.send(f'"{word}"')
            try:
                # Its home has it once the peer hears itself.
                if f'"{word}"' not in peer.settle():
                    while peer.message() != f'"{word}"':
                        pass
                is_heard = True
            except Closed as closed:
                assert closed.code == 1008 and closed.reason, f"{where}: {closed}"
                is_heard = False
            self.check("raw publish", 103 * (not is_heard), self.rights["publish"],
                       is_subscribed=True)
            if is_heard:
                self.published.append(word)

    def raw_request(self):
        path = f"/raw/{quote(self.name, safe='')}"
        where = f"POST /raw/{self.name[:40]!r}"
        assert self.house.stranger.ask(path, b"not for you")[0] == 401, where
        word = self.word()
        status, body = self.house.api.ask(path, f'"{word}"', Content_Type="text/plain")
        expected = {"raw": 200, "": 403, "odd": 400}[self.raw]
        assert status == expected, f"{where}: {status} {body}, expected {expected}"
        if status == 200:
            self.published.append(word)
        else:
            assert list(json.loads(body)) == ["error"], where

    def through_the_api(self):
        """With the API key, everything is allowed that the namespace keeps."""
        right = self.rights["subscribe"]
        is_pattern = "*" in self.name
        refusal = right if right in ("102", "107") else "no" if is_pattern else None
        word = self.word()
        seen = self.house.api.code("publish", channel=self.name, data=word)
        if self.check("API publish", seen, refusal or "yes"):
            self.published.append(word)
        keeps = {"presence": "yes", "history": "yes"}
        prefix = self.name.partition(":")[0]
        if prefix in ("blind", "shut"):
            keeps = dict.fromkeys(keeps, "none")
        elif ":" not in self.name and self.name != "presence-x":
            keeps["presence"] = "none"
        for method, what in {"presence": "presence", "presence_stats": "presence",
                             "history": "history", "history_remove": "history"}.items():
            seen = self.house.api.code(method, channel=self.name)
            self.check(f"API {method}", seen, refusal or keeps[what])
        assert self.is_watched == (not refusal), f"{self.name!r}: may servers subscribe somebody?"

    def hear(self):
        """The watcher hears what was let through, and nothing else. Who is not on hears nothing."""
        if not self.is_watched:
            assert not self.published, f"{self.name!r}: nobody may publish what nobody may hear"
            return
        mark = self.word()
        assert self.house.api.code("publish", channel=self.name, data=mark) == 0
        heard = self.house.watcher.publications(mark)
        assert heard == [(self.name, word) for word in [*self.published, mark]], self.name
        self.house.api.result("send", client=self.peer.client, data=mark)
        while (push := self.peer.line().get("push", {})).get("message") != {"data": mark}:
            self.peer.pushes.append(push)
        late = [push for push in self.peer.pushes if push.get("pub", {}).get("data") == mark]
        assert not late, f"{self.asker} was not on {self.name!r}, and heard {late}"
        self.peer.pushes.clear()


class House:
    """A server in one exposure, and those who come to it."""

    def __init__(self, start, exposure):
        kind, options = EXPOSURES[exposure]
        self.exposure, self.usual = exposure, USUAL[kind]
        self.server = start(API_KEY=API_KEY, REACTORS="4", DRAIN_TIME="0", CLOSE_TIMEOUT="100ms",
                            HISTORY_SIZE="10", MAX_SUBSCRIPTIONS="4096",
                            NAMESPACES=json.dumps(NAMESPACES), **options)
        self.api, self.stranger = Api(self.server), Api(self.server, key=None)
        required = options and "TOKEN_SECRET" in options and "TOKEN_REQUIRED" not in options
        nobody = token(jti="no user") if required else None
        credentials = {"anonymous": nobody, "42": token(sub="42")}
        credentials = {asker: credentials[asker] for asker in self.usual}
        self.peers = {asker: Native(self.server, value) for asker, value in credentials.items()}
        self.queries = {asker: f"?notify_self=1&token={value}" if value else "?notify_self=1"
                        for asker, value in credentials.items()}
        self.watcher = Native(self.server, nobody)
        self.watched = set()
        self.is_keyed = kind == "keyed"


@pytest.mark.parametrize("exposure", EXPOSURES)
def test_every_door_says_the_same_of_every_channel(start, exposure):
    house = House(start, exposure)
    for row, asker in itertools.product(TABLE, house.usual):
        visit = Visit(house, asker, row)
        visit.without_token()
        if house.is_keyed:
            visit.with_token()
        visit.raw_socket()
        visit.raw_request()
        visit.through_the_api()
        visit.hear()


def test_a_pattern_stands_for_no_name_that_asks_for_more(start):
    open_names = {"name": "", "allow_wildcards": True, "raw": True, **OPEN}
    server = start(API_KEY=API_KEY, REACTORS="4", DRAIN_TIME="0", CLOSE_TIMEOUT="100ms",
                   NAMESPACES=json.dumps([open_names]))
    api, peer = Api(server), Native(server)
    for name in ("private-a.*", "presence-a.*", "$a.*", "a.#7.*", "#7.*", "a.*#7", "*", ".*:",
                 "open.*:x", "\x01.*"):
        assert peer.code("subscribe", channel=name) in (102, 103, 107), name
    assert peer.code("subscribe", channel="a.*") == 0
    for name in ("a.x#7", "a.#7", "a.x", "private-a.x", "$a.x", "b.x", "a", "a.x.y"):
        api.result("publish", channel=name, data=name)
        path = f"/raw/{quote(name, safe='')}"
        assert api.ask(path, json.dumps(name), Content_Type="text/plain")[0] == 200
    api.result("publish", channel="a.end", data="end")
    # Different channels have different homes, so there is no order between them; `end` may
    # overtake. What is sent to this connection alone comes by yet another way.
    heard = [data for _, data in peer.publications("end")]
    while len(heard) < 5:
        heard += [line["push"]["pub"]["data"] for line in [peer.line()] if line]
    api.result("send", client=peer.client, data="last")
    assert peer.line() == {"push": {"message": {"data": "last"}}}
    assert sorted(heard) == ["a.x", "a.x", "a.x.y", "a.x.y", "end"]


def test_who_is_on_a_pattern_is_no_subscriber_of_what_it_matches(start):
    subscribers = {"name": "subs", "allow_wildcards": True, **KEPT,
                   **granted("client", "anonymous", whats=WHATS[:1]),
                   **granted("subscriber", "anonymous", whats=WHATS[1:])}
    server = start(API_KEY=API_KEY, REACTORS="4", DRAIN_TIME="0", CLOSE_TIMEOUT="100ms",
                   NAMESPACES=json.dumps([subscribers]))
    with Native(server) as peer:
        assert peer.code("subscribe", channel="subs:x.*") == 0
        asked = [peer.code(what, channel="subs:x.1", data=1) for what in WHATS[1:]]
        assert asked == [103] * 3
        assert peer.code("subscribe", channel="subs:x.1") == 0
        asked = [peer.code(what, channel="subs:x.1", data=1) for what in WHATS[1:]]
        assert asked == [0] * 3
        Api(server).result("unsubscribe", channel="subs:x.1", client=peer.client)
        peer.push("unsubscribe", "subs:x.1")
        asked = [peer.code(what, channel="subs:x.1", data=1) for what in WHATS[1:]]
        assert asked == [103] * 3


def test_who_was_thrown_off_is_no_subscriber_for_any_door(start):
    subscribers = {"name": "subs", "raw": True, **granted("client", whats=WHATS[:1]),
                   **granted("subscriber", whats=WHATS[1:2])}
    server = start(API_KEY=API_KEY, REACTORS="4", DRAIN_TIME="0", CLOSE_TIMEOUT="100ms",
                   NAMESPACES=json.dumps([subscribers]), **KEYED)
    api, mine = Api(server), token(sub="42")
    with Native(server, token(sub="7")) as other, Native(server, mine) as native, \
            Socket(server, f"/raw/subs:x?token={mine}") as raw:
        for peer in (other, native):
            assert peer.code("subscribe", channel="subs:x") == 0
        raw.send('"welcome"')
        assert other.push("pub")["data"] == native.push("pub")["data"] == "welcome"
        api.result("unsubscribe", user="42", channel="subs:x")
        native.push("unsubscribe", "subs:x")
        assert native.code("publish", channel="subs:x", data="unwelcome") == 103
        # Nobody tells a raw peer; its being off shows in what the channel counts.
        server.settles("tidemill_subscriptions", 1)
        raw.send('"unwelcome"')
        assert raw.ending().code == 1008
        api.result("publish", channel="subs:x", data="last")
        assert other.publications("last") == [("subs:x", "last")]


@pytest.mark.parametrize("exposure", ["loopback without a key", "with a token key",
                                      "with a token key, tokens not required"])
def test_only_where_tokens_are_required_pages_of_any_origin_may_connect(start, exposure):
    kind, options = EXPOSURES[exposure]
    server = start(DRAIN_TIME="0", CLOSE_TIMEOUT="100ms", **options)
    required = kind == "keyed" and "TOKEN_REQUIRED" not in options
    mine = f"?token={token(sub='42')}" if kind == "keyed" else ""
    for path in ("/connection/websocket", "/raw/x", "/echo"):
        for origin in ("https://evil.example", "https://localhost.evil.example"):
            is_open = required and path == "/connection/websocket"
            with Socket(server, path + mine, headers=[f"Origin: {origin}"]) as page:
                assert page.status == (101 if is_open else 403), (path, origin)
        with Socket(server, path + mine, headers=["Origin: http://localhost"]) as page:
            assert page.status == 101, path


def test_nobody_escapes_what_servers_tell_a_user(start):
    server = start(API_KEY=API_KEY, REACTORS="4", DRAIN_TIME="0", CLOSE_TIMEOUT="100ms", **KEYED)
    api, peer = Api(server), Native(server, token(sub="42"))
    for method in ("unsubscribe", "subscribe", "publish", "presence", "presence_stats", "history",
                   "sub_refresh"):
        fields = {"data": 1, "token": token(sub="42", channel="\x01u42")}
        assert peer.code(method, channel="\x01u42", **fields) in (103, 107), method
    api.result("send", user="42", data="still heard")
    assert peer.line() == {"push": {"message": {"data": "still heard"}}}
    api.result("disconnect", user="42")
    assert peer.ending().code == 3503


def test_a_token_for_one_channel_is_none_for_a_connection(start):
    server = start(DRAIN_TIME="0", CLOSE_TIMEOUT="100ms", **KEYED)
    peer = Native(server, connects=False)
    peer.command("connect", token=token(sub="42", channel="$x"))
    assert peer.ending().code == 3500
