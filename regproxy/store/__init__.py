"""Verified content on disk, its index, and the transfers in flight."""
