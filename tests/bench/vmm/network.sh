# A guest with a NIC on a tap: what a round trip and a stream cost, and the memory of the VMM. VMM is vmm-boot, microvm or q35;
# VHOST is on or off; BYTES and TRIPS say how much.
set -e
mkdir -p /run/more/bin
cp "$LAB/bin/meter" /run/more/bin
(cd /run/more && find . | cpio -o -H newc 2>/dev/null) | cat "$LAB/guest/initrd" - >/run/initrd
$IP link del tap0 2>/dev/null || true
$IP tuntap add tap0 mode tap vnet_hdr
$IP addr add 192.0.2.1/24 dev tap0
$IP link set tap0 up
run=$(printf 'ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0; meter serve 5000 & echo is-served; sleep 100000' | base64 -w0)
words="console=ttyS0 panic=-1 quiet lab.run=$run lab.end=stay"
case $VMM in
vmm-boot)
    [ $VHOST = on ] && more=vhost || more=
    VMM_NICS="tap:tap0 $more" vmm-boot "$LAB/guest/vmlinux" /run/initrd "$words" 1 256 >/run/guest 2>&1 </dev/null &
    ;;
*)
    [ $VMM = q35 ] && machine=q35 nic=virtio-net-pci,romfile= || machine="microvm,rtc=on -bios qboot.rom" nic=virtio-net-device
    qemu-system-x86_64 -enable-kvm -cpu host -M $machine -m 256 -nodefaults -no-user-config -display none -serial stdio -no-reboot \
        -netdev tap,id=n,ifname=tap0,script=no,downscript=no,vhost=$VHOST -device $nic,netdev=n,mac=02:00:00:00:00:17 \
        -kernel "$LAB/guest/vmlinux" -initrd /run/initrd -append "$words" >/run/guest 2>&1 </dev/null &
    ;;
esac
vmm=$!
waited=0
until grep -q is-served /run/guest 2>/dev/null; do
    sleep 0.1
    waited=$((waited + 1))
    [ $waited -lt 1000 ] && kill -0 $vmm || { cat /run/guest; exit 1; }
done
sleep 1
# The guest's memory is one mapping of 256 MiB and more.
awk '/^Size:/ { guest = $2 >= 262144 } !guest && /^Rss:/ { rss += $2 } !guest && /^Anonymous:/ { own += $2 }
    END { printf "rss %d\nown %d\n", rss * 1024, own * 1024 }' /proc/$vmm/smaps
echo threads $(ls /proc/$vmm/task | wc -l)
echo udp $(meter udp 192.0.2.2 5000 $TRIPS)
meter in 192.0.2.2 5000 $((BYTES / 10)) >/dev/null
echo in $(meter in 192.0.2.2 5000 $BYTES)
meter out 192.0.2.2 5000 $((BYTES / 10)) >/dev/null
echo out $(meter out 192.0.2.2 5000 $BYTES)
kill -KILL $vmm
