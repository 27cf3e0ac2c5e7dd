{% extends "setup/script.sh" %}
{% block pieces %}
{% if mode == "hosts" %}
{% include "setup/pieces/hosts_toml.sh" %}
{% else %}
{% include "setup/pieces/trust.sh" %}
{% if mode == "dns" %}
{% include "setup/pieces/name_server.sh" %}
{% else %}
{% include "setup/pieces/environment.sh" %}
{% endif %}
{% endif %}
{% include "setup/pieces/check.sh" %}
{% endblock %}
{% block settings %}
settings() {
{% if mode == "hosts" %}
    hosts_toml
{% elif mode == "dns" %}
    trust
    use_name_server
{% else %}
    trust
    for unit in $units; do
        variables | environment "$unit"
    done
{% endif %}
}

{% endblock %}
