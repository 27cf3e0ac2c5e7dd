"""The API of a running proxy: what its document says, with the logins of real programs."""

from __future__ import annotations

import http.client
import json
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.support.openapi import Document, Request
from tests.support.process import environment, free_port, run
from tests.support.programs import needs, program
from tests.support.proxy import ADDRESS, Proxy
from tests.support.stage import EndToEndTestCase

TOKEN = "correct-horse-battery-staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PASSWORD = "tr0ub4dor&3"


@needs("htpasswd", "curl")
class ApiTests(EndToEndTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = self.new_directory()
        (directory / "token").write_text(f"{TOKEN}\n")
        users = directory / "users"
        made = run(program("htpasswd"), "-cbB", str(users), "ann", PASSWORD, env=environment())
        made.check()
        self.port = free_port()
        self.proxy = Proxy(
            directory,
            {
                # What is to be fetched, of whatever name, is fetched nowhere.
                "interception": {"hosts": []},
                "management": {
                    "listen": [f"tcp:{self.port}:interface={ADDRESS}"],
                    "token_file": "token",
                    "htpasswd_file": "users",
                },
            },
        )
        self.addCleanup(self.proxy.process.stop)
        self.watch(self.proxy.process)

    def ask(
        self, method: str, target: str, fields: Mapping[str, str] = {}, body: bytes = b""
    ) -> tuple[int, str, bytes]:
        """Status, media type and body of an answer; of events, their beginning."""
        connection = http.client.HTTPConnection(ADDRESS, self.port, timeout=30)
        connection.request(method, f"/api/v1{target}", body or None, dict(fields))
        answer = connection.getresponse()
        media_type = answer.headers.get_content_type()
        read = answer.read1(100) if media_type == "text/event-stream" else answer.read()
        connection.close()
        return answer.status, media_type, read

    def json(self, method: str, target: str, fields: Mapping[str, str] = {}) -> Any:
        return json.loads(self.ask(method, target, fields)[2])

    def test_document(self) -> None:
        """It is valid, and each operation does as it says, with and without a login."""
        served = self.json("GET", "/openapi.json")
        OpenAPIV31SpecValidator(served).validate()
        document = Document(served)
        self.assertGreater(len(list(document.operations)), 10)
        for name, requests in document.one_of_each():
            self.drive(document, name, requests)
        log = self.proxy.process.read_log()
        self.assertNotIn("Traceback", log)
        self.assertNotIn(TOKEN, log)

    def drive(self, document: Document, name: str, requests: st.SearchStrategy[Request]) -> None:
        changes = any(
            each["operationId"] == name and "security" in each for _, _, each in document.operations
        )

        @settings(max_examples=5, deadline=None, database=None, derandomize=True)
        @given(requests)
        def each(request: Request) -> None:
            for login in (BEARER, {}):
                fields = {**request.fields, **login}
                status, media_type, body = self.ask(
                    request.method, request.target, fields, request.body
                )
                document.check(request, status, media_type, body)
                refused = changes and not login
                self.assertEqual(status == 401, refused, request)
                if not refused:
                    self.assertNotIn(status, (400, 403, 415), request)

        each()

    def curl(self, *arguments: str) -> str:
        url = f"http://{ADDRESS}:{self.port}/api/v1/gc"
        given = ("--silent", "--request", "POST", "--write-out", "\n%{http_code}", url)
        return run(program("curl"), *given, *arguments, env=environment()).check().splitlines()[-1]

    def test_logins(self) -> None:
        """Of curl, as of a browser that asks its reader for a password."""
        self.assertEqual(self.curl(), "401")
        self.assertEqual(self.curl("--user", f"ann:{PASSWORD}"), "202")
        self.assertEqual(self.curl("--user", f"whoever:{TOKEN}"), "202")
        self.assertEqual(self.curl("--header", f"Authorization: Bearer {TOKEN}"), "202")
        self.assertEqual(self.curl("--user", "ann:wrong"), "401")
        elsewhere = ("--user", f"ann:{PASSWORD}", "--header", "Origin: http://evil.example.test")
        self.assertEqual(self.curl(*elsewhere), "403")
        log = self.proxy.process.read_log()
        for secret in (PASSWORD, TOKEN, b64encode(f"ann:{PASSWORD}".encode()).decode()):
            self.assertNotIn(secret, log)

    def test_events(self) -> None:
        """A client that reads is told of requests as they come."""
        curl = subprocess.Popen(
            [
                program("curl"),
                "--silent",
                "--no-buffer",
                f"http://{ADDRESS}:{self.port}/api/v1/events",
            ],
            stdout=subprocess.PIPE,
            env=environment(),
        )
        self.addCleanup(curl.wait)
        self.addCleanup(curl.kill)
        assert curl.stdout is not None
        self.addCleanup(curl.stdout.close)
        self.assertEqual(curl.stdout.readline(), b"retry: 2000\n")
        self.proxy.get("/nothing-like-this")
        told = b""
        while b"/nothing-like-this" not in told:
            line = curl.stdout.readline()
            self.assertNotEqual(line, b"", "the stream has ended")
            told += line
        self.assertIn(b"event: request\ndata: ", told)

    def test_reload(self) -> None:
        """Who asks for it is told what is wrong with the file."""
        self.assertEqual(self.json("POST", "/reload", BEARER), {"restart_needed": False})
        text = self.proxy.config.read_text()
        self.proxy.config.write_text(f"{text}[cache]\nmax_size = 'x'\n")
        problem = self.json("POST", "/reload", BEARER)
        self.assertEqual(problem["status"], 422)
        self.assertTrue(problem["messages"][0].startswith("cache.max_size: "))
