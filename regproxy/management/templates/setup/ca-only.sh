{% extends "setup/script.sh" %}
{% block pieces %}
{% include "setup/pieces/trust.sh" %}
{% include "setup/pieces/check.sh" %}
{% endblock %}
{% block settings %}
settings() {
    trust
    say "programs that run already read it when they are started again"
}

{% endblock %}
