"""The heart: what a registry request means, joined from policy, store and upstream."""
