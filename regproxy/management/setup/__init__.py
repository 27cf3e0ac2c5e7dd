"""Scripts that send the pulls of a machine through this proxy, and user-data that runs them."""
