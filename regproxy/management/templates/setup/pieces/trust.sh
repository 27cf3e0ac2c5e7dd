# trust: all programs of this machine believe the proxy's CA.
trust() {
    if has update-ca-trust; then
        # Fedora, RHEL and their kin.
        anchors=/etc/pki/ca-trust/source/anchors
        # Arch.
        [ -d "$anchors" ] || anchors=/etc/ca-certificates/trust-source/anchors
    elif [ -d /etc/pki/trust/anchors ]; then
        # SUSE.
        anchors=/etc/pki/trust/anchors
    elif has update-ca-certificates; then
        # Debian, Ubuntu, Alpine.
        anchors=/usr/local/share/ca-certificates
    else
        die 'there is no update-ca-certificates and no update-ca-trust: install ca-certificates'
    fi
{% if certificates %}
{% for certificate in certificates %}
    put "$anchors/regproxy{{ "" if loop.first else loop.index }}.crt" <<'END'
{{ certificate }}
END
{% endfor %}
{% else %}
    fetch "$proxy/ca.crt" | sed '/^-----END CERTIFICATE-----/q' >"$work/ca.crt"
    found=$(sed '/^-/d' "$work/ca.crt" | base64 -d | sha256sum | cut -d ' ' -f 1)
    wanted=$(echo "$fingerprint" | tr -d : | tr A-F a-f)
    [ "$found" = "$wanted" ] || die "$proxy/ca.crt is not the CA with this fingerprint"
    put "$anchors/regproxy.crt" <"$work/ca.crt"
{% endif %}
}
{% if not certificates %}

fetch() {
    if has curl; then
        curl --fail --silent --show-error --noproxy '*' --max-time 30 "$1"
    else
        http_proxy='' wget -q -O - "$1"
    fi
}
{% endif %}

