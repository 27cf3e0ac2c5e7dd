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
    # The builders of buildx are containers: they do not see what this machine trusts. Buildx copies
    # the certificates that its configuration names into them.
    cat{% for _ in certificates or [none] %} "$anchors/regproxy{{ "" if loop.first else loop.index }}.crt"{% endfor %} >"$work/ca.pem"
    put /etc/buildkit/regproxy-ca.pem <"$work/ca.pem"
    put /etc/buildkit/regproxy.toml <<'END'
{% for registry in registries %}
[registry."{{ registry }}"]
  ca = ["/etc/buildkit/regproxy-ca.pem"]
{% endfor %}
END
    say 'for a builder of buildx, as the user who builds:'
    cat <<END
docker buildx create --name regproxy --use --driver docker-container \\
  --buildkitd-config /etc/buildkit/regproxy.toml \\
  --driver-opt 'env.HTTPS_PROXY=$proxy' \\
  --driver-opt '"env.NO_PROXY=$no_proxy"'
END
}

{% endblock %}
