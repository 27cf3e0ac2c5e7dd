"""What is in ``deploy/kubernetes`` and ``deploy/helm``: ``make e2e-kubernetes``."""
