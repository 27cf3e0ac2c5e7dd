"""The way out: HTTP client, authentication, redirects and their guards."""
