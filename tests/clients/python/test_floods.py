"""Memory stays within the marks, whoever floods: publishers that are faster than subscribers who do
not read, and than the home of their channel; questions whose answers nobody takes; histories,
members, names, keys and connections without end. What counts is the resident memory of the
process, its peak as well as what is left once everybody has gone."""

import contextlib
import json
import select
import threading
import time
from pathlib import Path

import pytest
from wire import API_KEY, PATIENCE_S, SECRET, Api, Line, Native, Socket, frame, token

MIB = 1 << 20
OUTBOX, MAIL, BUFFERS = 256 << 10, MIB, 8 * MIB
REACTORS = 4
# What the allocator keeps for the next ones, and what the kernel is asked for at first.
SLACK = 8 * MIB
# Who takes no byte for so long takes no more, where that is to be expected.
STILL_S = 0.5
# A hundred megabytes in a flood, which is more than all of the marks together.
LARGE, MANY = "x" * 50_000, 2000
KINDS = {
    f"allow_{what}_for_{who}": True
    for what in ("subscribe", "publish", "presence", "history") for who in ("client", "anonymous")
}
NAMESPACES = [
    {"name": "close", "raw": True, **KINDS},
    {"name": "drop", "raw": True, "slow_policy": "drop", **KINDS},
    {"name": "kept", "raw": True, "history_size": 1000, "history_ttl": "300s", **KINDS},
    {"name": "both", "raw": True, "history_size": 9, "history_ttl": "300s", "slow_policy": "drop",
     **KINDS},
    {"name": "who", "presence": True, "join_leave": True, **KINDS},
]


