"""Runs nginx and haproxy for one test, and visits a server through them as a browser would.

Each writes its configuration into a folder of its own, runs in the foreground, without privileges
even when the tests have them, and is ended by its process id. They listen on one address of
127.0.0.0/8 that belongs to this process alone, so that no port is taken twice.
"""

import itertools
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Opcode
from websockets.uri import parse_uri

LIMIT_S = 20
NOBODY = 65534
HOME = f"127.{64 + (os.getpid() >> 16) % 64}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
NAME = "chat.example"
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
PORTS = itertools.count(8000)


class Proxy:
    """A running proxy. `config` is made for the folder that it may write into."""

    def __init__(self, command: list[str], config: str, ports: list[int]):
        self.folder = Path(tempfile.mkdtemp(prefix="tidemill-proxy-"))
        self.log = self.folder / "log"
        (self.folder / "config").write_text(config.replace("FOLDER", str(self.folder)))
        privileges = {}
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
            privileges = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [word.replace("FOLDER", str(self.folder)) for word in command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder,
                **privileges,
            )
        try:
            self._wait_for(ports)
        except AssertionError:
            self.stop()
            raise

    def _wait_for(self, ports: list[int]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not all(is_listening(port) for port in ports):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"it does not listen: {self.log.read_text()}"
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder)


def is_listening(port: int) -> bool:
    """As the kernel's table has it: to connect would be a visit, which the server counts."""
    return any(row[1] == in_table(HOME, port) and row[3] == "0A" for row in tcp_table())


def connections_to(port: int) -> int:
    """How many connections to this port of the server are established."""
    to = in_table("127.0.0.1", port)
    return sum(row[2] == to and row[3] == "01" for row in tcp_table())


def tcp_table() -> list[list[str]]:
    return [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]


def in_table(address: str, port: int) -> str:
    return f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:{port:04X}"


class Nginx(Proxy):
    """nginx in front of a server, with a port for each way to be configured.

    `ways` are lines of a `location`, by the name under which `port` has them. `stream` is a port
    of the server that is reached without HTTP, behind the PROXY protocol; `keeps` has connections
    to the server kept, for whoever visits next.
    """

    def __init__(self, server, stream: int | None = None, source: str | None = None,
                 keeps: bool = False, **ways: str):
        self.port = {name: next(PORTS) for name in ways}
        address = f"127.0.0.1:{server.port}"
        upstream = f"upstream kept {{ server {address}; keepalive 1; }}" if keeps else ""
        to = "kept" if keeps else address
        bind = f"proxy_bind {source};" if source else ""
        sites = "".join(
            f"""
            server {{
                listen {HOME}:{self.port[name]};
                location / {{
                    proxy_pass http://{to};
                    proxy_http_version 1.1;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection $connection_upgrade;
                    {bind} {lines}
                }}
            }}"""
            for name, lines in ways.items()
        )
        module = passed_on = ""
        if stream:
            self.port["stream"] = next(PORTS)
            if STREAM_MODULE.exists():
                module = f"load_module {STREAM_MODULE};"
            passed_on = f"""stream {{ server {{
                listen {HOME}:{self.port["stream"]};
                proxy_pass 127.0.0.1:{stream};
                proxy_protocol on;
                {bind}
            }} }}"""
        config = f"""
        {module}
        daemon off;
        pid FOLDER/pid;
        error_log stderr;
        worker_processes 1;
        events {{ worker_connections 256; }}
        {passed_on}
        http {{
            access_log off;
            client_body_temp_path FOLDER/body;
            proxy_temp_path FOLDER/proxy;
            fastcgi_temp_path FOLDER/fastcgi;
            uwsgi_temp_path FOLDER/uwsgi;
            scgi_temp_path FOLDER/scgi;
            map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
            {upstream}
            {sites}
        }}
        """
        command = ["nginx", "-e", "stderr", "-p", "FOLDER", "-c", "FOLDER/config"]
        super().__init__(command, config, list(self.port.values()))


