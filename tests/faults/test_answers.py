"""Answers of an upstream that no registry should give."""

from __future__ import annotations

import gzip
import random
from functools import partial

from tests.support.faults import SECURE_HOST, Blob, FaultTestCase, KiB, MiB
from tests.support.turns import Framing, Script, Turn

METADATA = "http://169.254.169.254/latest/meta-data/"
#: Bytes of memory that one bad answer may cost the proxy, whatever its size.
GROWTH = 24 * MiB


class RedirectTests(FaultTestCase):
    """Redirects that lead nowhere good. 302 is what registries use for blobs."""

    def check_refused(self, location: str, status: int, token: str, host: str = "") -> None:
        """A blob that is redirected to *location* is not to be had."""
        blob = self.blob(KiB, Turn(status=302, headers={"Location": location}), host=host)
        self.assert_error(self.fetch(blob), status, token)
        self.assert_not_stored(blob)
        self.assert_serves()

    def test_metadata(self) -> None:
        """To the metadata service of a cloud: not dialled, though private addresses are."""
        self.check_refused(METADATA, 403, "destination_ip_prohibited")

    def test_circle(self) -> None:
        """Of two."""
        one = f"http://127.0.0.1:{self.upstream.port}/{self.host}/one"
        self.upstream.script(
            self.host, "/one", Script((Turn(status=302, headers={"Location": f"{one}/two"}),))
        )
        self.upstream.script(
            self.host, "/one/two", Script((Turn(status=302, headers={"Location": one}),))
        )
        self.check_refused(one, 502, "http_response_incomplete")
        self.assertEqual(len(self.upstream.log(self.host, "/one")), 1)

    def test_to_itself(self) -> None:
        """Of one."""
        path = f"/v2/app/blobs/sha256:{random.randbytes(32).hex()}"
        turn = Turn(status=302, headers={"Location": f"/{self.host}{path}"})
        self.upstream.script(self.host, path, Script((turn,)))
        outcome = self.client.get(self.host, path).finish()
        self.assert_error(outcome, 502, "http_response_incomplete")

    def test_endless(self) -> None:
        """Each to a new place."""
        for number in range(30):
            turn = Turn(status=302, headers={"Location": f"/{self.host}/{number + 1}"})
            self.upstream.script(self.host, f"/{number}", Script((turn,)))
        self.check_refused(f"/{self.host}/0", 502, "http_response_incomplete")
        self.assertLess(len(self.upstream.log(self.host)), 15)

    def test_to_plain_http(self) -> None:
        """From TLS to none."""
        target = f"http://127.0.0.1:{self.upstream.port}/{self.host}/plain"
        self.check_refused(target, 502, "http_response_incomplete", SECURE_HOST)
        self.assertEqual(self.upstream.log(self.host, "/plain"), [])

    def test_without_location(self) -> None:
        """To nowhere."""
        blob = self.blob(KiB, Turn(status=302))
        self.assert_error(self.fetch(blob), 502, "http_response_incomplete")

    def test_followed(self) -> None:
        """One that is as it should be: the content is stored as the registry's."""
        blob = self.blob(KiB)
        other = self.blob(KiB)
        self.upstream.script(
            self.host, "/storage", Script((Turn(content=self.upstream.put(blob.content)),))
        )
        turn = Turn(status=307, headers={"Location": f"/{self.host}/storage"})
        self.upstream.script(self.host, blob.path, Script((turn,)))
        for _ in range(2):
            self.assert_whole(self.fetch(blob), blob)
        self.assertEqual(len(self.upstream.log(self.host, "/storage")), 1)
        self.assert_whole(self.fetch(other), other)


class HeadTests(FaultTestCase):
    """Heads of answers that do not end."""

    def check_bounded(self, turn: Turn) -> None:
        """It is an error, at a bounded price."""
        self.assert_serves()
        before = self.proxy.peak()
        self.proxy.reset_peak()
        blob = self.blob(KiB, turn)
        self.assert_error(self.fetch(blob), 502, "http_response_header_section_size")
        self.assertLess(self.proxy.peak() - before, GROWTH)
        self.assert_not_stored(blob)
        self.assert_serves()

    def test_sixty_megabytes(self) -> None:
        """Of header fields."""
        self.check_bounded(Turn(padding=60 * MiB))

    def test_interim(self) -> None:
        """Interim responses and never a final one."""
        self.check_bounded(Turn(interim=-1))

    def test_few_interim(self) -> None:
        """Some are nothing to complain of (RFC 9110 section 15.2)."""
        blob = self.blob(KiB, Turn(interim=3))
        self.assert_whole(self.fetch(blob), blob)


class ContentTests(FaultTestCase):
    """Bodies and statuses."""

    def test_gzip(self) -> None:
        """A coding that was not asked for: its bytes are not the content, and not stored."""
        blob = self.blob(KiB)
        packed = self.upstream.put(gzip.compress(blob.content))
        turn = Turn(content=packed, headers={"Content-Encoding": "gzip"})
        self.upstream.script(self.host, blob.path, Script((turn, Turn(content=blob.digest[7:]))))
        self.assert_cut(self.fetch(blob))
        self.assert_not_stored(blob)
        self.assert_whole(self.fetch(blob), blob)

    def succeeds(self, blob: Blob) -> bool:
        """Whether *blob* can be had now."""
        return self.fetch(blob).status == 200

    def test_statuses(self) -> None:
        """Errors are passed on with what they say about later, and not stored."""
        for status in (401, 403, 404, 429, 500, 503):
            with self.subTest(status=status):
                host = self.stage.new_host()
                headers = {"Retry-After": "1"} if status in (429, 503) else {}
                blob = self.blob(KiB, Turn(status=status, headers=headers), Turn(), host=host)
                outcome = self.fetch(blob)
                self.assertEqual(outcome.status, status)
                self.assertEqual(outcome.headers["Retry-After"], headers.get("Retry-After"))
                self.assert_not_stored(blob)
                self.wait_for(partial(self.succeeds, blob))
                self.assert_whole(self.fetch(blob), blob)

    def test_wrong_manifest(self) -> None:
        """A manifest by tag that is not what its header says."""
        tag = self.tag("right")
        wrong = self.upstream.put(self.tag("wrong").content)
        turn = Turn(content=wrong, headers={"Docker-Content-Digest": tag.digest})
        self.upstream.script(self.host, tag.path, Script((turn,)))
        self.assert_cut(self.fetch(tag))
        self.assert_not_stored(tag)

    def test_endless_manifest(self) -> None:
        """A manifest that does not end is not taken into memory."""
        content = self.upstream.put(bytes(48 * MiB))
        turn = Turn(content=content, framing=Framing.CHUNKED)
        self.assert_serves()
        before = self.proxy.peak()
        self.proxy.reset_peak()
        self.upstream.script(self.host, "/v2/app/manifests/latest", Script((turn,)))
        self.client.get(self.host, "/v2/app/manifests/latest").finish()
        self.assertLess(self.proxy.peak() - before, GROWTH)
        self.assert_serves()
