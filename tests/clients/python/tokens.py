"""Keys and tokens of every kind that the server takes, made by PyJWT and `cryptography`; and what
becomes of an upgrade that shows one."""

import base64
import hashlib
import hmac
import json
import secrets
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

LIMIT_S = 20
SECRET = secrets.token_hex(64)
COOKIE = "sign_in"
PLACES = {
    "header": lambda token: {"headers": {"Authorization": f"Bearer {token}"}},
    "query": lambda token: {"query": f"?room=1&token={token}"},
    "cookie": lambda token: {"headers": {"Cookie": f"theme=dark; {COOKIE}={token}; last=1"}},
}
JWK_MAKERS = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


def private_key(algorithm: str):
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return secrets.token_hex(32)


def pem(key) -> str:
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return key.public_key().public_bytes(*form).decode()


def jwk(key, algorithm: str, kid: str) -> dict:
    if isinstance(key, str):
        return HMACAlgorithm.to_jwk(key, as_dict=True) | {"alg": algorithm, "kid": kid}
    public = JWK_MAKERS[algorithm].to_jwk(key.public_key(), as_dict=True)
    return public | {"alg": algorithm, "kid": kid, "use": "sig"}


def jwk_set(*keys: dict) -> str:
    return json.dumps({"keys": keys})


def sign(key, algorithm: str, kid: str | None = None, **claims) -> str:
    """A token of `sub` anne that is good for a minute, but for what `claims` say; None leaves a
    claim out."""
    headers = {"kid": kid} if kid else None
    claims = {"sub": "anne", "exp": int(time.time()) + 60} | claims
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers)


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def confused(secret: bytes, header: dict | None = None, digest=hashlib.sha256) -> str:
    """A token under HMAC with any bytes as the secret: PyJWT refuses to sign with a public key."""
    header = header or {"alg": "HS256", "typ": "JWT"}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in (header, {"sub": "anne"}))
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), digest))}"


def enter(server, token=None, place="header", query="", headers=None):
    how = PLACES[place](token) if token is not None else {"query": query, "headers": headers}
    return connect(
        server.url(f"/echo{how.get('query', '')}"), additional_headers=how.get("headers"),
        proxy=None, compression=None, open_timeout=LIMIT_S, close_timeout=LIMIT_S,
    )


def admitted(server, *how, **more) -> bool:
    """Whether an upgrade is admitted: then a message comes back; else the answer is a 401."""
    try:
        with enter(server, *how, **more) as client:
            client.send("hello")
            assert client.recv(LIMIT_S) == "hello"
            return True
    except InvalidStatus as refused:
        assert refused.response.status_code == 401
        assert refused.response.headers["WWW-Authenticate"].startswith("Bearer ")
        return False


def refused_as(server, reason: str, *how, **more):
    """The answer to an upgrade, which must be refused and counted as this."""
    name = "tidemill_handshakes_refused_total"
    before = server.metric(name, reason=reason)
    with pytest.raises(InvalidStatus) as refused:
        with enter(server, *how, **more):
            pass
    server.settles(name, before + 1, reason=reason)
    return refused.value.response


def invalid_as(server, reason: str, *how, **more):
    answer = refused_as(server, reason, *how, **more)
    assert answer.status_code == 401
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="tidemill"') and 'error="invalid_token"' in challenge
    assert json.loads(answer.body)["error"]


def close_reason(client) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(LIMIT_S)
    assert closed.value.rcvd is not None, "no Close frame"
    return closed.value.rcvd.code, closed.value.rcvd.reason
