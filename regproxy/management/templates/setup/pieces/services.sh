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

# restart: those that run, so that they read what has changed.
restart() {
    case $init in
        systemd)
            if [ ! -d /run/systemd/system ]; then return; fi
            systemctl daemon-reload
            for unit in $units; do
                case $(systemctl is-active "$unit") in
                    active | activating | reloading)
                        say "restarting $unit"
                        systemctl restart "$unit" || die "$unit does not start: see its log"
                        ;;
                esac
            done
            ;;
        openrc)
            if [ ! -d /run/openrc ]; then return; fi
            for unit in $units; do
                if rc-service "${unit%.service}" status >/dev/null 2>&1; then
                    say "restarting $unit"
                    rc-service "${unit%.service}" restart || die "$unit does not start: see its log"
                fi
            done
            ;;
        *)
            for unit in $units; do
                say "there is neither systemd nor OpenRC: restart ${unit%.service} yourself if it runs"
            done
            ;;
    esac
}

