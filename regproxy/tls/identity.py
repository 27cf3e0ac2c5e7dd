"""Whether a certificate is for a host. Pure; the rules are those of RFC 9525.

Only subject alternative names count (section 2); a common name never does. An
address is matched by iPAddress alone, never by a dNSName that looks like one
(section 6.4). A wildcard is the whole left-most label and stands for exactly one
label (section 6.3). Two labels at least have to follow it, as in browsers, so
that nobody's certificate covers a whole top-level domain.

A name that breaks these rules matches nothing and spoils no other: certificates
that hold both ``IP:10.0.0.7`` and ``DNS:10.0.0.7`` are common in private networks.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from attrs import frozen
from cryptography import x509

_SHOWN: Final = 5


@frozen
class CertifiedNames:
    """The host names (lower case) and addresses that a certificate is for."""

    dns: tuple[str, ...]
    addresses: tuple[IPv4Address | IPv6Address, ...]

    @classmethod
    def of(cls, certificate: x509.Certificate) -> CertifiedNames:
        """Read them.

        Raises:
            ValueError: the certificate's extensions cannot be decoded.
        """
        try:
            names = certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value
        except x509.ExtensionNotFound:
            return cls((), ())
        return cls(
            tuple(name.lower() for name in names.get_values_for_type(x509.DNSName)),
            tuple(
                address
                for address in names.get_values_for_type(x509.IPAddress)
                if isinstance(address, IPv4Address | IPv6Address)
            ),
        )

    def cover(self, host: str) -> bool:
        """Whether *host*, a lower-case host name or an address, is one of them."""
        try:
            return ip_address(host) in self.addresses
        except ValueError:
            return any(_matches(pattern, host) for pattern in self.dns)

    def __str__(self) -> str:
        names = [*self.dns, *map(str, self.addresses)]
        more = ", ..." if len(names) > _SHOWN else ""
        # Whoever made the certificate chose these: keep control characters out.
        return ", ".join(ascii(name)[1:-1] for name in names[:_SHOWN]) + more


def _matches(pattern: str, host: str) -> bool:
    if not pattern.startswith("*."):
        return pattern == host
    label, _, parent = host.partition(".")
    return bool(label) and "." in parent and pattern[2:] == parent
