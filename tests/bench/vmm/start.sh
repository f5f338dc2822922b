# Boots a guest of one processor and 128 MiB to its first process, without a NIC, twice: once with two events traced, so that
# the trace costs nothing, and once with all that is counted. KERNEL and VMM are set before; VMM is vmm-boot, microvm or q35.
cd /sys/kernel/debug/tracing
echo mono >trace_clock
words="console=ttyS0 panic=-1 quiet lab.end=poweroff"
case $VMM in
vmm-boot) set -- vmm-boot "$LAB/guest/$KERNEL" "$LAB/guest/initrd" "$words" 1 128 ;;
microvm) machine="microvm,rtc=on -bios qboot.rom" ;;
q35) machine=q35 ;;
esac
[ "$VMM" = vmm-boot ] || set -- qemu-system-x86_64 -enable-kvm -cpu host -M $machine -m 128 -nodefaults -no-user-config -display none \
    -serial stdio -no-reboot -kernel "$LAB/guest/$KERNEL" -initrd "$LAB/guest/initrd" -append "$words"
program=$1
# Init's first word on the serial port, after which nothing is counted.
echo 'port == 0x3f8 && val == 0x7e' >events/kvm/kvm_pio/filter
echo 1 >events/sched/sched_process_exec/enable
echo 1 >events/kvm/kvm_pio/enable
trace() { sed -n "/sched_process_exec: filename=[^ ]*$program /,\$p" trace; }
echo >trace
"$@" >/run/guest </dev/null 2>&1
trace | awk '
    { time = $4 + 0; if ($4 !~ /^[0-9.]*:$/) time = $5 + 0 }
    NR == 1 { begun = time }
    /kvm_pio:/ { printf "init %d\n", (time - begun) * 1000000; exit }'
grep -q '^guest: init with' /run/guest || { cat /run/guest; exit 1; }

echo 0 >events/kvm/kvm_pio/filter
echo 'traceoff if port == 0x3f8 && val == 0x7e' >events/kvm/kvm_pio/trigger
echo 80000 >buffer_size_kb
for event in kvm/kvm_entry kvm/kvm_exit kvm/kvm_mmio raw_syscalls/sys_enter; do echo 1 >events/$event/enable; done
# Of this program and its threads alone.
echo event-fork >trace_options
echo >trace
sh -c 'echo $$ >set_event_pid; exec "$@"' sh "$@" >/run/guest </dev/null 2>&1
trace >/run/trace
for event in kvm/kvm_entry kvm/kvm_exit kvm/kvm_mmio kvm/kvm_pio raw_syscalls/sys_enter; do echo 0 >events/$event/enable; done
echo '!traceoff' >events/kvm/kvm_pio/trigger
echo noevent-fork >trace_options
echo >set_event_pid
echo 1 >tracing_on
awk '
    { time = $4 + 0; if ($4 !~ /^[0-9.]*:$/) time = $5 + 0 }
    NR == 1 { begun = time }
    /sys_enter:/ && !first { calls++ }
    /kvm_entry:/ && !first { first = time }
    /kvm_pio:/ { ports++ }
    /kvm_mmio: mmio (read|write)/ { memory++ }
    /kvm_exit:/ { exits++; for (at = 1; at < NF; at++) if ($at == "reason") kinds[$(at + 1)]++ }
    END {
        printf "first %d\ncalls %d\nexits %d\nports %d\nmemory %d\n", (first - begun) * 1000000, calls, exits, ports, memory
        for (kind in kinds) printf "kind:%s %d\n", kind, kinds[kind]
    }' /run/trace