class Flooded:
    """A server with small marks, whose memory is watched."""

    def __init__(self, start, **options):
        options = {"API_KEY": API_KEY, "REACTORS": str(REACTORS), "DRAIN_TIME": "0",
                   "CLOSE_TIMEOUT": "100ms", "NAMESPACES": json.dumps(NAMESPACES),
                   "MAX_OUTBOX_BYTES": str(OUTBOX), "MAX_MAIL_BYTES": str(MAIL),
                   "MAX_BUFFER_BYTES": str(BUFFERS)} | options
        self.server = start(**options)
        self.process = Path(f"/proc/{self.server.process.pid}")
        self.api = Api(self.server)
        self.echo = Socket(self.server, "/echo")
        # Every reactor has worked, and what it needs once it has.
        with contextlib.ExitStack() as stack:
            for number in range(4 * REACTORS):
                peer = stack.enter_context(Native(self.server))
                assert peer.code("subscribe", channel=f"close:{number}") == 0
                self.api.result("publish", channel=f"close:{number}", data="x" * 50_000)
        self.settled("tidemill_subscriptions", 0)
        self.first = self.resident()

    def resident(self) -> int:
        return int((self.process / "statm").read_text().split()[1]) * 4096

    def grown(self) -> int:
        return self.resident() - self.first

    def peak(self) -> int:
        """By how much the resident memory has ever grown."""
        [line] = [line for line in (self.process / "status").read_text().splitlines()
                  if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024 - self.first

    def settled(self, name, value):
        self.server.settles(name, value)

    def others_are_served(self):
        self.echo.send("still there?")
        assert self.echo.message()

    def stays_within(self, marks):
        """What was ever used is within these marks."""
        assert self.peak() < marks + SLACK, f"{self.peak() >> 20} MiB, marks are {marks >> 20}"
        self.others_are_served()
        assert "panic" not in self.server.log.read_text()

    def comes_back(self, kept=0):
        """Everybody has gone, and so has what was theirs."""
        deadline = time.monotonic() + PATIENCE_S
        while self.grown() > kept + SLACK:
            assert time.monotonic() < deadline, f"{self.grown() >> 20} MiB were never given back"
            self.others_are_served()
            time.sleep(0.1)
        self.settled("tidemill_mail_bytes", 0)


@pytest.fixture
def flooded(start):
    return lambda **options: Flooded(start, **options)


def pour(peer, chunk: bytes, times: int, patience=PATIENCE_S, reads=False) -> int:
    """Sends a chunk again and again, until the server has taken none of it for so long. Tells how
    many it took. What comes meanwhile is left where it is, or thrown away."""
    peer.tcp.setblocking(False)
    view = memoryview(chunk)
    taken = 0
    try:
        while taken < times * len(chunk):
            readable, writable, _ = select.select([peer.tcp] * reads, [peer.tcp], [], patience)
            if readable:
                peer.tcp.recv(MIB)
            elif not writable:
                break
            if writable:
                taken += peer.tcp.send(view[taken % len(chunk):])
    except (ConnectionResetError, BrokenPipeError):
        pass
    peer.tcp.settimeout(PATIENCE_S)
    return taken // len(chunk)


def together(*tasks):
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def command(number, what, **fields):
    return frame(json.dumps({"id": number, what: fields}))


def request(path, body) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def by_raw(house, channel):
    with Socket(house.server, f"/raw/{channel}") as peer:
        return pour(peer, frame(LARGE), MANY)


def by_native(house, channel):
    with Native(house.server) as peer:
        return pour(peer, command(7, "publish", channel=channel, data=LARGE), MANY)


def by_api(house, channel):
    with Line(house.server) as peer:
        body = json.dumps({"channel": channel, "data": LARGE})
        return pour(peer, request("/api/publish", body), MANY)


DOORS = {"raw": by_raw, "native": by_native, "api": by_api}


@pytest.mark.parametrize("policy", ["close", "drop"])
@pytest.mark.parametrize("door", DOORS)
def test_a_publisher_faster_than_subscribers_who_do_not_read(flooded, door, policy):
    house = flooded()
    with contextlib.ExitStack() as stack:
        def paused(opened):
            return stack.enter_context(opened)

        # All of their outboxes together are less than what makes upgrades be refused.
        for _ in range(12):
            peer = paused(Native(house.server, receive_buffer=4096))
            assert peer.code("subscribe", channel=f"{policy}:x") == 0
            paused(Socket(house.server, f"/raw/{policy}:x", receive_buffer=4096))
        assert DOORS[door](house, f"{policy}:x") == MANY, "the publisher was not to be held up"
        left = {"close": 0, "drop": 24}[policy]
        house.settled("tidemill_slow_consumers_total", 24 - left)
        house.settled("tidemill_subscriptions", left)
        assert house.server.metric("tidemill_buffer_bytes") <= left * (OUTBOX + 64 * 1024)
        house.stays_within(REACTORS * MAIL + BUFFERS)
    house.settled("tidemill_subscriptions", 0)
    house.comes_back()


def test_publishers_on_every_reactor_are_faster_than_the_home(flooded):
    house = flooded()
    seen, taken, subscribed = [], [], []
    is_over = threading.Event()

    def watch():
        while not is_over.is_set():
            seen.append(house.server.metric("tidemill_mail_bytes"))

    def publish_raw():
        peer = stack.enter_context(Socket(house.server, "/raw/both:x"))
        subscribed.append(peer.tcp)
        taken.append(pour(peer, frame(LARGE), MANY, reads=True))

    def publish_natively():
        with Native(house.server) as peer:
            asked = command(7, "publish", channel="both:x", data=LARGE)
            assert pour(peer, asked, MANY) == MANY
            answers = [peer.answer(7) for _ in range(MANY)]
            assert all("publish" in answer or answer["error"]["code"] == 111 for answer in answers)
            taken.append(sum("publish" in answer for answer in answers))

    def flood():
        together(*[publish_raw, publish_natively] * REACTORS)
        is_over.set()

    with contextlib.ExitStack() as stack:
        together(flood, watch)
        # Who publishes on /raw is made to wait, others are told what was not taken: none is lost.
        assert len(taken) == 2 * REACTORS and taken.count(MANY) >= REACTORS, taken
        top = house.api.result("history", channel="both:x")["offset"]
        deadline = time.monotonic() + PATIENCE_S
        while top < sum(taken) and time.monotonic() < deadline:
            # Who does not read is not listened to either.
            for peer in select.select(subscribed, [], [], 0)[0]:
                peer.recv(MIB)
            top = house.api.result("history", channel="both:x")["offset"]
        assert top == sum(taken)
    assert 0 < max(seen) <= REACTORS * 2 * MAIL
    house.stays_within(REACTORS * 2 * MAIL + BUFFERS)
    house.comes_back(kept=BUFFERS // 2)


def test_what_servers_tell_connections_that_do_not_read(flooded):
    house = flooded()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Native(house.server, receive_buffer=4096)) for _ in range(20)]
        for _ in range(100):
            commands = [{"broadcast_all": {"data": LARGE}}] * 10
            commands += [{"send": {"client": peers[0].client, "data": LARGE}}] * 8
            assert house.api.ask("/api/batch", {"commands": commands, "parallel": True})[0] == 200
        # The house's own connection is one of all, and has not read either.
        house.settled("tidemill_slow_consumers_total", 21)
        house.echo = Socket(house.server, "/echo")
        house.stays_within(REACTORS * 2 * MAIL + BUFFERS)
    house.comes_back()


