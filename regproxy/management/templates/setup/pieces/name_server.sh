# use_name_server: this machine asks the proxy for addresses.
use_name_server() {
    if [ -d /run/systemd/system ] && systemctl is-active --quiet systemd-resolved.service; then
        put /etc/systemd/resolved.conf.d/regproxy.conf <<END
[Resolve]
DNS=$name_server
Domains=~.
END
    elif [ -d /run/systemd/system ] && systemctl is-active --quiet NetworkManager.service; then
        put /etc/NetworkManager/conf.d/regproxy.conf <<END
[global-dns-domain-*]
servers=$name_server
END
    elif [ -L /etc/resolv.conf ]; then
        die "/etc/resolv.conf is made by $(readlink /etc/resolv.conf): set $name_server there"
    else
        if [ -e /etc/resolv.conf ]; then
            sed '/^nameserver[[:space:]]/d' /etc/resolv.conf >"$work/resolv.conf"
        else
            : >"$work/resolv.conf"
        fi
        echo "nameserver $name_server" | cat - "$work/resolv.conf" >"$work/resolv"
        put /etc/resolv.conf <"$work/resolv"
    fi
}

