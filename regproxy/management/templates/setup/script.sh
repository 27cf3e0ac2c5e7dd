#!/bin/sh
#
# regproxy: {{ purpose }}
#
# Run it as root, as often as you like: what is in order is left alone, and nothing is
# restarted for it. With the word "undo" behind it, it puts back what was there before. What it
# has changed is noted in /var/lib/regproxy-setup.
set -eu
umask 022

# What the server was asked for, and says of itself: each in one quoted word.
undo={{ ("yes" if undo else "")|sh }}
{% if mode == "proxy" or (mode == "dns" and not certificates) %}
proxy={{ proxy|sh }}
{% endif %}
{% if mode == "proxy" and units %}
no_proxy={{ no_proxy|sh }}
{% endif %}
{% if mode == "hosts" %}
mirror={{ mirror|sh }}
{% else %}
# SHA-256 of the CA: compare it with the proxy's log.
fingerprint={{ fingerprint|sh }}
{% endif %}
{% if mode == "dns" %}
name_server={{ name_server|sh }}
{% endif %}
{% if mode != "hosts" and probe %}
probe={{ probe|sh }}
{% endif %}

kind={{ kind }}
units='{{ units|join(" ") }}'
state=/var/lib/regproxy-setup

say() { printf '%s\n' "regproxy: $*"; }
die() {
    say "$*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# alone: two runs at a time would change the same files.
alone() {
    has flock || return 0
    mkdir -p /run
    exec 9>/run/regproxy-setup.lock
    flock -n 9 && return
    say 'another run is under way: waiting for its end'
    flock 9
}

{% include "setup/pieces/files.sh" %}
{% include "setup/pieces/services.sh" %}
{% block pieces %}{% endblock %}
{% block settings %}{% endblock %}
main() {
    if [ "${1:-}" = undo ]; then undo=yes; fi
    [ "$(id -u)" = 0 ] || die 'only root can do this'
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    alone
    : >"$work/files"
    init=$(init)
    if [ -n "$undo" ]; then
        if [ ! -f "$state/$kind.files" ]; then
            # But for what a run has left that broke off.
            forget
            say 'there is nothing to undo'
            return
        fi
    else
{% if mode != "hosts" %}
        say "the SHA-256 fingerprint of the CA is $fingerprint"
{% endif %}
        settings
    fi
    finish
    if [ -n "$undo" ]; then
        say "what was there before is there again"
    else
        installed
        check
    fi
}

# In a function, and on the last line: of a script that arrived in part nothing is done.
main "$@" </dev/null