class Haproxy(Proxy):
    """haproxy in front of a server. `ways` are the words behind `server name address:port`, by
    the name under which `port` has them; `mode` is tcp or http."""

    def __init__(self, to: int, mode: str = "tcp", source: str = "127.0.0.1", more: str = "",
                 **ways: str):
        self.port = {name: next(PORTS) for name in ways}
        self.statistics = next(PORTS)
        lines = [
            "defaults", f"mode {mode}", "timeout connect 10s", "timeout client 60s",
            "timeout server 60s", "timeout tunnel 60s", more,
            "listen statistics", f"bind {HOME}:{self.statistics}", "mode http",
            "stats enable", "stats uri /",
        ]
        for name, words in ways.items():
            lines += [
                f"listen {name}", f"bind {HOME}:{self.port[name]}",
                f"server tidemill 127.0.0.1:{to} source {source} {words}",
            ]
        command = ["haproxy", "-db", "-f", "FOLDER/config"]
        ports = [*self.port.values(), self.statistics]
        super().__init__(command, "\n".join(lines) + "\n", ports)


class Client:
    """One open WebSocket. What `websockets` has for a blocking socket reads in a thread of its own,
    which Python's TLS does not always bear: now and then a request is not sent. Here one thread
    does it all."""

    def __init__(self, stream: socket.socket, url: str, headers: dict[str, str]):
        self.stream = stream
        self.events = []
        self.protocol = ClientProtocol(parse_uri(url))
        request = self.protocol.connect()
        request.headers.update(headers)
        self.protocol.send_request(request)
        try:
            self._next()
            if self.protocol.handshake_exc:
                raise self.protocol.handshake_exc
        except BaseException:
            stream.close()
            raise

    def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)

    def recv(self) -> str | bytes:
        frame = self._next()
        assert frame.fin and frame.opcode in (Opcode.TEXT, Opcode.BINARY), frame
        return frame.data.decode() if frame.opcode is Opcode.TEXT else bytes(frame.data)

    def _next(self):
        """The next event: an answer first, then frames."""
        while not self.events:
            self._flush()
            if chunk := self.stream.recv(65536):
                self.protocol.receive_data(chunk)
            else:
                self.protocol.receive_eof()
            self.events += self.protocol.events_received()
            if not self.events and (not chunk or self.protocol.handshake_exc):
                raise self.protocol.handshake_exc or ConnectionError("ended without a Close")
        return self.events.pop(0)

    def _flush(self) -> None:
        self.stream.sendall(b"".join(self.protocol.data_to_send()))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        with self.stream:
            self.protocol.send_close(1000)
            close = self._next()
            assert close.opcode is Opcode.CLOSE, close


def enter(
    port: int, *, at: str = HOME, source: str = "127.0.0.1", name: str | None = None,
    origin: str | None = None, secure: bool = False, headers: dict[str, str] | None = None,
) -> Client:
    """An upgrade at `at:port` from the address `source`. `name` is what stands in the address bar
    (the port as well, unless it is the scheme's own); `origin` is the page's, else the same."""
    name = name or f"{NAME}:{port}"
    scheme = "s" if secure else ""
    stream = socket.create_connection((at, port), LIMIT_S, source_address=(source, 0))
    if secure:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        stream = context.wrap_socket(stream, server_hostname=NAME)
    headers = {"Origin": origin or f"http{scheme}://{name}"} | (headers or {})
    return Client(stream, f"ws{scheme}://{name}/echo", headers)


def enter_once_free(port: int, **how) -> Client:
    """As `enter`, where the place of who has just gone is wanted: it is free when the server has
    seen the end, too."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            return enter(port, **how)
        except InvalidStatus as refused:
            if refused.response.status_code != 429 or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def visit(port: int, **how) -> int:
    """The status of an upgrade; with 101 a message has come back as well."""
    try:
        with enter(port, **how) as client:
            client.send("through and back")
            assert client.recv() == "through and back"
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def refusal(port: int, **how):
    """The answer to an upgrade that must be refused."""
    try:
        with enter(port, **how):
            raise AssertionError("not refused")
    except InvalidStatus as refused:
        return refused.response
