# environment UNIT: it gets the variables at the input, NAME=VALUE in each line.
environment() {
    case $init in
        systemd)
            key=Environment # systemd.exec(5)
            {
                echo '[Service]'
                sed "s/.*/$key=\"&\"/"
            } | put "/etc/systemd/system/$1.d/regproxy.conf"
            ;;
        openrc) exports | block "/etc/conf.d/${1%.service}" ;;
        *)
            exports | block "/etc/default/${1%.service}"
            say "start ${1%.service} with what is in /etc/default/${1%.service}"
            ;;
    esac
}
exports() { sed "s/=/='/; s/^/export /; s/\$/'/"; }

# variables: where the proxy is, and what is not for it.
variables() {
{% set prefix = "CONTAINERD_" if kind == "k3s" else "" %}
{% if plain_http %}
    echo "{{ prefix }}HTTP_PROXY=$proxy"
{% endif %}
    echo "{{ prefix }}HTTPS_PROXY=$proxy"
    echo "{{ prefix }}NO_PROXY=$no_proxy"
}

# in_force: that no other drop-in has the last word.
in_force() {
    if [ ! -d /run/systemd/system ]; then return; fi
    for unit in $units; do
        systemctl is-active --quiet "$unit" || continue
        systemctl show "$unit" | grep -qF "HTTPS_PROXY=$proxy" ||
            die "another drop-in of $unit has another HTTPS_PROXY: see systemctl cat $unit"
    done
}

