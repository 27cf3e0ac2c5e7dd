"""The servers that are measured, each a context manager that yields a running one."""
