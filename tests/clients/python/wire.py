"""WebSocket, the native protocol and the server API without an SDK, on a blocking socket each: what
no SDK would send can be sent, nothing is read until it is asked for, and every line is shown."""

import base64
import http.client
import itertools
import json
import os
import re
import socket
import struct
import time
from collections import deque

import jwt

NATIVE = "/connection/websocket"
SECRET = base64.b16encode(os.urandom(32)).decode()
API_KEY = "the-key-of-the-server-api"
PATIENCE_S = 15
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def token(**claims) -> str:
    """A token that is good for a minute, but for what `claims` say."""
    return jwt.encode({"exp": int(time.time()) + 60} | claims, SECRET, algorithm="HS256")


def frame(payload: str | bytes, kind: int = TEXT, fin: bool = True) -> bytes:
    """A frame of a client; the mask is zero, which leaves the payload as it is."""
    payload = payload.encode() if isinstance(payload, str) else payload
    size = len(payload)
    head = bytes([kind | 0x80 * fin])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += struct.pack("!BH", 0xFE, size)
    else:
        head += struct.pack("!BQ", 0xFF, size)
    return head + b"\0\0\0\0" + payload


class Closed(Exception):
    """The server closed: with which code and reason; 1006 stands for no close frame at all."""

    def __init__(self, code: int, reason: str):
        super().__init__(code, reason)
        self.code, self.reason = code, reason


class Line:
    """A TCP connection on which nothing has been said."""

    def __init__(self, server, receive_buffer=None):
        self.tcp = socket.socket()
        self.tcp.settimeout(PATIENCE_S)
        if receive_buffer:
            self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.tcp.connect(("127.0.0.1", server.port))
        self.tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.past = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.tcp.close()

    def write(self, data: bytes):
        """Sends bytes as they are. That the server may have gone is seen when reading."""
        try:
            self.tcp.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def response(self) -> tuple[int, bytes]:
        """Status and body of the next answer to a plain request."""
        head = self._until(b"\r\n\r\n").decode()
        size = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
        return int(head.split()[1]), self._take(int(size[1]) if size else 0)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.past:
            self._more()
        return self._take(self.past.index(mark) + len(mark))

    def _take(self, size: int) -> bytes:
        while len(self.past) < size:
            self._more()
        taken = bytes(self.past[:size])
        del self.past[:size]
        return taken

    def _more(self):
        chunk = self.tcp.recv(1 << 16)
        if not chunk:
            raise ConnectionResetError
        self.past += chunk


class Socket(Line):
    """A connection; `status` tells what became of its upgrade, `body` why it was refused."""

    def __init__(self, server, path, receive_buffer=None, headers=()):
        super().__init__(server, receive_buffer)
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Upgrade: websocket",
                 "Connection: Upgrade", "Sec-WebSocket-Version: 13",
                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *headers, "", ""]
        self.tcp.sendall("\r\n".join(lines).encode())
        self.status, self.body = self.response()
        if self.status != 101:
            self.tcp.close()

    def send(self, payload, kind=TEXT):
        self.write(frame(payload, kind))

    def receive(self) -> tuple[int, bytes]:
        """The next frame, pings too. `Closed` if there is none any more."""
        try:
            first, second = self._take(2)
            size = second & 0x7F
            if size > 125:
                size = int.from_bytes(self._take(2 if size == 126 else 8))
            payload = self._take(size)
        except ConnectionError:
            raise Closed(1006, "") from None
        assert not second & 0x80 and first & 0xF0 == 0x80, f"an odd frame: {first:x} {second:x}"
        if first & 0xF == CLOSE:
            raise Closed(int.from_bytes(payload[:2]), payload[2:].decode())
        return first & 0xF, payload

    def message(self) -> str | bytes:
        """The next message; pings are answered."""
        while True:
            kind, payload = self.receive()
            if kind == PING:
                self.send(payload, PONG)
            elif kind != PONG:
                return payload.decode() if kind == TEXT else payload

    def settle(self) -> list:
        """Waits until the server has taken what was sent so far; gives the messages until then."""
        mark = os.urandom(8)
        self.send(mark, PING)
        heard = []
        while (got := self.receive()) != (PONG, mark):
            if got[0] in (TEXT, BINARY):
                heard.append(got[1].decode() if got[0] == TEXT else got[1])
        return heard

    def ending(self) -> Closed:
        """How the server closes, whatever it says before."""
        try:
            while True:
                self.message()
        except Closed as closed:
            return closed


