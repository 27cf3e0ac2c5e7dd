"""Makes ``twistd regproxy`` known."""

from twisted.application.service import ServiceMaker

regproxy = ServiceMaker(
    "regproxy",
    "regproxy.tap",
    "A caching, TLS-intercepting proxy for container registries.",
    "regproxy",
)
