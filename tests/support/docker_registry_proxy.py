"""What docker-registry-proxy leaves behind: a directory with its CA."""

from __future__ import annotations

from pathlib import Path

from tests.support.process import environment, run
from tests.support.programs import program

PASSPHRASE = "foobar"

_CONFIG = """\
[req]
distinguished_name = dn
[dn]
[IA]
basicConstraints = critical,CA:TRUE
keyUsage = critical, digitalSignature, cRLSign, keyCertSign
subjectKeyIdentifier = hash
"""


def make_ca(directory: Path, *, bits: int = 4096, traditional: bool = False) -> None:
    """Make ``ca.crt``, ``ca.key`` and ``ca.srl`` with the commands that its script has.

    Args:
        bits: of the key; fewer than the script's 4096 are faster.
        traditional: the format of keys that OpenSSL wrote before release 3.
    """
    config, key, certificate = (directory / name for name in ("ca.cnf", "ca.key", "ca.crt"))
    config.write_text(_CONFIG)
    form = ["-traditional"] if traditional else []
    secret = f"pass:{PASSPHRASE}"
    subject = "/C=NL/ST=Noord Holland/L=Amsterdam/O=ME/OU=IT/CN=DockerMirrorBox CA Root 1f2e3d"
    for arguments in (
        ["genrsa", "-des3", *form, "-passout", secret, "-out", f"{key}", f"{bits}"],
        [
            *["req", "-new", "-x509", "-days", "1300", "-sha256", "-key", f"{key}"],
            *["-out", f"{certificate}", "-passin", secret, "-subj", subject],
            *["-extensions", "IA", "-config", f"{config}"],
        ],
    ):
        run(program("openssl"), *arguments, env=environment()).check()
    config.unlink()
    (directory / "ca.srl").write_text("01\n")
