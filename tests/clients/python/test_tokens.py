"""Who shows a token: made by PyJWT, in each place and of each kind; wrong in each way; expiring
and revoked while its connection is open."""

import json
import time
import urllib.error
import urllib.request

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from serving import Server
from tokens import (
    COOKIE,
    LIMIT_S,
    PLACES,
    SECRET,
    admitted,
    close_reason,
    confused,
    encoded,
    enter,
    invalid_as,
    jwk,
    jwk_set,
    pem,
    private_key,
    refused_as,
    sign,
)

ALGORITHMS = ["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"]


@pytest.fixture(scope="module")
def keys():
    """What each algorithm is signed with; those of HMAC share a secret, as one family."""
    return {name: SECRET if "HS" in name else private_key(name) for name in ALGORITHMS}


def public(keys) -> str:
    return "".join(pem(key) for key in keys.values() if not isinstance(key, str))


@pytest.fixture(scope="module")
def guarded(keys, tmp_path_factory):
    """A server that knows all of these keys, and demands a token."""
    log = tmp_path_factory.mktemp("guarded") / "log"
    server = Server(
        log, TOKEN_SECRET=SECRET, TOKEN_PUBLIC_KEY=public(keys), TOKEN_COOKIE=COOKIE,
        MAX_HEADER_BYTES="32KiB", LOG="debug", LOG_FORMAT="text",
    )
    yield server
    server.stop()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_every_kind_is_taken_from_every_place(guarded, keys, algorithm, place):
    assert admitted(guarded, sign(keys[algorithm], algorithm), place)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_of_somebody_else_opens_nothing(guarded, algorithm, place):
    invalid_as(guarded, "token_signature", sign(private_key(algorithm), algorithm), place)


def test_without_a_token_the_answer_says_what_is_wanted(guarded):
    answer = refused_as(guarded, "token_missing")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="tidemill"'
    assert guarded.get("/health")[0] == 200 and guarded.get("/")[0] == 200


def test_the_vector_of_another_server_is_understood(start):
    token = (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
        ".eyJzdWIiOiI0MiIsImlhdCI6MTcwMDAwMDAwMCwiZXhwIjo0MTAyNDQ0ODAwfQ"
        ".bdncrEqcZEponkYINSJmuzgzghiXUu5YEWx8YoGqGNA"
    )
    assert admitted(start(TOKEN_SECRET="cent-secret"), token)


def test_a_key_of_any_usual_size_is_used(start):
    key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    assert admitted(start(TOKEN_PUBLIC_KEY=pem(key)), sign(key, "RS256"))


@pytest.mark.parametrize("seconds", [-3, -0.5])
@pytest.mark.parametrize("algorithm", ["HS256", "EdDSA"])
def test_a_clock_may_be_a_little_off(guarded, keys, algorithm, seconds):
    now = time.time()
    assert admitted(guarded, sign(keys[algorithm], algorithm, exp=now + seconds))
    assert admitted(guarded, sign(keys[algorithm], algorithm, nbf=now - seconds))
    assert admitted(guarded, sign(keys[algorithm], algorithm, iat=int(now) + 3600))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_expired_and_not_yet_valid_are_told_apart(guarded, keys, algorithm):
    now = int(time.time())
    invalid_as(guarded, "token_expired", sign(keys[algorithm], algorithm, exp=now - 30))
    invalid_as(guarded, "token_early", sign(keys[algorithm], algorithm, nbf=now + 30))
    assert admitted(guarded, sign(keys[algorithm], algorithm, exp=None)), "it never expires"


def test_the_leeway_is_as_wide_as_it_is_said(start):
    wide = start(TOKEN_SECRET=SECRET, TOKEN_LEEWAY="60s")
    none = start(TOKEN_SECRET=SECRET, TOKEN_LEEWAY="0s")
    expired = sign(SECRET, "HS256", exp=int(time.time()) - 20)
    early = sign(SECRET, "HS256", nbf=int(time.time()) + 30)
    assert admitted(wide, expired) and admitted(wide, early)
    invalid_as(none, "token_expired", expired)
    invalid_as(none, "token_early", early)


