{% extends "setup/script.sh" %}
{% block pieces %}
{% if mode == "proxy" %}
{% include "setup/pieces/trust.sh" %}
{% include "setup/pieces/environment.sh" %}
{% endif %}
{% include "setup/pieces/check.sh" %}
{% endblock %}
{% block settings %}
settings() {
{% if mode == "proxy" %}
    # systemd gives the variables of these files to k3s after those of drop-ins, and OpenRC's
    # script does the same.
    for file in /etc/systemd/system/k3s.service.env /etc/systemd/system/k3s-agent.service.env \
        /etc/rancher/k3s/k3s.env; do
        if [ -e "$file" ] && grep -q '^ *CONTAINERD_HTTPS_PROXY=' "$file"; then
            die "CONTAINERD_HTTPS_PROXY in $file comes before what is set here: take it out"
        fi
    done
    trust
    # With this prefix k3s hands them to its containerd, and uses them for nothing else.
    for unit in $units; do
        variables | environment "$unit"
    done
{% else %}
    file=/etc/rancher/k3s/registries.yaml
    if [ -e "$file" ] && [ ! -e "$state/now$file" ]; then
        die "there is a $file: add $mirror to its mirrors yourself"
    fi
    put "$file" <<END
mirrors:
  "*":
    endpoint:
      - "$mirror"
END
{% endif %}
}

{% endblock %}
