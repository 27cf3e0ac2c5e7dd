"""Pulls by containerd's ``ctr``."""

from __future__ import annotations

from tests.e2e import pulls
from tests.support.clients import Containerd
from tests.support.programs import needs, needs_root


@needs_root
@needs("docker-registry", "htpasswd", "skopeo", *Containerd.programs)
class ContainerdTests(pulls.PullTests):
    """ctr fetches, containerd keeps and unpacks."""

    kind = Containerd
