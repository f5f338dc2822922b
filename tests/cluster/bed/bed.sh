# Read by `host`, `node` and `clean`: what they share.

keep() { # NAME COMMAND...: starts it with its output in a log, and again a second after it ended
    local name=$1 code
    shift
    while :; do
        "$@" </dev/null >>"$logs/$name.log" 2>&1 && code=0 || code=$?
        echo "$name ended with $code and is started again" >>"$logs/$name.log"
        sleep 1
    done &
}

until_ok() { # SECONDS COMMAND...: repeats it until it succeeds
    local limit=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$limit" ] || { echo "not within its time: $*" >&2 && return 1; }
        sleep 0.1
    done
}

# Mounts the machine's control group hierarchies below /sys/fs/cgroup: of version 1 each with its controllers, or the
# single one of version 2. Prints the mount points.
control_groups() {
    local controllers root=/sys/fs/cgroup
    if [ -z "$(cut -d: -f2 /proc/self/cgroup | tr -d '\n')" ]; then
        mount -t cgroup2 cgroup2 $root
        echo $root
        return
    fi
    mount -t tmpfs -o mode=0755 tmpfs $root
    for controllers in $(cut -d: -f2 /proc/self/cgroup); do
        mkdir "$root/${controllers#name=}"
        # A named hierarchy has no controller.
        mount -t cgroup -o "${controllers/#name=/none,name=}" cgroup "$root/${controllers#name=}"
        echo "$root/${controllers#name=}"
    done
}
