"""Tests for :mod:`regproxy.management.access`: who may do what, over the API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import bcrypt
from twisted.internet.interfaces import IAddress
from twisted.logger import capturedLogs

from regproxy.config.model import ManagementSection
from regproxy.management.access import CHECKED_AT_A_TIME, MAX_WAITING
from regproxy.policy.visitors import MAX_BAD, WINDOW
from regproxy.store.disk import Workers
from tests.support.api import (
    BEARER,
    HOST,
    LOOPBACK,
    NEIGHBOUR,
    PASSWORD,
    STRANGER,
    TOKEN,
    USER,
    ApiCase,
    basic,
    hashed,
)
from tests.support.sites import Response
from tests.support.workers import Later

BOTH = ManagementSection(token_file=Path("token"), htpasswd_file=Path("htpasswd"))


class AccessCase(ApiCase):
    def read(self, **fields: str) -> int:
        """The status of something that is only shown."""
        return self.ask("GET", "/jobs", fields).status

    def change(
        self, fields: Mapping[str, str] | None = None, client: IAddress = LOOPBACK
    ) -> Response:
        """What asking for a change gets: 404 from who may."""
        return self.ask("DELETE", "/jobs/x", fields, client=client)


class NoLoginTests(AccessCase):
    """Without a login, the proxy's own machine may do everything."""

    def test_readers(self) -> None:
        for client, expected in ((LOOPBACK, 200), (NEIGHBOUR, 200), (STRANGER, 403)):
            self.assertEqual(self.ask("GET", "/jobs", client=client).status, expected)
        answer = self.ask("GET", "/nothing", client=STRANGER)
        self.assertEqual(answer.status, 403)
        self.assertIn("8.8.8.8 is in none of the networks", answer.json["detail"])

    def test_read_from(self) -> None:
        self.guard_with(ManagementSection(read_from=("8.8.8.0/24",)))
        self.assertEqual(self.ask("GET", "/jobs", client=STRANGER).status, 200)
        self.assertEqual(self.ask("GET", "/jobs", client=LOOPBACK).status, 403)

    def test_changes(self) -> None:
        self.assertEqual(self.change().status, 404)
        answer = self.change(client=NEIGHBOUR)
        self.assertEqual(answer.status, 403)
        self.assertIn("from the proxy's own machine only", answer.json["detail"])

    def test_forwarded(self) -> None:
        """A proxy on this machine may pass on what anybody asks, by whatever name it likes."""
        for name in ("Via", "Forwarded", "X-Forwarded-For", "X-Real-IP"):
            answer = self.change({name: "x"})
            self.assertEqual(answer.status, 403, name)
            self.assertIn("from the proxy's own machine only", answer.json["detail"])
            self.assertEqual(self.read(**{name: "x"}), 200)

    def test_rebinding(self) -> None:
        """A stranger's page whose name leads here now is, for its browser, a page of this site."""
        for host, expected in (
            (HOST, 404),
            ("localhost:8080", 404),
            ("[::1]:8080", 404),
            ("10.0.0.5", 404),
            ("evil.example.com", 403),
            ("evil.example.com:8080", 403),
            ("localhost.example.com", 403),
        ):
            answer = self.change({"Host": host, "Origin": f"http://{host}"})
            self.assertEqual(answer.status, expected, host)

    def test_no_host(self) -> None:
        """HTTP/1.0 lets it be left out, and then nothing is known."""
        stream = self.house.connect()
        stream.peerAddr = LOOPBACK
        stream.send(b"DELETE /api/v1/jobs/x HTTP/1.0\r\n\r\n")
        self.assertIn(b" 403 ", stream.take())

    def test_other_sites(self) -> None:
        """The browser of somebody at the proxy's machine acts for no page of a stranger's."""
        for fields, expected in (
            ({"Origin": f"http://{HOST}"}, 404),
            ({"Sec-Fetch-Site": "same-origin"}, 404),
            ({"Origin": "http://evil.example.com"}, 403),
            ({"Origin": "http://127.0.0.1:8081"}, 403),
            ({"Origin": "null"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site", "Origin": f"http://{HOST}"}, 403),
        ):
            self.assertEqual(self.change(fields).status, expected, fields)
            self.assertEqual(self.read(**fields), 200)

    def test_forms(self) -> None:
        """What a form of another site can send is refused before it is looked at."""
        fields = {"Origin": "http://evil.example.com", "Content-Type": "text/plain"}
        self.assertEqual(self.ask("POST", "/verify", fields, b"{}").status, 403)
        self.assertEqual(list(self.parts.jobs.all()), [])


class BytesTests(AccessCase):
    """A client may send what is no text"""

    section = BOTH

    def test_fields(self) -> None:
        for field, expected in (
            (b"Authorization: Bearer \xff", b" 401 "),
            (b"Authorization: Basic \xff", b" 401 "),
            (b"Sec-Fetch-Site: \xff", b" 403 "),
            (b"Origin: http://\xff", b" 403 "),
        ):
            stream = self.house.connect()
            stream.peerAddr = LOOPBACK
            stream.send(b"DELETE /api/v1/jobs/x HTTP/1.1\r\nHost: x\r\n" + field + b"\r\n\r\n")
            self.assertIn(expected, stream.take())


class LoginTests(AccessCase):
    """With a login, nobody may change anything without it, wherever from."""

    section = BOTH

    def test_reading(self) -> None:
        self.assertEqual(self.read(), 200)
        self.assertEqual(self.read(Authorization="Bearer wrong"), 200)

    def test_good(self) -> None:
        for fields in (
            BEARER,
            basic(),
            basic(user="anybody", password=TOKEN),
            basic(user="", password=TOKEN),
        ):
            for client in (LOOPBACK, NEIGHBOUR):
                self.assertEqual(self.change(fields, client).status, 404, fields)
        self.assertEqual(self.change({**BEARER, "Host": "proxy.example.com"}).status, 404)

    def test_strangers(self) -> None:
        """They are not let in with a login either."""
        self.assertEqual(self.change(BEARER, STRANGER).status, 403)

    def test_other_sites(self) -> None:
        """A browser sends a login along, whosever page it is."""
        fields = {**basic(), "Origin": "http://evil.example.com"}
        self.assertEqual(self.change(fields).status, 403)

    def test_bad(self) -> None:
        for fields in (
            {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": f"Bearer {PASSWORD}"},
            basic(password="wrong"),
            basic(password=PASSWORD + "x" * 100),
            basic(user="bob"),
            basic(password=""),
            basic(user=TOKEN, password=""),
            basic(password=PASSWORD + "\0"),
        ):
            self.parts.bad_logins.good("127.0.0.1")
            answer = self.change(fields)
            self.assertEqual(answer.status, 401, fields)
            self.assertEqual(answer.json["detail"], "the login is not known")

    def test_nobody(self) -> None:
        """Nobody can tell by the time it takes whether there is such a user."""
        hashes: list[bytes] = []
        check = bcrypt.checkpw

        def checked(password: bytes, hashed: bytes) -> bool:
            hashes.append(hashed)
            return check(password, hashed)

        self.patch(bcrypt, "checkpw", checked)
        for user in (USER, "nobody"):
            # Even with the password of the one whose hash it takes.
            password = "x" if user == USER else PASSWORD
            self.assertEqual(self.change(basic(user, password)).status, 401)
        self.assertEqual([each[:7] for each in hashes], [b"$2b$04$"] * 2)

    def test_none(self) -> None:
        for fields in ({}, {"Authorization": ""}, {"Authorization": "Digest x"}):
            answer = self.change(fields)
            self.assertEqual(answer.status, 401)
            self.assertEqual(answer.json["detail"], "a login is needed")

    def test_two_logins(self) -> None:
        """Of two fields none counts."""
        stream = self.house.connect()
        stream.peerAddr = LOOPBACK
        fields = f"Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}\r\n"
        stream.send(f"DELETE /api/v1/jobs/x HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n".encode())
        self.assertIn(b" 401 ", stream.take())

    def test_challenge(self) -> None:
        """Browsers ask for a name and a password; only what is set up is named."""
        for section, expected in (
            (BOTH, {b'Bearer realm="regproxy"', b'Basic realm="regproxy", charset="UTF-8"'}),
            (
                ManagementSection(htpasswd_file=Path("htpasswd")),
                {b'Basic realm="regproxy", charset="UTF-8"'},
            ),
        ):
            self.guard_with(section)
            head = self.send("DELETE", "/jobs/x").take().partition(b"\r\n\r\n")[0]
            prefix = b"WWW-Authenticate: "
            found = {line.removeprefix(prefix) for line in head.split(b"\r\n") if prefix in line}
            self.assertEqual(found, expected)

    def test_files_of_one_kind(self) -> None:
        self.guard_with(ManagementSection(token_file=Path("token")))
        self.assertEqual(self.change(basic(password=TOKEN)).status, 404)
        self.assertEqual(self.change(basic()).status, 401)
        self.guard_with(ManagementSection(htpasswd_file=Path("htpasswd")))
        self.assertEqual(self.change(basic()).status, 404)
        self.assertEqual(self.change(BEARER).status, 401)

    def test_files_change(self) -> None:
        """What is written there holds at once."""
        self.logins[Path("token")] = b"another-token-of-mine"
        self.logins[Path("htpasswd")] += f"bob:{hashed('secret')}\n".encode()
        self.assertEqual(self.change(BEARER).status, 401)
        fields = {"Authorization": "Bearer another-token-of-mine"}
        self.assertEqual(self.change(fields).status, 404)
        self.assertEqual(self.change(basic("bob", "secret")).status, 404)

    def test_files_that_are_none(self) -> None:
        """Nobody is let in, and the log says why."""
        self.logins[Path("token")] = b"x"
        for _ in range(2):
            with capturedLogs() as events:
                answer = self.change(BEARER)
            self.assertEqual(answer.status, 503)
            self.assertIn("logins cannot be checked", answer.json["detail"])
            (event,) = (each for each in events if "login" in each.get("log_format", ""))
            self.assertNotIn(TOKEN, event["reason"])
            self.logins.clear()

    def test_nothing_secret_is_logged(self) -> None:
        with capturedLogs() as events:
            for fields in (BEARER, basic(), basic(user="hunter2", password="hunter2")):
                self.change(fields)
            self.ask("DELETE", f"/jobs/x?token={TOKEN}", BEARER)
        (bad,) = (each for each in events if each["log_format"].startswith("A bad login"))
        self.assertEqual(bad["client"], "127.0.0.1")
        text = repr([{**each, "log_failure": None} for each in events]) + repr(
            self.house.log.records
        )
        for secret in (TOKEN, PASSWORD, "hunter2", basic()["Authorization"]):
            self.assertNotIn(secret, text)

    def test_rate(self) -> None:
        """Who is often wrong has to wait, even when he is right for once; others do not."""
        bad = {"Authorization": "Bearer wrong"}
        for _ in range(MAX_BAD):
            self.assertEqual(self.change(bad).status, 401)
        for fields in (bad, BEARER):
            answer = self.change(fields)
            self.assertEqual(answer.status, 429)
            self.assertEqual(answer.headers["retry-after"], f"{WINDOW:.0f}")
        self.assertEqual(self.change(BEARER, NEIGHBOUR).status, 404)
        self.assertEqual(self.read(), 200)
        self.house.clock.advance(WINDOW)
        self.assertEqual(self.change(BEARER).status, 404)

    def test_rate_outlives_a_reload(self) -> None:
        for _ in range(MAX_BAD):
            self.change({"Authorization": "Bearer wrong"})
        self.guard_with(BOTH)
        self.assertEqual(self.change(BEARER).status, 429)


class CrowdTests(AccessCase):
    """Many logins at a time"""

    section = BOTH

    def make_workers(self) -> Workers:
        self.later = Later()
        return self.later

    def test_turns(self) -> None:
        """Few are checked at a time, and few wait: bcrypt is dear."""
        streams = []
        for number in range(CHECKED_AT_A_TIME + MAX_WAITING):
            address = type(LOOPBACK)("TCP", f"10.0.{number}.1", 1)
            streams.append(self.send("DELETE", "/jobs/x", basic(), client=address))
            self.assertEqual(len(self.later), min(number + 1, CHECKED_AT_A_TIME))
        answer = self.ask("DELETE", "/jobs/x", basic(), client=NEIGHBOUR)
        self.assertEqual(answer.status, 429)
        self.later.all()
        for stream in streams:
            self.assertIn(b" 404 ", stream.take())

    def test_tries_at_a_time(self) -> None:
        """Nobody gets more tries by beginning them all before one is known to be bad."""
        streams = [self.send("DELETE", "/jobs/x", basic(password="x")) for _ in range(MAX_BAD + 1)]
        self.later.all()
        *tried, refused = [stream.take() for stream in streams]
        for answer in tried:
            self.assertIn(b" 401 ", answer)
        self.assertIn(b" 429 ", refused)

    def test_good_ones_at_a_time(self) -> None:
        """A program with a good login may do as much as it likes at a time."""
        streams = [self.send("DELETE", "/jobs/x", BEARER) for _ in range(2 * MAX_BAD)]
        self.later.all()
        for stream in streams:
            self.assertIn(b" 404 ", stream.take())

    def test_leaves_in_the_middle(self) -> None:
        """A thread cannot be stopped: whoever comes and goes has no more of them than others."""
        for _ in range(CHECKED_AT_A_TIME + 1):
            self.send("DELETE", "/jobs/x", basic(password="x")).finish()
        self.assertEqual(len(self.later), CHECKED_AT_A_TIME)
        self.later.all()

    def test_leaves_before_it_is_bad(self) -> None:
        """It was a try all the same."""
        for _ in range(MAX_BAD):
            stream = self.send("DELETE", "/jobs/x", basic(password="x"))
            stream.finish()
            self.later.all()
        self.assertIn(b" 429 ", self.send("DELETE", "/jobs/x", BEARER).take())

    def test_leaves(self) -> None:
        """Who leaves is not checked any more, and nothing is logged as failed."""
        waiting = [self.send("DELETE", "/jobs/x", basic()) for _ in range(CHECKED_AT_A_TIME + 1)]
        waiting[-1].finish()
        self.later.all()
        self.assertEqual(len(self.later), 0)
        self.assertIn(b" 404 ", waiting[0].take())


class DocumentTests(AccessCase):
    """The API's document says which login is needed."""

    def test_security(self) -> None:
        for section, expected in (
            (ManagementSection(), None),
            (ManagementSection(htpasswd_file=Path("htpasswd")), [{"basic": []}]),
            (BOTH, [{"bearer": []}, {"basic": []}]),
        ):
            self.guard_with(section)
            document = json.loads(self.ask("GET", "/openapi.json").body)
            operation = document["paths"]["/jobs/{id}"]
            self.assertEqual(operation["delete"].get("security"), expected)
            self.assertNotIn("security", operation["get"])
