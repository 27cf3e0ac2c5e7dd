"""Tests for :mod:`regproxy.management.setup.resource`."""

from __future__ import annotations

import re
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from regproxy.management.setup.choices import Choices
from regproxy.management.setup.kinds import KINDS
from regproxy.management.setup.scripts import script
from regproxy.oci.names import Host
from tests.management.setup.asking import AUTHORITY, BARE, FACTS, SetupCase


class ScriptTests(SetupCase):
    """What goes into a shell."""

    def expected(self, name: str, at: Host, **query: str) -> str:
        return script(Choices.read(KINDS[name], query, at, FACTS), FACTS, AUTHORITY)

    def test_scripts(self) -> None:
        """Each is there, as plain text that nobody stores."""
        for name, kind in KINDS.items():
            for mode in kind.modes:
                answer = self.ask(f"/setup/{name}?mode={mode}&undo=1")
                self.assertEqual(answer.status, 200)
                at = Host("proxy.example.net", 3128)
                self.assertEqual(answer.body.decode(), self.expected(name, at, mode=mode, undo="1"))
                self.assertEqual(answer.headers["content-type"], "text/plain; charset=utf-8")
                self.assertEqual(answer.headers["cache-control"], "no-store")
                self.assertEqual(answer.headers["x-content-type-options"], "nosniff")

    def test_where_the_proxy_is(self) -> None:
        """By the client's name for it: at the proxy port with its port, else with the proxy's."""
        for host, at_proxy_port, expected in (
            (b"proxy.example.net:3128", True, Host("proxy.example.net", 3128)),
            (b"balancer.example.net:13128", True, Host("balancer.example.net", 13128)),
            (b"balancer.example.net", True, Host("balancer.example.net", 80)),
            (b"[fd00::5]:8080", False, Host("fd00::5", 3128)),
            (b"10.0.0.5", False, Host("10.0.0.5", 3128)),
        ):
            answer = self.ask("/setup/docker", host=host, at_proxy_port=at_proxy_port)
            self.assertEqual(answer.body.decode(), self.expected("docker", expected))

    def test_user_data(self) -> None:
        answer = self.ask("/setup/cloud-init?cloud=aliyun&runtime=containerd&mode=dns")
        self.assertEqual(answer.status, 200)
        self.assertTrue(answer.body.startswith(b"#cloud-config\n"))
        self.assertIn(b"aliyun ecs RunInstances", answer.body)

    def test_errors(self) -> None:
        """They are scripts that fail, in case that a shell waits for them."""
        for path, status, said in (
            ("/setup/rkt", 404, "there are docker, containerd"),
            ("/setup?runtime=rkt", 400, "runtime: expected one of"),
            ("/setup/docker/more", 404, "there is no such script"),
            ("/setup/docker?mode=hosts", 400, "expected proxy or dns"),
            ("/setup/docker?no_proxy=%27;id;%27", 400, "no_proxy"),
            ("/setup/docker?undo=1&undo=0", 400, "'undo' is there 2 times"),
            ("/setup/docker?%FF=1", 400, "ASCII"),
        ):
            self.assert_says(self.ask(path), status, said)
        bare = self.ask("/setup/containerd?mode=hosts", facts=BARE)
        self.assert_says(bare, 409, "needs a mirror, and this proxy has none")
        self.assert_says(self.ask("/setup/docker", host=None), 400, "Host")
        posted = self.ask("/setup/docker", method="POST")
        self.assert_says(posted, 405, "expected GET or HEAD")
        self.assertEqual(posted.headers["allow"], "get, head")

    def test_head(self) -> None:
        answer = self.ask("/setup/docker", method="HEAD")
        self.assertEqual((answer.status, answer.body), (200, b""))

    @given(
        st.sampled_from([*KINDS, "cloud-init", "none"]),
        st.lists(
            st.tuples(st.sampled_from(["no_proxy", "proxy", "mode", "x"]), st.text()), max_size=3
        ),
        st.sampled_from([b"proxy.example.net", b"[fd00::5]:80"])
        | st.binary().filter(lambda each: not set(each) & set(b"\r\n\0")),
    )
    def test_any_request(self, name: str, query: list[tuple[str, str]], host: bytes) -> None:
        """Between single quotes there may be anything; what is outside of them is known."""
        encoded = "&".join(f"{key}={quote(text, errors='replace')}" for key, text in query)
        answer = self.ask(f"/setup/{name}?{encoded}", host=host)
        if answer.headers["content-type"] == "application/json":
            # What the site refuses: no host, or none that it may be.
            self.assertEqual(answer.status, 400)
        elif answer.status == 200:
            modes = "&".join(f"mode={text}" for key, text in query if key == "mode")
            plain = self.ask(f"/setup/{name}?{modes}")
            self.assertEqual(_outside(answer.body.decode()), _outside(plain.body.decode()))
        else:
            pattern = r"#!/bin/sh\nprintf '%s\\n' '([ -&(-~]|'\\'')*' >&2\nexit 1\n"
            self.assertRegex(answer.body.decode(), rf"\A{pattern}\Z")


def _outside(text: str) -> str:
    return re.sub(r"(?m)^( *[a-z_]+=)'[^'\n]*'$", r"\1", text)
