digest() { sha256sum <"$1" | cut -d ' ' -f 1; }
same() { [ -f "$1" ] && [ -f "$2" ] && [ "$(digest "$1")" = "$(digest "$2")" ]; }

# listed FILE LIST: whether it is in the list. Lists have a digest and a name in each line.
listed() { cut -d ' ' -f 2 "$2" | grep -qxF "$1"; }

# put FILE: the input becomes its content. What was there before is kept.
put() {
    if [ -L "$1" ]; then die "$1 is a link, perhaps to what others use: set it up yourself"; fi
    cat >"$work/new"
    echo "$(digest "$work/new") $1" >>"$work/files"
    if [ ! -e "$state/now$1" ]; then
        # There may be secrets in what is kept.
        [ -d "$state" ] || mkdir -m 700 "$state"
        mkdir -p "$state/was${1%/*}" "$state/now${1%/*}"
        echo "- $1" >>"$state/$kind.files"
        if [ -e "$1" ]; then cp -p "$1" "$state/was$1"; else rm -f "$state/was$1"; fi
    fi
    cp "$work/new" "$state/now$1"
    if same "$work/new" "$1"; then return; fi
    changing "$1"
    make_directory "${1%/*}"
    replace "$1" <"$work/new"
    say "wrote $1"
}

# replace FILE: the input becomes its content, at once. Its owner and its mode stay.
replace() {
    if [ -e "$1" ]; then cp -p "$1" "$1.regproxy-new"; fi
    cat >"$1.regproxy-new"
    mv -f "$1.regproxy-new" "$1"
}

begin='# BEGIN regproxy'
end='# END regproxy'

# block FILE: the same for a part of the file. The rest of it stays as it is.
block() {
    {
        if [ -e "$1" ]; then without_block "$1"; fi
        echo "$begin"
        cat
        echo "$end"
    } >"$work/with-block"
    put "$1" <"$work/with-block"
}
without_block() {
    awk -v begin="$begin" -v end="$end" \
        '$0 == begin { ours = 1 } !ours { print } $0 == end { ours = 0 }' "$1"
}

# changing FILE: note it first, so that a run that breaks off is completed by the next one.
changing() {
    echo "- $1" >>"$state/$kind.files"
    case $1 in
        */regproxy*.crt) : >"$state/trust.changed" ;;
        /etc/systemd/resolved.conf.d/*) echo systemd-resolved.service >"$state/resolver.changed" ;;
        /etc/NetworkManager/*) echo NetworkManager.service >"$state/resolver.changed" ;;
    esac
}

make_directory() {
    if [ -d "${1:-/}" ]; then return; fi
    make_directory "${1%/*}"
    echo "$1" >>"$state/directories"
    mkdir "$1"
}

# restore FILE: what was there before, unless another has changed it since.
restore() {
    for list in "$state"/*.files; do
        if [ "$list" != "$state/$kind.files" ] && listed "$1" "$list"; then return; fi
    done
    if [ ! -e "$state/now$1" ]; then return; fi
    # Of a run that broke off.
    rm -f "$1.regproxy-new"
    if same "$1" "$state/now$1"; then
        changing "$1"
        if [ -e "$state/was$1" ]; then
            cp -p "$state/was$1" "$1.regproxy-new"
            mv -f "$1.regproxy-new" "$1"
        else
            rm -f "$1"
        fi
        say "restored $1"
    elif [ -e "$1" ] && grep -qxF "$begin" "$1"; then
        changing "$1"
        without_block "$1" >"$work/without"
        replace "$1" <"$work/without"
        say "took our lines out of $1"
    elif [ -e "$1" ] && ! same "$1" "$state/was$1"; then
        say "$1 has been changed since: it stays"
    fi
    # In this order: what was there is never taken for nothing.
    rm -f "$state/now$1" "$state/was$1"
}

# finish: what this script set earlier and does not set any more is restored; then everybody
# who has to know learns what has changed.
finish() {
    touch "$state/$kind.files"
    cut -d ' ' -f 2 "$state/$kind.files" | sort -u >"$work/known"
    while read -r name; do
        if ! listed "$name" "$work/files"; then restore "$name"; fi
    done <"$work/known"
    if [ -e "$state/trust.changed" ]; then
        update_trust
        rm "$state/trust.changed"
    fi
    if same "$work/files" "$state/$kind.files"; then
        say 'all is set already'
    else
        resolver=''
        if [ -e "$state/resolver.changed" ]; then resolver=$(cat "$state/resolver.changed"); fi
        if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
        for unit in $resolver $units; do restart "$unit"; done
        rm -f "$state/resolver.changed"
    fi
    if [ -n "$undo" ]; then
        rm "$state/$kind.files"
        forget
    else
        cp "$work/files" "$state/$kind.files"
    fi
}

update_trust() {
    if has update-ca-trust; then
        update-ca-trust extract
    else
        # Without --fresh Debian keeps what is not there any more.
        update-ca-certificates --fresh >/dev/null
    fi
}

# forget: the directories that are not needed any more, and in the end the notes.
forget() {
    if [ -f "$state/directories" ]; then
        sort -r "$state/directories" >"$work/directories"
        : >"$state/directories"
        while read -r directory; do
            # One with files of others in it stays.
            rmdir "$directory" 2>/dev/null || echo "$directory" >>"$state/directories"
        done <"$work/directories"
    fi
    for list in "$state"/*.files; do
        if [ -e "$list" ]; then return; fi
    done
    rm -rf "$state"
}