class Native(Socket):
    """A client of the native protocol. What is not asked for at once waits in `pushes`
    and, by its id, in `answers`."""

    def __init__(self, server, credential=None, receive_buffer=None, connects=True):
        super().__init__(server, NATIVE, receive_buffer)
        assert self.status == 101, self.body
        self.ids = itertools.count(1)
        self.lines = deque()
        self.pushes = []
        self.answers = {}
        if connects:
            answer = self.ask("connect", **({"token": credential} if credential else {}))
            assert "connect" in answer, answer
            self.client = answer["connect"]["client"]
            self.channels = list(answer["connect"].get("subs", {}))

    def line(self) -> dict:
        """The next line. Every one is a JSON object of its own, in a text message."""
        while not self.lines:
            text = self.message()
            assert isinstance(text, str), text
            self.lines.extend(strict(line) for line in text.split("\n"))
        return self.lines.popleft()

    def command(self, method, **fields) -> int:
        number = next(self.ids)
        self.send(json.dumps({"id": number, method: fields}))
        return number

    def answer(self, number) -> dict:
        while number not in self.answers:
            self.sort(self.line())
        return self.answers.pop(number)

    def sort(self, line):
        if "id" in line:
            self.answers[line["id"]] = line
        elif line:
            self.pushes.append(line["push"])
        else:
            self.send("{}")

    def ask(self, method, **fields) -> dict:
        return self.answer(self.command(method, **fields))

    def code(self, method, **fields) -> int:
        """0, or the code of the error."""
        answer = self.ask(method, **fields)
        assert ("error" in answer) != (method in answer), answer
        if "error" in answer:
            assert answer["error"]["message"], answer
        return answer.get("error", {}).get("code", 0)

    def next_push(self) -> dict:
        """The oldest push that has not been looked at."""
        while not self.pushes:
            self.sort(self.line())
        return self.pushes.pop(0)

    def push(self, kind, channel=None) -> dict:
        """What the next push of this kind, about this channel, says. Those before are let go."""
        while True:
            push = self.next_push()
            if kind in push and channel in (None, push.get("channel")):
                return push[kind]

    def publications(self, until) -> list:
        """(channel, data) of the publications up to the one whose data is `until`."""
        heard = []
        while not heard or heard[-1][1] != until:
            push = self.next_push()
            if "pub" in push:
                heard.append((push["channel"], push["pub"]["data"]))
        return heard


def strict(line: str) -> dict:
    """Parses a line as JSON, which has neither NaN nor a name twice."""

    def once(pairs):
        names = [name for name, _ in pairs]
        assert len(set(names)) == len(names), f"twice in {names}"
        return dict(pairs)

    def never(word):
        raise AssertionError(f"{word} is no JSON")

    parsed = json.loads(line, parse_constant=never, object_pairs_hook=once)
    assert isinstance(parsed, dict), line
    return parsed


class Api:
    """One keep-alive connection to the server API."""

    def __init__(self, server, key=API_KEY, port=None):
        self.http = http.client.HTTPConnection("127.0.0.1", port or server.port,
                                               timeout=PATIENCE_S)
        self.key = key

    def ask(self, path, body=None, verb="POST", **headers) -> tuple[int, bytes]:
        """Status and body; what is no text or bytes is sent as JSON."""
        if not isinstance(body, (str, bytes, type(None))):
            body = json.dumps(body)
        body = body.encode() if isinstance(body, str) else body
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key is not None:
            headers.setdefault("X-API-Key", self.key)
        self.http.request(verb, path, body, headers)
        answer = self.http.getresponse()
        return answer.status, answer.read()

    def call(self, method, **fields) -> dict:
        status, body = self.ask(f"/api/{method}", fields)
        assert status == 200, (status, body)
        return strict(body.decode())

    def result(self, method, **fields) -> dict:
        answer = self.call(method, **fields)
        assert list(answer) == ["result"], answer
        return answer["result"]

    def code(self, method, **fields) -> int:
        """0, or the code of the error."""
        answer = self.call(method, **fields)
        assert list(answer) in (["result"], ["error"]), answer
        return answer.get("error", {}).get("code", 0)
