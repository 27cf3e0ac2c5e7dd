"""Tests for :mod:`regproxy.management.setup.choices`."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.setup.choices import (
    NEVER_BY_PROXY,
    BadChoice,
    Choices,
    CloudChoices,
    unusable,
)
from regproxy.management.setup.facts import Door, Facts
from regproxy.management.setup.kinds import KINDS, Cloud, Mode
from regproxy.oci.names import Host
from regproxy.policy.no_proxy import Exempt, is_exempt

FACTS = Facts(
    proxy_port=3128,
    mirror=Door("http", 5000),
    name_server="10.0.0.5",
    registries=(Host("docker.io"),),
    plain_http=False,
)
AT = Host("proxy.example.net", 3128)


class ChoicesTestCase(SynchronousTestCase):
    """Queries for scripts."""

    def read(self, name: str = "docker", facts: Facts = FACTS, **query: str) -> Choices:
        return Choices.read(KINDS[name], query, AT, facts)

    def refused(self, name: str = "docker", facts: Facts = FACTS, **query: str) -> BadChoice:
        bad = self.assertRaises(BadChoice, self.read, name, facts, **query)
        assert isinstance(bad, BadChoice)
        return bad


class ScriptTests(ChoicesTestCase):
    """What can be chosen."""

    def test_defaults(self) -> None:
        choices = self.read()
        self.assertEqual((choices.mode, choices.proxy, choices.undo), (Mode.PROXY, AT, False))
        self.assertEqual(choices.no_proxy, NEVER_BY_PROXY)

    def test_never_by_proxy(self) -> None:
        """Clusters' networks and names, this machine, and what tells it about itself."""
        entries = [Exempt.parse(each) for each in NEVER_BY_PROXY]
        for host in (
            *("10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.53", "localhost"),
            *("fc00::1", "fd12::1", "::1", "a.b.svc", "a.b.svc.cluster.local"),
            *("169.254.169.254", "metadata.google.internal"),
        ):
            self.assertTrue(is_exempt(Host.parse(host), entries), host)
        for host in "registry-1.docker.io", "172.32.0.1", "example.internal", "11.0.0.1":
            self.assertFalse(is_exempt(Host.parse(host), entries), host)

    def test_modes(self) -> None:
        """Those of the runtime."""
        self.assertIs(self.read("containerd", mode="hosts").mode, Mode.HOSTS)
        self.assertIn("expected proxy or dns, found 'hosts'", self.refused(mode="hosts").message)
        self.assertEqual(self.refused("podman", mode="").status, 400)

    def test_needs_a_listener(self) -> None:
        """Without it the answer says what to turn on, and that it is not the query's fault."""
        bare = evolve(FACTS, mirror=None, name_server=None)
        bad = self.refused("containerd", bare, mode="hosts")
        self.assertEqual(bad.status, 409)
        self.assertIn("set listen in [mirror]", bad.message)
        self.assertIn("set listen in [dns]", self.refused("docker", bare, mode="dns").message)
        self.assertIsNone(unusable(Mode.PROXY, bare))
        nobody = evolve(FACTS, registries=())
        self.assertIn("[interception]", self.refused("docker", nobody, mode="dns").message)

    def test_undo(self) -> None:
        self.assertTrue(self.read(undo="1").undo)
        self.assertFalse(self.read(undo="0").undo)
        for text in "yes", "", "01":
            self.assertIn("expected 0 or 1", self.refused(undo=text).message)

    def test_no_proxy(self) -> None:
        """Hosts, suffixes, addresses, networks; each once."""
        text = ".Example.net, 192.0.2.0/24,registry.example.org:5000,[2001:db8::1],*.x.net"
        text += ",.example.net"
        self.assertEqual(
            self.read(no_proxy=text).no_proxy[len(NEVER_BY_PROXY) :],
            (
                *(".example.net", "192.0.2.0/24", "registry.example.org:5000"),
                *("[2001:db8::1]", "*.x.net"),
            ),
        )
        self.assertEqual(self.read(no_proxy="").no_proxy, NEVER_BY_PROXY)
        for bad in (
            *("*", "a b", "a,,b", "a;b", "$(id)", "`id`", "a'b", 'a"b', "10.0.0.1/8", "a\nb"),
            *("a\\b", "ä.example", "\u212aelvin", "a|b", "%h", "x" * 300),
        ):
            self.assertIn("no_proxy: ", self.refused(no_proxy=bad).message, bad)
        many = ",".join(f"{number}.example.net" for number in range(101))
        self.assertIn("at most 100", self.refused(no_proxy=many).message)

    def test_proxy(self) -> None:
        """Another name, for who reads this through a tunnel."""
        self.assertEqual(self.read(proxy="10.0.0.5").proxy, Host("10.0.0.5", 3128))
        self.assertEqual(self.read(proxy="[fd00::5]:80").proxy, Host("fd00::5", 80))
        for bad in "", "a b", "a'", "http://a", "a:0", "a@b":
            self.assertIn("proxy: ", self.refused(proxy=bad).message)

    def test_unknown(self) -> None:
        """A slip of the pen is told of."""
        self.assertIn("'undoo' is no parameter", self.refused(undoo="1").message)

    @given(st.dictionaries(st.sampled_from(["mode", "no_proxy", "proxy", "undo"]), st.text()))
    def test_any_query(self, query: dict[str, str]) -> None:
        """It is read into characters of names and addresses, or refused."""
        try:
            choices = Choices.read(KINDS["containerd"], query, AT, FACTS)
        except BadChoice:
            return
        self.assertRegex(choices.proxy.authority, r"\A[a-z0-9.:_\[\]-]+\Z")
        self.assertRegex(",".join(choices.no_proxy), r"\A[a-z0-9.:/_*,\[\]-]+\Z")


class CloudTests(ChoicesTestCase):
    """Queries for user-data."""

    def test_defaults(self) -> None:
        choices = CloudChoices.read({}, AT, FACTS)
        self.assertIs(choices.cloud, Cloud.PLAIN)
        self.assertIs(choices.script.kind, KINDS["docker"])
        self.assertEqual(choices.script.no_proxy, NEVER_BY_PROXY)

    def test_all(self) -> None:
        """Each cloud, each runtime, both ways; what belongs to the cloud is not for the proxy."""
        for cloud in Cloud:
            for runtime in "docker", "containerd":
                for mode in "proxy", "dns":
                    query = {"cloud": cloud.value, "runtime": runtime, "mode": mode}
                    choices = CloudChoices.read(query, AT, FACTS)
                    self.assertEqual(choices.cloud, cloud)
                    self.assertEqual(choices.script.kind.name, runtime)
                    self.assertEqual(choices.script.mode.value, mode)
        aliyun = CloudChoices.read({"cloud": "aliyun", "no_proxy": "x.example"}, AT, FACTS)
        self.assertLessEqual(
            {"100.100.100.200", ".aliyuncs.com", "x.example"}, set(aliyun.script.no_proxy)
        )

    def test_refused(self) -> None:
        for query in (
            {"cloud": "azure"},
            {"runtime": "podman"},
            {"mode": "hosts"},
            {"undo": "1"},
            {"cloud": ""},
        ):
            self.assertRaises(BadChoice, CloudChoices.read, query, AT, FACTS)
