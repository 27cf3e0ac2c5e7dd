# hosts_toml: containerd asks the mirror first, for all registries that have no file of their own.
hosts_toml() {
    config=/etc/containerd/config.toml
    if same "$config" "$state/now$config"; then
        # As it was before this script.
        base=$state/was$config
    else
        base=$config
    fi
    if [ ! -e "$base" ]; then base=/dev/null; fi
    if grep -Eq '^[^#]*registry\.(mirrors\.|configs\..*\.tls)' "$base"; then
        die "$config has registry.mirrors or registry.configs, which exclude config_path: move them to files in /etc/containerd/certs.d"
    fi
    directory=$(config_path "$base")
    case $directory in
        '' | /etc/containerd/certs.d:/etc/docker/certs.d)
            # The latter is the default of containerd 2.2, which then takes no mirrors from either.
            directory=/etc/containerd/certs.d
            is_ours "$directory/_default/hosts.toml"
            with_config_path "$directory" "$base" >"$work/config.toml"
            if has containerd; then
                containerd --config "$work/config.toml" config dump >"$work/dump" ||
                    die "containerd does not take $config with config_path: see above"
                [ "$(config_path "$work/dump")" = "$directory" ] ||
                    die "set config_path = \"$directory\" in $config, for the registries of CRI"
            fi
            put "$config" <"$work/config.toml"
            ;;
        *)
            directory=${directory%%:*}
            is_ours "$directory/_default/hosts.toml"
            ;;
    esac
    put "$directory/_default/hosts.toml" <<END
[host."$mirror"]
  capabilities = ["pull", "resolve"]
END
}

is_ours() {
    if [ -e "$1" ] && [ ! -e "$state/now$1" ]; then
        die "there is a $1: add $mirror to it yourself"
    fi
}

# The tables are those of containerd's configuration versions 1 (which a file without a version
# has), 2 and 3.
# shellcheck disable=SC2016 # what is in quotes is for awk
toml='
function is_table(line) {
    gsub(/["\047 \t]/, "", line)
    sub(/#.*/, "", line)
    return line == "[plugins.cri.registry]" ||
        line == "[plugins.io.containerd.grpc.v1.cri.registry]" ||
        line == "[plugins.io.containerd.cri.v1.images.registry]"
}
/^[ \t]*\[/ { inside = is_table($0) }
/^[ \t]*version[ \t]*=/ && version == "" { version = $0; gsub(/[^0-9]/, "", version) }
'
# config_path FILE: the one that CRI has there.
config_path() {
    awk "$toml"'
        inside && /^[ \t]*config_path[ \t]*=/ {
            sub(/^[^=]*=[ \t]*/, "")
            gsub(/["\047]/, "")
            sub(/[ \t]*(#.*)?$/, "")
            print
        }' "$1"
}
# with_config_path DIRECTORY FILE: the file with it.
with_config_path() {
    awk -v directory="$1" "$toml"'
        function setting() { return "  config_path = \"" directory "\"" }
        inside && /^[ \t]*config_path[ \t]*=/ { next }
        { print }
        inside && !done { print setting(); done = 1 }
        END {
            if (done) exit
            if (version == "3") table = "plugins.\"io.containerd.cri.v1.images\".registry"
            else if (version == "1" || (NR && version == "")) table = "plugins.cri.registry"
            else table = "plugins.\"io.containerd.grpc.v1.cri\".registry"
            if (!NR) print "version = 2"
            print "\n[" table "]\n" setting()
        }' "$2"
}

