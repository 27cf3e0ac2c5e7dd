"""Hypothesis strategies for the names of the protocol."""

from __future__ import annotations

from hypothesis import strategies as st

from regproxy.oci.names import Digest, Host, Repository, Tag

_components = st.from_regex(
    r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True
) | st.sampled_from(["manifests", "blobs", "tags", "uploads", "referrers", "list", "v2"])

repositories = (
    st.lists(_components, min_size=1, max_size=6)
    .map("/".join)
    .filter(lambda text: len(text) <= 255)
    .map(Repository)
)
tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True).map(Tag)
digests = st.builds(Digest.of, st.binary(max_size=8), st.sampled_from(["sha256", "sha512"]))
references = tags | digests

_labels = st.from_regex(r"[a-z_]([a-z0-9_-]{0,8}[a-z0-9_])?", fullmatch=True)
hosts = st.builds(
    Host,
    st.lists(_labels, min_size=1, max_size=4).map(".".join)
    | st.ip_addresses().map(lambda address: address.compressed),
    st.just(443) | st.integers(1, 65535),
)
