# First process of a test's world: private mounts, then wait for the test to end.
# Read before the world's own /proc is mounted, so that this is the process' number as the test knows it.
read -r outer_pid _ </proc/self/stat

mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/netns /run/lock /run/.world
for folder in etc var opt; do
    [ -d "/$folder" ] || continue
    mkdir -p "/run/.world/$folder/upper" "/run/.world/$folder/work"
    mount -t overlay overlay \
        -o "lowerdir=/$folder,upperdir=/run/.world/$folder/upper,workdir=/run/.world/$folder/work" "/$folder"
done
# A machine that runs these programs in earnest must not lend its state to a test.
rm -rf /var/lib/cni /var/cache/tapvisor /etc/tapvisor /etc/cni /opt/cni
rm -f /etc/resolv.conf
echo 'nameserver 192.0.2.53' >/etc/resolv.conf
hostname host
eval "$PLAIN_SETTINGS"
unset PLAIN_SETTINGS

echo "$outer_pid"
# No process here waits for orphans: with SIGCHLD ignored the kernel reaps them.
exec env --ignore-signal=CHLD cat
