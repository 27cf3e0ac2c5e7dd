{% extends "setup/script.sh" %}
{% block pieces %}
{% include "setup/pieces/trust.sh" %}
{% include "setup/pieces/environment.sh" %}
{% include "setup/pieces/check.sh" %}
{% endblock %}
{% block settings %}
settings() {
    trust
    for unit in $units; do
        variables | environment "$unit"
    done
}

{% endblock %}
