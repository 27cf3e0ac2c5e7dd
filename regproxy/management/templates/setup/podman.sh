{% extends "setup/script.sh" %}
{% block pieces %}
{% include "setup/pieces/trust.sh" %}
{% include "setup/pieces/check.sh" %}
in_force() { :; }

{% endblock %}
{% block settings %}
settings() {
    # A list of a later file takes the place of an earlier one (containers.conf(5)).
    config=/etc/containers/containers.conf
    if [ -e "$config" ] && awk '
        /^[ \t]*\[/ { engine = $0 ~ /^[ \t]*\[engine\]/ }
        engine && /^[ \t]*env[ \t]*=/ { found = 1 }
        END { exit !found }' "$config"; then
        die "$config has an env in [engine]: set HTTPS_PROXY=$proxy and NO_PROXY=$no_proxy there"
    fi
    trust
    # Podman would hand its own proxy on to the containers that it runs.
    put /etc/containers/containers.conf.d/regproxy.conf <<END
[engine]
env = [
{% if plain_http %}
  "HTTP_PROXY=$proxy",
{% endif %}
  "HTTPS_PROXY=$proxy",
  "NO_PROXY=$no_proxy",
]

[containers]
http_proxy = false
END
}

{% endblock %}
