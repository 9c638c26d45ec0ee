"""Looks for weak TLS with sslyze: the server must pass Mozilla's intermediate profile, and every
check that sslyze knows. `SUITE_SERVER` names the binary; the status is 0 when nothing is weak."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sslyze import (
    Scanner,
    ServerNetworkLocation,
    ServerScanRequest,
    ServerScanResult,
    ServerScanStatusEnum,
)
from sslyze.json.json_output import ServerScanResultAsJson
from sslyze.mozilla_tls_profile.tls_config_checker import (
    MozillaTlsConfiguration,
    ServerNotCompliantWithTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)

BINARY = os.environ.get("SUITE_SERVER", "target/release/tidemill")
START_LIMIT_S = 20
OLD = ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"]
SUITES = {
    "tls_1_2": {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    },
    "tls_1_3": {
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    },
}


def openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def certify(folder: Path) -> dict[str, str]:
    """An ECDSA and an RSA certificate for the same name: what each sort of client is shown."""
    kinds = {"ecdsa": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["rsa:2048"]}
    for name, kind in kinds.items():
        openssl("req", "-x509", "-newkey", *kind, "-nodes", "-keyout", str(folder / f"{name}.key"),
                "-out", str(folder / f"{name}.pem"), "-days", "90", "-subj", "/CN=localhost",
                "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    return {
        "TIDEMILL_TLS_CERT": ",".join(str(folder / f"{name}.pem") for name in kinds),
        "TIDEMILL_TLS_KEY": ",".join(str(folder / f"{name}.key") for name in kinds),
    }


def start(folder: Path) -> tuple[subprocess.Popen, int]:
    variables = {name: value for name, value in os.environ.items() if "TIDEMILL_" not in name}
    variables |= {"TIDEMILL_LISTEN": "off", "TIDEMILL_TLS_LISTEN": "127.0.0.1:0"} | certify(folder)
    log = folder / "log"
    with log.open("w") as output:
        server = subprocess.Popen([BINARY], env=variables, stdout=output, stderr=output)
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and server.poll() is None:
        if found := re.search(r"wss://127\.0\.0\.1:(\d+)", log.read_text()):
            return server, int(found[1])
        time.sleep(0.02)
    server.kill()
    sys.exit(f"the server did not start:\n{log.read_text()}")


def scan(port: int) -> ServerScanResult:
    scanner = Scanner()
    location = ServerNetworkLocation("localhost", port, ip_address="127.0.0.1")
    scanner.queue_scans([ServerScanRequest(location)])
    [result] = scanner.get_results()
    if result.scan_status != ServerScanStatusEnum.COMPLETED:
        sys.exit(f"the scan did not come to an end: {result.connectivity_error_trace}")
    return result


def weaknesses(found: dict) -> list[str]:
    """What is wrong with what the scan has found, in words."""
    problems = []

    def expect(name: str, holds: bool, seen: object) -> None:
        if not holds:
            problems.append(f"{name}: {json.dumps(seen)[:500]}")

    results = {}
    for command, attempt in found.items():
        expect(command, attempt["status"] == "COMPLETED", attempt["error_trace"])
        results[command] = attempt["result"]
    for version in OLD:
        accepted = results[f"{version}_cipher_suites"]["accepted_cipher_suites"]
        expect(f"{version} is spoken", not accepted, accepted)
    for version, wanted in SUITES.items():
        accepted = results[f"{version}_cipher_suites"]["accepted_cipher_suites"]
        names = {suite["cipher_suite"]["name"] for suite in accepted}
        expect(f"the suites of {version}", names == wanted, sorted(names ^ wanted))
    renegotiation = results["session_renegotiation"]
    expect("renegotiation is not secure", renegotiation["supports_secure_renegotiation"],
           renegotiation)
    expect("clients may renegotiate for ever",
           not renegotiation["is_vulnerable_to_client_renegotiation_dos"], renegotiation)
    # Of tickets sslyze takes a new one for a refusal; that the server remembers nobody it sees.
    by_id = results["session_resumption"]["session_id_resumption_result"]
    expect("sessions are remembered", by_id == "NOT_SUPPORTED", by_id)
    flags = {
        "tls_compression": "supports_compression",
        "tls_1_3_early_data": "supports_early_data",
        "heartbleed": "is_vulnerable_to_heartbleed",
        "openssl_ccs_injection": "is_vulnerable_to_ccs_injection",
    }
    for command, flag in flags.items():
        expect(command, results[command][flag] is False, results[command])
    fallback = results["tls_fallback_scsv"]
    expect("tls_fallback_scsv", fallback["supports_fallback_scsv"], fallback)
    robot = results["robot"]["robot_result"]
    expect("robot", robot.startswith("NOT_VULNERABLE"), robot)
    master = results["tls_extended_master_secret"]["supports_ems_extension"]
    expect("extended master secret", master, master)
    curves = {curve["name"] for curve in results["elliptic_curves"]["supported_curves"]}
    expect("curves", curves == {"X25519", "secp256r1", "secp384r1"}, sorted(curves))
    shown = results["certificate_info"]["certificate_deployments"]
    expect("certificates for both sorts of clients", len(shown) == 2, len(shown))
    return problems


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server, port = start(Path(folder))
        try:
            result = scan(port)
            problems = weaknesses(
                json.loads(ServerScanResultAsJson.model_validate(result).model_dump_json())[
                    "scan_result"
                ]
            )
            try:
                check_server_against_tls_configuration(
                    result, MozillaTlsConfiguration.get(TlsConfigurationEnum.MOZILLA_INTERMEDIATE))
            except ServerNotCompliantWithTlsConfiguration as error:
                # Nobody signed these certificates but they themselves.
                error.issues.pop("certificate_path_validation")
                problems += [f"Mozilla, {name}: {text}" for name, text in error.issues.items()]
            assert server.poll() is None, "the server ended under the scan"
        finally:
            server.terminate()
        if server.wait(30) != 0 or "panicked" in (Path(folder) / "log").read_text():
            problems.append((Path(folder) / "log").read_text())
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(1)
    print(f"{len(SUITES['tls_1_2']) + len(SUITES['tls_1_3'])} suites accepted, nothing weak")


if __name__ == "__main__":
    main()
