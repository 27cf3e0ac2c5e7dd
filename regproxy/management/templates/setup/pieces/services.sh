# What starts services. In an image that is being made it does not run, but is there.
init() {
    if [ -d /run/systemd/system ]; then
        echo systemd
    elif has rc-service; then
        echo openrc
    elif has systemctl; then
        echo systemd
    else
        echo none
    fi
}

# installed: a word when none of the services is there.
installed() {
    [ -n "$units" ] || return 0
    for unit in $units; do
        case $init in
            systemd)
                [ -d /run/systemd/system ] || return 0
                systemctl show -p LoadState "$unit" | grep -q not-found || return 0
                ;;
            openrc) [ ! -e "/etc/init.d/${unit%.service}" ] || return 0 ;;
            *) return 0 ;;
        esac
    done
    say "there is no $units yet: when there is, it reads what is set"
}

# restart UNIT: if it runs, so that it reads what has changed.
restart() {
    name=${1%.service}
    case $init in
        systemd)
            # In an image nothing runs.
            [ -d /run/systemd/system ] || return 0
            case $(systemctl is-active "$1") in
                active | activating | reloading) ;;
                *) return 0 ;;
            esac
            say "restarting $name"
            systemctl restart "$1" || die "$name does not start: see its log"
            ;;
        openrc)
            [ -d /run/openrc ] || return 0
            rc-service "$name" status >/dev/null 2>&1 || return 0
            say "restarting $name"
            rc-service "$name" restart 9>&- || die "$name does not start: see its log"
            ;;
        *) say "there is neither systemd nor OpenRC: if $name runs, restart it yourself" ;;
    esac
}

