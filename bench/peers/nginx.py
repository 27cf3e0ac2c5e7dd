"""nginx with TLS and proxy_cache, as docker-registry-proxy configures it.

Without its CONNECT, for which Debian's nginx has no module: clients speak TLS to the
caching layer, and save the way through a second nginx server that they would have there.
TLS 1.3 is on, which Debian's release does not have on by itself and later ones have.
The certificate is of the kind that regproxy makes (P-256), not RSA, which is slower.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.setting import Peer, Setting
from bench.upstreams import HOST, REPOSITORY, Upstream
from bench.way import ADDRESS, Way
from tests.support.process import free_port
from tests.support.programs import program


@contextmanager
def nginx(setting: Setting, upstream: Upstream) -> Iterator[Peer]:
    """Before *upstream*, with a new cache. Tags are fresh for an hour."""
    directory = setting.subdirectory("nginx")
    port = free_port()
    target = f"""
        proxy_pass {upstream.url};
        proxy_cache cache;
        proxy_cache_use_stale error timeout http_500 http_502 http_504 http_429;
    """
    config = directory / "nginx.conf"
    config.write_text(
        f"""
        daemon off; user root; worker_processes 1; pid {directory}/pid;
        error_log {directory}/error.log warn;
        events {{ worker_connections 1024; }}
        http {{
            default_type application/octet-stream;
            log_format tweaked escape=json
              '{{'
                '"access_time":"$time_local",'
                '"upstream_cache_status":"$upstream_cache_status",'
                '"method":"$request_method",'
                '"uri":"$uri",'
                '"status":"$status",'
                '"bytes_sent":"$body_bytes_sent",'
                '"upstream_response_time":"$upstream_response_time",'
                '"host":"$host",'
                '"proxy_host":"$proxy_host",'
                '"upstream":"$upstream_addr"'
              '}}';
            gzip off;
            keepalive_timeout 300s;
            keepalive_requests 1000000;
            client_body_temp_path {directory}/client_body;
            proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi;
            uwsgi_temp_path {directory}/uwsgi;
            scgi_temp_path {directory}/scgi;
            proxy_cache_path {directory}/cache levels=1:2 max_size=32g inactive=60d
                keys_zone=cache:10m use_temp_path=off;
            server {{
                listen {ADDRESS}:{port} ssl default_server;
                access_log {directory}/access.log tweaked;
                ssl_protocols TLSv1.2 TLSv1.3;
                ssl_certificate {upstream.keys.certificate};
                ssl_certificate_key {upstream.keys.key};
                chunked_transfer_encoding on;
                proxy_read_timeout 900;
                proxy_cache_lock on;
                proxy_cache_lock_timeout 880s;
                proxy_cache_valid 200 206 60d;
                proxy_force_ranges on;
                proxy_ignore_client_abort on;
                proxy_cache_revalidate on;
                proxy_hide_header Set-Cookie;
                proxy_ignore_headers X-Accel-Expires Expires Cache-Control Set-Cookie;
                proxy_set_header Authorization $http_authorization;
                proxy_ssl_server_name on;
                proxy_ssl_name {HOST};
                proxy_ssl_protocols TLSv1.2 TLSv1.3;
                proxy_ssl_verify on;
                proxy_ssl_trusted_certificate {upstream.keys.ca};
                proxy_ssl_verify_depth 2;
                location ~ ^/v2/(.*)/blobs/sha256:(.*) {{ proxy_cache_key $2; {target} }}
                location ~ ^/v2/(.*)/manifests/sha256:(.*) {{ proxy_cache_key $uri; {target} }}
                location ~ ^/v2/(.*)/manifests/ {{
                    proxy_cache_key $uri; proxy_cache_valid 1h; {target}
                }}
                location / {{ proxy_pass {upstream.url}; proxy_cache off; }}
            }}
        }}
        """
    )
    command = [program("nginx"), "-e", f"{directory}/error.log", "-c", str(config)]
    with setting.serving("nginx", command, port) as process:
        yield Peer("nginx", process, Way(port, HOST, REPOSITORY, upstream.keys.ca))