@pytest.mark.parametrize("secret", [b"", b"none", None], ids=["empty", "a-word", "the-secret"])
@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE"])
def test_no_spelling_of_none_is_an_algorithm(guarded, name, secret):
    token = jwt.encode({"sub": "anne"}, None, algorithm="none")
    assert token.endswith(".")
    header = encoded(json.dumps({"alg": name, "typ": "JWT"}).encode())
    unsigned = f"{header}.{token.split('.')[1]}."
    assert not admitted(guarded, unsigned)
    signed = confused(SECRET.encode() if secret is None else secret, {"alg": name, "typ": "JWT"})
    assert not admitted(guarded, signed)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_is_no_secret(start, keys, algorithm):
    """Algorithm confusion: everybody has the public key, so nobody may sign with it."""
    key = keys[algorithm]
    text = pem(key)
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    forms = [
        text.encode(), text.strip().encode(), text.replace("\n", "\r\n").encode(), der,
        "".join(text.splitlines()[1:-1]).encode(), json.dumps(jwk(key, algorithm, "a")).encode(),
    ]
    both = start(TOKEN_SECRET=SECRET, TOKEN_PUBLIC_KEY=text)
    alone = start(TOKEN_PUBLIC_KEY=text)
    for server in (both, alone):
        assert admitted(server, sign(key, algorithm))
        for form in forms:
            assert not admitted(server, confused(form))
    assert not admitted(alone, sign(SECRET, "HS256"))


