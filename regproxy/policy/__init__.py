"""Decisions as values with a named reason. Pure: no reactor, no socket, no file."""
