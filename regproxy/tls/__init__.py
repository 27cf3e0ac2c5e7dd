"""The certificate authority, its leaves, and the verifying client side."""
