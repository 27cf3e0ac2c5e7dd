"""What keeps a machine from being configured. Each message is for the one who runs the cluster."""

from __future__ import annotations


class NodeError(Exception):
    """The machine is not, or not any more, as the settings ask for."""


class SettingsInvalid(NodeError):
    """The settings say nothing that can be done."""


class Refused(NodeError):
    """The machine has something that must not be changed, or has not what is needed."""


class Unreachable(NodeError):
    """What the machine would be pointed at does not answer from here."""


class CommandFailed(NodeError):
    """A command on the machine ended with an error, or did not end."""


class ClusterError(NodeError):
    """The API of Kubernetes did not do what it was asked for."""
