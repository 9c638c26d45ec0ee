"""The scripts that bring certificates: what they write, and what a running server makes of it."""

import os
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GEN_CERTS = ROOT / "scripts/gen-certs"
HOOK = ROOT / "deploy/certbot-hook"
LIMIT_S = 20


def run(*command, **variables):
    done = subprocess.run(
        [str(word) for word in command], env={**os.environ, **variables}, timeout=LIMIT_S,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def made(folder: Path, *options: str) -> Path:
    status, _, said = run(GEN_CERTS, "--dir", folder, *options)
    assert status == 0, said
    return folder


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def shown(port: int) -> bytes:
    """The certificate that the server shows to a new connection."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as stream:
        with context.wrap_socket(stream) as secured:
            return secured.getpeercert(binary_form=True)


def in_file(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def test_a_made_certificate_is_verified_by_name_and_by_both_addresses(start, tmp_path):
    folder = made(tmp_path / "certs")
    assert mode(folder / "key.pem") == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["cert.pem", "key.pem"]

    server = start(
        TLS_LISTEN="127.0.0.1:0", TLS_CERT=str(folder / "cert.pem"), TLS_KEY=str(folder / "key.pem")
    )
    context = ssl.create_default_context(cafile=folder / "cert.pem")
    for name in ("localhost", "127.0.0.1", "::1"):
        with socket.create_connection(("127.0.0.1", server.tls_port), LIMIT_S) as stream:
            with context.wrap_socket(stream, server_hostname=name) as secured:
                days = ssl.cert_time_to_seconds(secured.getpeercert()["notAfter"]) - time.time()
    assert 364 < days / 86400 <= 365
    with socket.create_connection(("127.0.0.1", server.tls_port), LIMIT_S) as stream:
        with pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(stream, server_hostname="example.com")


def test_what_is_there_is_replaced_only_by_force(tmp_path):
    folder = made(tmp_path / "certs")
    before = [path.read_bytes() for path in (folder / "cert.pem", folder / "key.pem")]
    status, _, said = run(GEN_CERTS, "--dir", folder)
    assert status == 1 and "--force" in said
    (folder / "cert.pem").unlink()
    assert run(GEN_CERTS, "--dir", folder)[0] == 1, "a key alone is not overwritten either"
    assert (folder / "key.pem").read_bytes() == before[1]
    made(folder, "--force")
    assert before[1] != (folder / "key.pem").read_bytes()


def test_without_openssl_the_reason_is_said_and_nothing_is_left(tmp_path):
    status, _, said = run(GEN_CERTS, "--dir", tmp_path / "a", OPENSSL="no-such-openssl")
    assert status == 1 and "install openssl" in said
    status, _, said = run(GEN_CERTS, "--dir", tmp_path / "b", OPENSSL="false")
    assert status == 1 and said.startswith("error: ")
    assert not any((tmp_path / "b").iterdir())


class Authority:
    """certbot's side: a folder with the chain and key of a name, new ones at each renewal."""

    def __init__(self, folder: Path):
        self.lineage = folder / "live/example.com"
        self.deployed = folder / "deployed"
        self.current = self.deployed / "example.com"

    def renew(self) -> bytes:
        made(self.lineage, "--force")
        (self.lineage / "cert.pem").replace(self.lineage / "fullchain.pem")
        (self.lineage / "key.pem").replace(self.lineage / "privkey.pem")
        group = str(os.getgid())
        status, _, said = run(HOOK, self.deployed, group, RENEWED_LINEAGE=str(self.lineage))
        assert status == 0, said
        return in_file(self.lineage / "fullchain.pem")


def test_a_renewal_reaches_a_running_server_in_one_step(start, tmp_path):
    authority = Authority(tmp_path)
    first = authority.renew()
    server = start(
        TLS_LISTEN="127.0.0.1:0", TLS_RELOAD_INTERVAL="1s",
        TLS_CERT=str(authority.current / "fullchain.pem"),
        TLS_KEY=str(authority.current / "privkey.pem"),
    )
    assert shown(server.tls_port) == first
    for renewals in (1, 2):
        renewed = authority.renew()
        server.settles("tidemill_reloads_total", renewals, result="ok")
        assert shown(server.tls_port) == renewed
    assert server.metric("tidemill_reloads_total", result="failed") == 0


def test_the_hook_leaves_the_key_to_its_group_and_one_version_before(tmp_path):
    authority = Authority(tmp_path)
    authority.renew()
    before = authority.current.resolve()
    authority.renew()
    authority.renew()
    current = authority.current.resolve()
    assert (mode(current), mode(current / "privkey.pem")) == (0o750, 0o640)
    assert mode(current / "fullchain.pem") == 0o644
    assert len(list(authority.deployed.iterdir())) == 3, "current, the one before, and the link"
    assert not before.exists()


def test_a_hook_that_fails_changes_nothing(tmp_path):
    authority = Authority(tmp_path)
    authority.renew()
    current = authority.current.resolve()
    (authority.lineage / "privkey.pem").unlink()
    status, _, _ = run(
        HOOK, authority.deployed, str(os.getgid()), RENEWED_LINEAGE=str(authority.lineage)
    )
    assert status != 0
    assert authority.current.resolve() == current
    assert len(list(authority.deployed.iterdir())) == 2
