"""Tests for regproxy.tls.errors."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from regproxy.tls.errors import HandshakeRefused, VerificationFailed


class HandshakeRefusedTests(SynchronousTestCase):
    def test_is_an_ssl_error_with_words(self) -> None:
        error = VerificationFailed("because")
        self.assertIsInstance(error, HandshakeRefused)
        self.assertIsInstance(error, SSL.Error)
        self.assertEqual(str(error), "because")
        self.assertEqual(error.reason, "because")

    def test_has_the_form_of_an_error_queue(self) -> None:
        [(_, _, reason)] = HandshakeRefused("because").args[0]
        self.assertEqual(reason, "because")