@pytest.mark.parametrize("namespace", ["close", "kept"])
def test_a_large_publication_to_very_many_channels(flooded, namespace):
    house = flooded(MAX_OUTBOX_BYTES=str(MIB), MAX_BUFFER_BYTES=str(4 * BUFFERS))
    with contextlib.ExitStack() as stack:
        for client in range(20):
            peer = stack.enter_context(Native(house.server, receive_buffer=4096))
            for number in range(100):
                peer.command("subscribe", channel=f"{namespace}:{client * 100 + number}")
            assert peer.code("subscribe", channel="drop:all") == 0
        body = {"channels": [f"{namespace}:{number}" for number in range(8000)],
                "data": LARGE * 16}
        for _ in range(3):
            codes = {answer.get("error", {}).get("code", 0)
                     for answer in house.api.result("broadcast", **body)["responses"]}
            assert codes <= {0, 111} and 0 in codes
        house.stays_within(REACTORS * 2 * MAIL + 4 * BUFFERS)
    house.settled("tidemill_subscriptions", 0)
    house.comes_back(kept=2 * BUFFERS)


def test_histories_hold_no_more_than_they_may_together(flooded):
    house = flooded(MAX_BUFFER_BYTES=str(4 * BUFFERS))
    with Native(house.server) as peer, Native(house.server) as back:
        assert peer.code("publish", channel="kept:before", data="small") == 0
        for number in range(3000):
            assert peer.code("publish", channel=f"kept:{number}", data=LARGE) == 0
        house.stays_within(2 * BUFFERS)
        assert house.server.metric("tidemill_history_bytes") <= 2 * BUFFERS
        # What was there before stays, and its channel goes on.
        assert peer.code("publish", channel="kept:before", data="later") == 0
        kept = peer.ask("history", channel="kept:before", limit=-1)["history"]["publications"]
        assert [each["data"] for each in kept] == ["small", "later"]
        # Channels without room say so to who comes back: all of what was missed, or none of it.
        for number in range(3000, 3032):
            channel = f"kept:{number}"
            place = back.ask("subscribe", channel=channel, recoverable=True)["subscribe"]
            assert back.code("unsubscribe", channel=channel) == 0
            for data in (LARGE, "small", LARGE):
                assert peer.code("publish", channel=channel, data=data) == 0
            since = {"epoch": place.get("epoch", ""), "offset": place.get("offset", 0)}
            told = back.ask("subscribe", channel=channel, recover=True, **since)["subscribe"]
            missed = [each["data"] for each in told.get("publications", [])]
            assert missed == ([LARGE, "small", LARGE] if told.get("recovered") else [])


def test_streams_that_nobody_is_on_any_more(flooded):
    house = flooded()
    with Native(house.server) as peer:
        # Each is more than 700 bytes for the time being.
        for batch in range(300):
            names = [f"kept:{batch}-{number}".ljust(200, "n") for number in range(100)]
            for method in ("subscribe", "history", "unsubscribe"):
                for number in [peer.command(method, channel=name, limit=1) for name in names]:
                    assert "error" not in peer.answer(number)
    house.settled("tidemill_subscriptions", 0)
    house.stays_within(BUFFERS // 2)


def test_keys_that_make_requests_safe_to_repeat(flooded):
    house = flooded()
    names = [f"close:{number}" for number in range(1000)]
    # Half a million, of 64 bytes each and what is to be answered again.
    for number in range(500):
        body = {"channels": names, "data": 1, "idempotency_key": f"{number:064}"}
        responses = house.api.result("broadcast", **body)["responses"]
        assert all("result" in response for response in responses)
        if number % 50 == 0:
            assert house.api.result("broadcast", **body)["responses"] == responses
    house.stays_within(16 * MIB)


def test_what_many_members_tell_of_themselves(flooded):
    house = flooded(TOKEN_SECRET=SECRET, TOKEN_REQUIRED="false", MAX_BUFFER_BYTES=str(8 * BUFFERS))
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Native(house.server, token(sub=f"{n}", info="i" * 5000)))
                 for n in range(100)]
        for channel in range(100):
            asked = [peer.command("subscribe", channel=f"who:{channel}") for peer in peers]
            for peer, number in zip(peers, asked):
                assert "error" not in peer.answer(number)
        # 10,000 memberships of 100 connections, each of which has said 5,000 bytes once.
        house.stays_within(100 * 5000 + 100 * 100 * 256)
        assert peers[0].code("presence", channel="who:1") in (106, 111), "more than an outbox has"
        assert house.api.result("presence", channel="who:1")["truncated"]
    house.settled("tidemill_subscriptions", 0)
    house.comes_back()


