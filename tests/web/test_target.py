from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.errors import BadRequest, RegistryError
from regproxy.oci.names import Host
from regproxy.web.target import TargetForm, parse_target


def parse(target: bytes, method: bytes = b"GET", secure: bool = False) -> TargetForm:
    return parse_target(method, target, secure=secure)


class ParseTargetTests(SynchronousTestCase):
    def test_origin_form(self) -> None:
        self.assertEqual(parse(b"/v2/?n=1"), TargetForm(b"/v2/?n=1", "http"))
        self.assertEqual(parse(b"/v2/", secure=True), TargetForm(b"/v2/", "https"))

    def test_path_is_without_the_query(self) -> None:
        self.assertEqual(parse(b"/a/b?token=secret").path, "/a/b")

    def test_asterisk_form(self) -> None:
        self.assertEqual(parse(b"*", b"OPTIONS").origin_form, b"*")
        self.assertRaises(BadRequest, parse, b"*")

    def test_absolute_form(self) -> None:
        for target, origin, scheme, host in (
            (b"http://r.test/v2/", b"/v2/", "http", Host("r.test", 80)),
            (b"HTTPS://R.test/v2/", b"/v2/", "https", Host("r.test")),
            (b"http://r.test:5000", b"/", "http", Host("r.test", 5000)),
            (b"http://[::1]:5000?q", b"/?q", "http", Host("::1", 5000)),
        ):
            self.assertEqual(parse(target), TargetForm(origin, scheme, host), target)

    def test_default_port(self) -> None:
        self.assertEqual(parse(b"/").default_port, 80)
        self.assertEqual(parse(b"/", secure=True).default_port, 443)
        self.assertEqual(parse(b"https://r.test/").default_port, 443)

    def test_refused(self) -> None:
        for target in (
            b"v2/",
            b"ftp://r.test/",
            b"http:/r.test",
            b"http://",
            b"http://r.test:0/",
            b"http://r test/",
            b"r.test:443",
            b"/v2/\xc3\xa9",
            b"/v2/\x7f",
            b"http://r.test/a\tb",
            b"http://r\xc3\xa9.test/",
        ):
            self.assertRaises(BadRequest, parse, target)

    def test_connect(self) -> None:
        error = self.assertRaises(BadRequest, parse, b"r.test:443", b"CONNECT")
        self.assertIn("first request", str(error))

    def test_passwords_are_refused_and_not_repeated(self) -> None:
        for target in (b"http://u:hunter2@r.test/", b"ftp://u:hunter2@r.test/", b"hunter2?hunter2"):
            error = self.assertRaises(BadRequest, parse, target)
            self.assertNotIn("hunter2", str(error))

    @given(st.binary(), st.sampled_from([b"GET", b"OPTIONS", b"CONNECT"]), st.booleans())
    def test_anything(self, target: bytes, method: bytes, secure: bool) -> None:
        """A target is understood or refused in words; what is understood can be sent on."""
        try:
            form = parse(target, method, secure)
        except RegistryError as error:
            self.assertEqual(error.status, 400)
        else:
            self.assertTrue(form.origin_form.startswith(b"/") or form.origin_form == b"*")
            self.assertTrue(target.endswith(form.origin_form.removeprefix(b"/")))
            self.assertNotIn("?", form.path)

    @given(st.text("abc/.?=&%20:@", max_size=20), st.booleans())
    def test_absolute_form_of_a_path_is_the_same_path(self, rest: str, secure: bool) -> None:
        origin = b"/" + rest.encode()
        scheme = "https" if secure else "http"
        absolute = parse(scheme.encode() + b"://r.test" + origin)
        self.assertEqual(absolute.origin_form, parse(origin, secure=secure).origin_form)
        self.assertEqual(absolute.scheme, scheme)
