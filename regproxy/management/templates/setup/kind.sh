#!/bin/sh
#
# regproxy: {{ purpose }}
#
# Run it where the nodes run as containers, as often as you like. In each node it runs the script
# for containerd; with the word "undo" behind it, it has that put back what was there before.
set -eu

# What the server was asked for.
undo={{ ("undo" if undo else "")|sh }}

die() {
    printf '%s\n' "regproxy: $*" >&2
    exit 1
}

for_node() {
    cat <<'END_OF_SCRIPT'
{% include "setup/containerd.sh" %}
END_OF_SCRIPT
}

main() {
    if [ "${1:-}" = undo ]; then undo=undo; fi
    found=''
    failed=''
    for engine in docker podman nerdctl; do
        command -v "$engine" >/dev/null 2>&1 || continue
        # One that does not run has none.
        nodes=$("$engine" ps --filter label=io.x-k8s.kind.cluster --format '{{ "{{.Names}}" }}') ||
            continue
        for node in $nodes; do
            found=yes
            printf '%s\n' "regproxy: node $node"
            for_node | "$engine" exec --interactive "$node" sh -s -- ${undo:+"$undo"} || failed="$failed $node"
        done
        # Podman may answer as docker, too.
        if [ -n "$found" ]; then break; fi
    done
    [ -n "$found" ] || die 'no node of a kind cluster runs here'
    [ -z "$failed" ] || die "this did not work in:$failed"
}

main "$@" </dev/null
