"""What is put into files, and taken out again."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.node.changes import (
    Change,
    Kind,
    block,
    block_of,
    docker_mirror,
    name_servers,
    nameservers,
    unless_there,
    whole,
    without,
)
from regproxy.node.errors import Refused

URL = "http://10.0.0.5:5000"
# Lines as configuration files have them, those of our own marks among them.
lines = st.lists(
    st.sampled_from(["", "a = 1", "[table]", "# comment", "nameserver 10.0.0.2", "# was: x"])
)
json_lists = st.lists(st.sampled_from([URL + "0", "https://m.example.net", "x"]), unique=True)


def out(change: Change, content: bytes) -> bytes:
    return without(change.kind, change.path, content, change.values)


class FileTests(SynchronousTestCase):
    def test_whole(self) -> None:
        change = whole("/etc/ours", "text\n", ["trust"])
        self.assertEqual(change.make(None), b"text\n")
        self.assertEqual(change.make(b"theirs"), b"text\n")
        self.assertEqual((change.kind, change.then), (Kind.FILE, ("trust",)))

    def test_unless_there(self) -> None:
        change = unless_there("/etc/ours", "text\n")
        self.assertEqual(change.make(None), b"text\n")
        self.assertEqual(change.make(b"theirs"), b"theirs")


class BlockTests(SynchronousTestCase):
    change = block("/etc/file", ["one", "two"])

    @given(lines, lines)
    def test_out_again(self, before: list[str], after: list[str]) -> None:
        """Whatever others write before and behind it, the block goes and nothing else."""
        text = "".join(f"{line}\n" for line in before)
        made = self.change.make(text.encode())
        assert made is not None
        self.assertTrue(made.decode().startswith(text))
        self.assertEqual(self.change.make(made), made)
        rest = "".join(f"{line}\n" for line in after)
        self.assertEqual(out(self.change, made + rest.encode()), (text + rest).encode())

    def test_last_line_without_end(self) -> None:
        made = self.change.make(b"x")
        self.assertEqual(made, b"x\n" + block_of(["one", "two"]).encode())

    def test_line_that_it_stands_in_for(self) -> None:
        text = "a\n" + block_of(["b = 2"], was='  b = ""') + "c\n"
        self.assertEqual(without(Kind.BLOCK, "/etc/file", text.encode(), ()), b'a\n  b = ""\nc\n')

    def test_half_a_block(self) -> None:
        """Without its end it is not ours to guess."""
        text = block_of(["one"]).rpartition("# end")[0].encode()
        self.assertEqual(without(Kind.BLOCK, "/etc/file", text, ()), text)


class NameServerTests(SynchronousTestCase):
    change = name_servers("/etc/resolv.conf", ["10.0.0.5", "fd00::5"])

    @given(lines)
    def test_first(self, before: list[str]) -> None:
        text = "".join(f"{line}\n" for line in before)
        made = self.change.make(text.encode())
        assert made is not None
        self.assertEqual(nameservers(made.decode())[:2], ["10.0.0.5", "fd00::5"])
        self.assertEqual(self.change.make(made), made)
        self.assertEqual(out(self.change, made), text.encode())

    def test_written_by_another(self) -> None:
        """dhclient, which was told, writes them in its own way: that will do, and goes as well."""
        theirs = b"search x\nnameserver 10.0.0.5\nnameserver fd00::5\nnameserver 10.0.0.2\n"
        self.assertEqual(self.change.make(theirs), theirs)
        self.assertEqual(out(self.change, theirs), b"search x\nnameserver 10.0.0.2\n")

    def test_similar_address_stays(self) -> None:
        theirs = b"nameserver 10.0.0.55\nnameserver 10x0x0x5\n"
        self.assertEqual(out(self.change, theirs), theirs)


class DockerTests(SynchronousTestCase):
    change = docker_mirror("/etc/docker/daemon.json", URL)

    @given(st.none() | json_lists, st.dictionaries(st.sampled_from("abc"), st.integers()))
    def test_out_again(self, mirrors: list[str] | None, rest: dict[str, int]) -> None:
        table = rest | ({} if mirrors is None else {"registry-mirrors": mirrors})
        made = self.change.make(json.dumps(table).encode())
        assert made is not None
        self.assertEqual(json.loads(made), rest | {"registry-mirrors": [URL, *(mirrors or [])]})
        self.assertEqual(self.change.make(made), made)
        left = json.loads(out(self.change, made))
        # An empty list says the same as none.
        self.assertEqual(left, rest | ({"registry-mirrors": mirrors} if mirrors else {}))

    def test_no_file(self) -> None:
        made = self.change.make(None)
        assert made is not None
        self.assertEqual(json.loads(made), {"registry-mirrors": [URL]})

    def test_there_already(self) -> None:
        theirs = b'{"registry-mirrors":["x",  "http://10.0.0.5:5000"]}'
        self.assertEqual(self.change.make(theirs), theirs)

    def test_gone_already(self) -> None:
        theirs = b'{"registry-mirrors":  ["x"]}'
        self.assertEqual(out(self.change, theirs), theirs)

    def test_refused(self) -> None:
        for content in (b"{", b"[]", b'{"registry-mirrors": "x"}'):
            self.assertRaises(Refused, self.change.make, content)
