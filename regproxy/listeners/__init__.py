"""The ways in. Each ends at the same registry resource."""
