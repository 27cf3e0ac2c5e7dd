{% extends "setup/script.sh" %}
{% block pieces %}
{% include "setup/pieces/trust.sh" %}
{% if mode == "dns" %}
{% include "setup/pieces/name_server.sh" %}
{% else %}
{% include "setup/pieces/environment.sh" %}
{% endif %}
{% include "setup/pieces/check.sh" %}
{% endblock %}
{% block settings %}
settings() {
{% if mode == "dns" %}
    trust
    use_name_server
{% else %}
    # Before Docker 23 daemon.json has no "proxies", and dockerd does not start with keys that it
    # does not know; so the environment is set, which all versions read.
    if [ -e /etc/docker/daemon.json ] && grep -q '"proxies"' /etc/docker/daemon.json; then
        die '"proxies" in /etc/docker/daemon.json come before what is set here: take them out'
    fi
    trust
    for unit in $units; do
        variables | environment "$unit"
    done
{% endif %}
}

{% endblock %}
