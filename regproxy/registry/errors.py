"""Which failure of the upstream becomes which answer: the one table."""

from __future__ import annotations

from math import ceil
from typing import Final

from regproxy.oci.errors import (
    BadGateway,
    Denied,
    GatewayTimeout,
    RegistryError,
    TooManyRequests,
    Unavailable,
)
from regproxy.upstream import errors as upstream

# The most special class first. The tokens are those of RFC 9209 section 2.3.
_TABLE: Final[tuple[tuple[type[upstream.UpstreamError], type[RegistryError], str], ...]] = (
    (upstream.AddressRefused, Denied, "destination_ip_prohibited"),
    (upstream.UpstreamTimeout, GatewayTimeout, "connection_timeout"),
    (upstream.UpstreamTLSFailed, BadGateway, "tls_certificate_error"),
    (upstream.ParentProxyRefused, BadGateway, "proxy_configuration_error"),
    (upstream.NameUnresolved, BadGateway, "dns_error"),
    (upstream.UpstreamUnreachable, BadGateway, "destination_unavailable"),
    (upstream.RateLimited, TooManyRequests, "destination_unavailable"),
    (upstream.UpstreamLoginFailed, BadGateway, "proxy_configuration_error"),
    (upstream.ResponseHeadTooLarge, BadGateway, "http_response_header_section_size"),
    (upstream.RedirectRefused, BadGateway, "http_response_incomplete"),
    (upstream.BodyTooLarge, BadGateway, "http_response_body_size"),
    (upstream.BodyIncomplete, BadGateway, "http_response_incomplete"),
    (upstream.UpstreamBroken, BadGateway, "connection_terminated"),
)


def answer_to(error: upstream.UpstreamError) -> RegistryError:
    """The answer that a client gets for *error*."""
    for cause, answer, token in _TABLE:
        if isinstance(error, cause):
            result = answer(str(error))
            result.proxy_status = token
            if isinstance(error, upstream.RateLimited):
                result.headers["Retry-After"] = str(ceil(error.retry_after))
            return result
    return Unavailable(str(error))
