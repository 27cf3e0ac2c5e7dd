"""Tests of regproxy.cli.commands."""
