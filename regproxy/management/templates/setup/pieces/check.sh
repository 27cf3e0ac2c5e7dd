# check: a request as a client makes it, by a program that believes what this machine believes.
check() {
    unset CURL_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR
{% if mode == "hosts" %}
    ask "$mirror/v2/" ''
{% elif mode == "dns" %}
    ask "https://$probe/v2/" ''
{% elif probe %}
{% if units %}
    in_force
{% endif %}
    ask "https://$probe/v2/" "$proxy"
{% else %}
    ask "$proxy/healthz" ''
{% endif %}
}

# ask URL PROXY: a registry that wants a login has answered, too.
ask() {
    if has curl; then
        if [ -n "$2" ]; then exempt=''; else exempt='*'; fi
        status=$(
            curl --silent --show-error --output /dev/null --write-out '%{http_code}' \
                --max-time 60 --noproxy "$exempt" --proxy "$2" "$1"
        ) || die "$1 did not answer: see above"
        case $status in
            [234]??) say "$1 answered with status $status: all is well" ;;
            *) say "all is set, but $1 answered with status $status: see the proxy's log" ;;
        esac
    elif wget --version 2>/dev/null | grep -q 'GNU Wget'; then
        if [ -n "$2" ]; then use=on; else use=off; fi
        code=0
        wget --quiet --output-document=/dev/null --tries=1 --timeout=60 --execute=no_proxy= \
            --execute="use_proxy=$use" --execute="https_proxy=$2" "$1" || code=$?
        # 6: the registry wants a login; 8: it answered with an error.
        case $code in
            0 | 6 | 8) say "$1 answered: all is well" ;;
            *) die "$1 did not answer: wget ended with $code" ;;
        esac
    else
        say "all is set, but not checked: there is neither curl nor GNU wget here"
    fi
}

