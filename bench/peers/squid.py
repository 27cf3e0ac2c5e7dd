"""squid with ssl-bump: the other proxy that reads along."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from bench.setting import Peer, Setting
from bench.upstreams import HOST, REPOSITORY, Upstream
from bench.way import ADDRESS, Way
from tests.support.certificates import make_ca
from tests.support.process import environment, free_port, run
from tests.support.programs import program

_USER = "proxy"
_CERTIFICATES = "/usr/lib/squid/security_file_certgen"


@contextmanager
def squid(setting: Setting, upstream: Upstream) -> Iterator[Peer]:
    """Before *upstream*, with an empty cache on disk."""
    directory = setting.subdirectory("squid")
    port = free_port()
    authority = make_ca("squid CA")
    ca_file = directory / "ca.pem"
    ca_file.write_bytes(authority.certificate_pem)
    keys = directory / "ca-and-key.pem"
    keys.write_bytes(authority.certificate_pem + authority.key_pem)
    config = directory / "squid.conf"
    config.write_text(
        f"""
        http_port {ADDRESS}:{port} ssl-bump tls-cert={keys} generate-host-certificates=on
        sslcrtd_program {_CERTIFICATES} -s {directory}/certificates -M 4MB
        ssl_bump bump all
        http_access allow all
        cache_peer {ADDRESS} parent {upstream.tls_port} 0 no-query no-digest originserver \
            tls tls-cafile={upstream.keys.ca} ssldomain={HOST}
        never_direct allow all
        cache_dir ufs {directory}/cache 16384 16 256
        maximum_object_size 4 GB
        refresh_pattern . 1440 100% 525600
        visible_hostname squid.example.test
        cache_effective_user {_USER}
        access_log stdio:{directory}/access.log
        cache_log {directory}/cache.log
        coredump_dir {directory}
        pid_filename none
        pinger_enable off
        shutdown_lifetime 0 seconds
        """
    )
    make = (_CERTIFICATES, "-c", "-s", f"{directory}/certificates", "-M", "4MB")
    run(*make, env=environment()).check()
    # Started by root it becomes this user, who has to be able to write all this.
    setting.open_to_others()
    for path in (directory, *directory.rglob("*")):
        shutil.chown(path, _USER)
    command = [program("squid"), "-f", str(config), "-N"]
    run(*command, "-z", env=environment()).check()
    with setting.serving("squid", command, port) as process:
        yield Peer("squid", process, Way(port, HOST, REPOSITORY, ca_file, connect=True))
