"""The restricted profile of the Pod Security Standards, as a check of pods.

https://kubernetes.io/docs/concepts/security/pod-security-standards/, the profile "baseline" with
what "restricted" adds, for Linux.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

_VOLUMES: Final = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SECCOMP: Final = {"RuntimeDefault", "Localhost"}
_SYSCTLS: Final = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}


def violations(spec: dict[str, Any]) -> set[str]:
    """The controls that a pod's *spec* does not meet, by the field."""
    return set(_violations(spec))


def _violations(spec: dict[str, Any]) -> Iterator[str]:
    for field in "hostNetwork", "hostPID", "hostIPC":
        if spec.get(field):
            yield field
    for volume in spec.get("volumes", []):
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield f"volumes.{kind}"
    pod = spec.get("securityContext", {})
    for sysctl in pod.get("sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield "sysctls"
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container.get("securityContext", {})
        both = pod | own
        if own.get("privileged"):
            yield "privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield "allowPrivilegeEscalation"
        if both.get("runAsNonRoot") is not True:
            yield "runAsNonRoot"
        if both.get("runAsUser") == 0:
            yield "runAsUser"
        if both.get("seccompProfile", {}).get("type") not in _SECCOMP:
            yield "seccompProfile"
        capabilities = own.get("capabilities", {})
        if capabilities.get("drop") != ["ALL"]:
            yield "capabilities.drop"
        if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield "capabilities.add"
        if own.get("procMount", "Default") != "Default":
            yield "procMount"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield "hostPort"