def test_a_key_id_does_not_lend_a_key_to_another_algorithm(start, keys):
    key = keys["RS256"]
    server = start(
        TOKEN_PUBLIC_KEY=jwk_set(jwk(key, "RS256", "one")),
        TOKEN_SECRET=jwk_set(jwk(SECRET, "HS256", "two")),
    )
    assert admitted(server, sign(key, "RS256", "one"))
    assert admitted(server, sign(SECRET, "HS256", "two"))
    header = {"alg": "HS256", "typ": "JWT", "kid": "one"}
    for secret in (pem(key).encode(), SECRET.encode()):
        assert not admitted(server, confused(secret, header))
    assert not admitted(server, sign(key, "RS256", "two"))
    # The key says HS256, and means it.
    assert not admitted(server, sign(SECRET, "HS512", "two"))


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256", "ES384", "ES512"])
def test_other_algorithms_are_refused_as_such(guarded, keys, algorithm):
    curves = {"ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    key = ec.generate_private_key(curves[algorithm]) if algorithm in curves else keys["RS256"]
    invalid_as(guarded, "token_algorithm", sign(key, algorithm))


def test_what_was_changed_after_signing_is_refused(guarded, keys):
    other = sign(SECRET, "HS256", sub="root").split(".")[1]
    for algorithm in ALGORITHMS:
        header, _, signature = sign(keys[algorithm], algorithm).split(".")
        invalid_as(guarded, "token_signature", f"{header}.{other}.{signature}")


@pytest.mark.parametrize(
    "make",
    [
        lambda good: "",
        lambda good: "x",
        lambda good: "..",
        lambda good: good.rsplit(".", 1)[0],
        lambda good: good + ".x.y",
        lambda good: good + "=",
        lambda good: sign(SECRET, "HS256", pad="x" * 10_000),
        lambda good: sign(SECRET, "HS256", exp="soon"),
        lambda good: sign(SECRET, "HS256", nbf=[1]),
        lambda good: jwt.encode({"sub": "anne"}, SECRET, headers={"crit": ["exp"]}),
        lambda good: jwt.encode(
            {"sub": "anne"}, SECRET, headers={"b64": False, "crit": ["b64"]}
        ).replace("..", f".{encoded(b'{}')}."),
        lambda good: encoded(b"[]") + "." + good.split(".", 1)[1],
    ],
    ids=["empty", "a-letter", "dots", "two-parts", "five-parts", "padded", "ten-kilobytes",
         "exp-is-text", "nbf-is-a-list", "critical", "not-encoded", "header-is-a-list"],
)
def test_what_is_no_token_is_refused_as_such(guarded, make):
    token = make(sign(SECRET, "HS256"))
    if token:
        invalid_as(guarded, "token_malformed", token)
        invalid_as(guarded, "token_malformed", token, "query")
        invalid_as(guarded, "token_malformed", token, "cookie")
    else:
        assert not admitted(guarded, token)


def test_the_first_token_found_is_the_one_that_counts(guarded):
    good, bad = sign(SECRET, "HS256"), sign("x" * 64, "HS256")
    header = {"Authorization": f"Bearer {bad}", "Cookie": f"{COOKIE}={good}"}
    assert not admitted(guarded, query=f"?token={good}", headers=header)
    assert not admitted(guarded, query=f"?token={bad}", headers={"Cookie": f"{COOKIE}={good}"})
    header = {"Authorization": f"bearer {good}", "Cookie": f"{COOKIE}={bad}"}
    assert admitted(guarded, query=f"?token={bad}", headers=header)


def test_issuer_and_audience_are_demanded_where_they_are_set(start):
    server = start(
        TOKEN_SECRET=SECRET, TOKEN_ISSUER="https://sign-in.example,https://old.example",
        TOKEN_AUDIENCE="chat,games",
    )
    good = {"iss": "https://old.example", "aud": "games"}
    assert admitted(server, sign(SECRET, "HS256", **good))
    assert admitted(server, sign(SECRET, "HS256", **good | {"aud": ["other", "chat"]}))
    for issuer in ("https://evil.example", "https://old.example/", None):
        invalid_as(server, "token_issuer", sign(SECRET, "HS256", **good | {"iss": issuer}))
    for audience in ("chats", ["other"], [], None):
        invalid_as(server, "token_audience", sign(SECRET, "HS256", **good | {"aud": audience}))


def test_a_token_that_is_not_demanded_must_be_good_all_the_same(start):
    server = start(TOKEN_SECRET=SECRET, TOKEN_REQUIRED="false")
    assert admitted(server)
    assert admitted(server, sign(SECRET, "HS256"))
    invalid_as(server, "token_signature", sign("x" * 64, "HS256"))


@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
def test_a_connection_ends_with_its_token(start, keys, algorithm):
    server = start(
        TOKEN_SECRET=SECRET, TOKEN_PUBLIC_KEY=public(keys), TOKEN_LEEWAY="1s", REACTORS="1")
    expiry = int(time.time()) + 1
    with enter(server, sign(keys[algorithm], algorithm)) as stays:
        with enter(server, sign(keys[algorithm], algorithm, exp=expiry)) as ends:
            ends.send("still here")
            assert ends.recv(LIMIT_S) == "still here"
            assert close_reason(ends) == (1008, "token expired")
            # Not before the leeway has passed as well.
            assert expiry + 1 <= time.time() < expiry + 11
        stays.send("I may stay")
        assert stays.recv(LIMIT_S) == "I may stay"
    server.settles("tidemill_closed_total", 1, code="1008")


def post(server, path: str, body: dict, **headers: str) -> tuple[int, dict]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}", json.dumps(body).encode(),
        {"Content-Type": "application/json"} | headers,
    )
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_revoked_token_closes_its_connections_and_opens_no_more(start):
    server = start(TOKEN_SECRET=SECRET, API_KEY="a-key-for-the-api")
    key = {"X-API-Key": "a-key-for-the-api"}
    now = int(time.time())
    one, other = (sign(SECRET, "HS256", jti=name, iat=now - 1) for name in ("one", "other"))
    with enter(server, one) as first, enter(server, other) as second:
        assert post(server, "/api/revoke", {"jti": "one"})[0] == 401
        assert post(server, "/api/revoke", {"jti": "one"}, **{"X-API-Key": "another"})[0] == 401
        assert post(server, "/api/revoke", {"jti": "one", "exp": now + 60}, **key) == (
            200, {"result": {}})
        assert close_reason(first) == (1008, "token revoked")
        invalid_as(server, "token_revoked", one)
        second.send("I may stay")
        assert second.recv(LIMIT_S) == "I may stay"
        assert post(server, "/api/revoke", {"sub": "anne", "exp": now + 60}, **key)[0] == 200
        assert close_reason(second) == (1008, "token revoked")
    invalid_as(server, "token_revoked", other)
    assert admitted(server, sign(SECRET, "HS256", sub="bob", jti="another"))
    assert admitted(server, sign(SECRET, "HS256", iat=int(time.time()) + 5)), "a later sign-in"


def test_nothing_secret_is_in_the_log(guarded, keys):
    token, query = sign(SECRET, "HS256"), sign(keys["RS256"], "RS256", exp=1)
    assert admitted(guarded, token)
    assert not admitted(guarded, query, "query")
    assert admitted(guarded, query=f"?token={token}&api_key=hush-hush")
    guarded.says(r"token=\*\*\*")
    text = guarded.log.read_text()
    for hidden in (SECRET, "hush-hush", *token.split(".")[1:], *query.split(".")[1:]):
        assert hidden not in text
    assert "eyJ" not in text, "the beginning of any token"
