"""From choices to a script, or to the user-data that has one in it."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from typing import Final

from attrs import frozen
from jinja2 import Environment, PackageLoader, StrictUndefined

from regproxy.management.setup.choices import Choices, CloudChoices
from regproxy.management.setup.facts import Facts
from regproxy.management.setup.kinds import Cloud, Mode
from regproxy.oci.names import Host

_CERTIFICATE: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]+)\n-----END CERTIFICATE-----"
)
# Printable ASCII: what has another meaning to nobody between single quotes.
_PLAIN: Final = re.compile(r"[ -~]*")

_BY: Final[Mapping[Mode, str]] = {
    Mode.PROXY: "sends the pulls of {} through the proxy",
    Mode.HOSTS: "has {} ask the mirror first, by hosts.toml",
    Mode.DNS: "has {} find the proxy by its name server",
}

#: How user-data reaches a machine, in which cloud.
HINTS: Final[Mapping[Cloud, tuple[str, ...]]] = {
    Cloud.GCP: (
        "Google Cloud, for images with cloud-init, as those of Ubuntu. Others take the script",
        "itself, /setup/docker or /setup/containerd, as their startup-script.",
        "  gcloud compute instances create NAME --metadata-from-file user-data=FILE",
    ),
    Cloud.ALIYUN: (
        "Alibaba Cloud, for ECS as user data, for node pools of ACK as custom data:",
        '  aliyun ecs RunInstances --UserData "$(base64 -w 0 FILE)" ...',
    ),
    Cloud.AWS: (
        "AWS, at most 16384 bytes; what is larger, as with two long certificates, goes compressed:",
        "gzip FILE, and fileb://FILE.gz.",
        "  aws ec2 run-instances --user-data file://FILE ...",
    ),
    Cloud.PLAIN: ("For everything that runs cloud-init: the user-data of its data source.",),
}


@frozen
class Authority:
    """What clients have to trust.

    Attributes:
        fingerprint: SHA-256 of the first certificate's DER form, as people compare it.
        certificates: in PEM form; none when the client is to fetch it, and to compare.
    """

    fingerprint: str
    certificates: tuple[str, ...] = ()

    @classmethod
    def of(cls, pem: bytes) -> Authority:
        """Those of a PEM file, which may have another one ready."""
        matches = list(_CERTIFICATE.finditer(pem.decode("ascii")))
        der = b64decode(matches[0][1])
        fingerprint = sha256(der).digest().hex(":").upper()
        return cls(fingerprint, tuple(match[0] for match in matches))


def quoted(text: str) -> str:
    """*text* as one word of a shell, in single quotes.

    Raises:
        ValueError: it has characters that have no business in a script.
    """
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"not printable ASCII: {text!a}")
    return "'" + text.replace("'", "'\\''") + "'"


def script(choices: Choices, facts: Facts, authority: Authority) -> str:
    """The script."""
    kind, proxy, mirror = choices.kind, choices.proxy, facts.mirror
    template = _templates().get_template(f"setup/{kind.template}.sh")
    return template.render(
        purpose=_purpose(choices),
        kind=kind.record,
        units=kind.units,
        mode=choices.mode.value,
        undo=choices.undo,
        proxy=facts.url(proxy),
        no_proxy=",".join(choices.no_proxy),
        mirror=f"{mirror.scheme}://{Host(proxy.name, mirror.port).authority}" if mirror else "",
        name_server=facts.name_server or "",
        probe=facts.probe or "",
        registries=[str(host) for host in facts.registries],
        plain_http=facts.plain_http,
        fingerprint=authority.fingerprint,
        certificates=authority.certificates,
    )


def user_data(
    choices: CloudChoices, facts: Facts, authority: Authority, notes: Sequence[str] = ()
) -> str:
    """User-data that runs the script when a machine is made.

    Args:
        notes: lines for whoever reads it, after those that tell how it is used.
    """
    template = _templates().get_template("setup/cloud-init.yaml")
    return template.render(
        purpose=_purpose(choices.script),
        notes=[*HINTS[choices.cloud], *notes],
        script=script(choices.script, facts, authority).rstrip("\n"),
    )


def refusal(message: str) -> str:
    """A script that says *message* and fails: what is refused may be on its way into a shell."""
    plain = "".join(each if _PLAIN.fullmatch(each) else "?" for each in message)
    return f"#!/bin/sh\nprintf '%s\\n' {quoted(f'regproxy: {plain}')} >&2\nexit 1\n"


def _purpose(choices: Choices) -> str:
    kind = choices.kind
    return f"{kind.purpose or _BY[choices.mode].format(kind.title)}."


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("regproxy.management"),
        # Neither shell nor YAML is HTML; what is filled in is quoted one by one.
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sh"] = quoted
    return environment