def test_as_many_subscriptions_as_there_may_be_with_names_as_long_as_they_may_be(flooded):
    house = flooded()
    # What some have left is there for the next.
    for crowd in range(4):
        with contextlib.ExitStack() as stack:
            for client in range(100):
                peer = stack.enter_context(Native(house.server))
                names = [f"close:{crowd}-{client}-{number}".ljust(200, "n")
                         for number in range(130)]
                asked = [peer.command("subscribe", channel=name) for name in names]
                codes = [peer.answer(number).get("error", {}).get("code", 0) for number in asked]
                assert codes == [0] * 128 + [106] * 2
            house.settled("tidemill_channels", 12_800)
        house.settled("tidemill_channels", 0)
    house.stays_within(12_800 * 800)


def test_coming_and_going_on_one_channel_in_a_tight_loop(flooded):
    house = flooded()
    with Native(house.server) as peer, Native(house.server) as other:
        assert other.code("subscribe", channel="who:x", join_leave=True) == 0
        other.push("join")
        turn = b"".join([command(1, "subscribe", channel="who:x"),
                         command(2, "unsubscribe", channel="who:x")])
        thread = threading.Thread(target=pour, args=(peer, turn, 20_000, STILL_S))
        thread.start()
        # Who reads hears of it in order.
        for _ in range(50):
            other.push("join")
            other.push("leave")
        thread.join()
        house.stays_within(REACTORS * MAIL + BUFFERS)
    house.settled("tidemill_subscriptions", 0)
    house.comes_back()


QUESTIONS = {
    "history": {"channel": "kept:x", "limit": -1},
    "presence": {"channel": "who:x"},
    "presence_stats": {"channel": "who:x"},
    "publish": {"channel": "close:x", "data": 1},
    "rpc": {"method": "x" * 100},
}


@pytest.mark.parametrize("method", QUESTIONS)
def test_who_asks_without_end_and_never_reads(flooded, method):
    house = flooded()
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(Native(house.server))
        assert reader.code("subscribe", channel="who:x") == 0
        for number in range(100):
            reader.command("publish", channel="kept:x", data=f"{number}" * 400)
        assert reader.code("publish", channel="kept:x", data="last") == 0
        askers = [stack.enter_context(Native(house.server, receive_buffer=4096))
                  for _ in range(16)]
        asked = b"".join(command(n + 1, method, **QUESTIONS[method]) for n in range(100))
        together(*[lambda peer=peer: pour(peer, asked, 200, STILL_S) for peer in askers])
        house.stays_within(REACTORS * MAIL + BUFFERS)
        assert reader.code("publish", channel="kept:x", data="still served") == 0
    house.settled("tidemill_subscriptions", 0)
    house.comes_back(kept=BUFFERS // 2)


def test_requests_without_end_whose_answers_nobody_reads(flooded):
    house = flooded()
    for number in range(100):
        house.api.result("publish", channel="kept:x", data=f"{number}" * 400)
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(Line(house.server, receive_buffer=4096)) for _ in range(16)]
        body = json.dumps({"channel": "kept:x", "limit": -1})
        asked = request("/api/history", body) * 10
        together(*[lambda line=line: pour(line, asked, 500, STILL_S) for line in lines])
        house.stays_within(REACTORS * MAIL + BUFFERS)
    house.comes_back(kept=BUFFERS // 2)


def test_users_who_come_and_go(flooded):
    house = flooded(TOKEN_SECRET=SECRET, TOKEN_REQUIRED="false")
    # 21 MB, would anything of them stay.
    for batch in range(30):
        with contextlib.ExitStack() as stack:
            for number in range(100):
                name = f"{batch}-{number}"
                claims = {"sub": name.ljust(2000, "u"), "info": "i" * 3000}
                credential = token(channels=[f"who:{name}"], **claims)
                peer = stack.enter_context(Native(house.server, credential))
                assert peer.channels == [f"who:{name}"]
    house.settled("tidemill_channels", 0)
    house.stays_within(4 * MIB)
    house.comes_back()
