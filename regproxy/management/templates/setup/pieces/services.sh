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
            rc-service "$name" restart || die "$name does not start: see its log"
            ;;
        *) say "there is neither systemd nor OpenRC: if $name runs, restart it yourself" ;;
    esac
}

