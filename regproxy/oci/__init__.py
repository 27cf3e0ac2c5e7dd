"""The registry protocol as values: names, routes, headers. Pure: no reactor, no socket, no file."""
