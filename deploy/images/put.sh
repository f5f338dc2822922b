# Sourced by the recipes of images. They set `tree`.

put() { # FILE [PATH]: a file, links followed, and the libraries it needs
    install -D -m "$(stat -L -c %a "$1")" "$1" "$tree${2:-$1}"
    local library
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        [ -e "$tree$library" ] || install -D -m 0755 "$library" "$tree$library"
    done
}

users() { # NAME:UID…: the folders every container has, and its users
    mkdir -p "$tree"/{dev,proc,run,sys,etc}
    mkdir -m 1777 "$tree/tmp"
    local user
    for user in "$@"; do
        echo "${user%:*}:x:${user#*:}:${user#*:}::/:/nonexistent" >>"$tree/etc/passwd"
        echo "${user%:*}:x:${user#*:}:" >>"$tree/etc/group"
    done
}
