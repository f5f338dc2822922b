//! The guest's memory: by huge pages, back to the host, and of several guests at once.

use std::time::Duration;

use libtest_mimic::Trial;
use machine::base64;
use tests::trial;

const LIMIT: Duration = Duration::from_secs(240);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: LAB-16
        trial("a guest's memory is mapped by huge pages", huge_pages),
        // spec: LAB-36
        trial("a guest's memory is made of the huge pages that it asks for", of_huge_pages),
        // spec: LAB-22
        trial("memory that a guest frees goes back to the host", balloon),
        // spec: LAB-23
        trial("8 guests at once reach each other", several),
    ]
}

fn huge_pages() {
    let script = "cat /sys/kernel/mm/transparent_hugepage/enabled
        before=$(cat /sys/kernel/debug/kvm/pf_fixed)
        vmm-boot $LAB/guest/vmlinux $LAB/guest/initrd 'console=ttyS0 panic=-1 quiet lab.end=stay' 1 128 >/tmp/guest 2>&1 &
        until grep 'guest: shell' /tmp/guest 2>/dev/null; do sleep 1; done
        echo \"faults: $(($(cat /sys/kernel/debug/kvm/pf_fixed) - before))\"";
    let finished = crate::run("huge pages", script, LIMIT);
    assert_eq!(finished.code, 0, "{finished}");
    assert!(!finished.output.contains("[never]"), "this host's kernel gives no huge pages: {finished}");
    let faults = finished.output.lines().find_map(|line| line.strip_prefix("faults: ")).unwrap_or_default();
    // A boot touches some 20,000 pages of 4 KiB, and 60 of 2 MiB.
    assert!(faults.parse::<u32>().is_ok_and(|faults| (1..2000).contains(&faults)), "{finished}");
}

fn of_huge_pages() {
    let script = "count() { sed -n \"s/^HugePages_$1: *//p\" /proc/meminfo; }
        export VMM_HUGEPAGES=2
        set -- vmm-boot $LAB/guest/vmlinux $LAB/guest/initrd 'console=ttyS0 panic=-1 quiet lab.end=stay' 1 128
        kept=$(cat /proc/sys/vm/nr_hugepages)
        echo $((kept + 70)) >/proc/sys/vm/nr_hugepages
        free=$(count Free)
        \"$@\" >/run/huge 2>&1 &
        vm=$!
        until grep 'guest: shell' /run/huge 2>/dev/null; do kill -0 $vm || { cat /run/huge; exit 1; }; sleep 0.5; done
        echo \"taken: $((free - $(count Free))), of them not written: $(count Rsvd)\"
        \"$@\" 2>&1
        kill -KILL $vm
        wait $vm
        for try in $(seq 100); do [ $((free - $(count Free))) != 0 ] || break; sleep 0.1; done
        echo \"back: $((free - $(count Free)))\"
        echo $kept >/proc/sys/vm/nr_hugepages";
    let finished = crate::run("memory of huge pages", script, LIMIT);
    let line = finished.output.lines().find_map(|line| line.strip_prefix("taken: ")).unwrap_or_default();
    let numbers: Vec<u32> = line.split(' ').filter_map(|word| word.trim_end_matches(',').parse().ok()).collect();
    let [taken, reserved] = numbers[..] else { panic!("{finished}") };
    // A boot writes to most of 128 MiB, and what it does not write to is kept for it.
    assert!(taken > 10 && taken + reserved >= 64, "{finished}");
    assert!(finished.output.contains("HugePages { bytes: 134217728, page: 2097152"), "{finished}");
    assert!(finished.output.contains("back: 0\n"), "{finished}");
}

fn balloon() {
    let free = "sed -n 's/^MemFree: *\\([0-9]*\\).*/\\1/p' /proc/meminfo";
    let guest = format!(
        "dd if=/dev/zero of=/big bs=1M count=96 2>/dev/null; echo filled; read x; rm /big; echo freed; read x; \
         until [ $({free}) -lt 60000 ]; do sleep 0.2; done; echo in-the-balloon; \
         dd if=/dev/zero of=/big bs=1M count=72 2>/dev/null; stat -c %s /big"
    );
    let script = format!(
        "resident() {{ sed -n 's/^Rss: *\\([0-9]*\\).*/\\1/p' /proc/$vm/smaps_rollup; }}
        VMM_BALLOON=1 vmm-boot $LAB/guest/vmlinux $LAB/guest/initrd 'console=ttyS0 panic=-1 quiet lab.run={} lab.end=poweroff' 1 256 \\
            filled 'await /tmp/filled' '' 'type go' freed 'await /tmp/freed' '' 'balloon 160' '' 'type go' >/tmp/guest 2>&1 &
        vm=$!
        said() {{ for try in $(seq 90); do ! grep -q $1 /tmp/guest || return 0; sleep 1; done; cat /tmp/guest; exit 1; }}
        said filled
        echo \"filled: $(resident)\"
        most=$(($(resident) - 60000))
        touch /tmp/filled
        said freed
        for try in $(seq 60); do [ $(resident) -gt $most ] || break; sleep 1; done
        echo \"freed: $(resident)\"
        touch /tmp/freed
        said ended
        wait $vm
        cat /tmp/guest
        rm /tmp/guest /tmp/filled /tmp/freed",
        base64::encode(guest.as_bytes())
    );
    let mut finished = crate::run("a balloon", &script, LIMIT);
    finished.output = finished.output.replace('\r', "");
    assert_eq!(finished.code, 0, "{finished}");
    let resident = |word: &str| {
        let line = finished.output.lines().find_map(|line| line.strip_prefix(word));
        line.and_then(|number| number.trim().parse::<u32>().ok()).unwrap_or_else(|| panic!("no {word}\n{finished}"))
    };
    let (filled, freed) = (resident("filled:"), resident("freed:"));
    assert!(filled > 100_000 && freed + 60_000 <= filled, "{filled} kB, then {freed} kB\n{finished}");
    // The guest takes back what it needs instead of killing its processes.
    assert!(finished.output.contains("in-the-balloon\n75497472\n"), "{finished}");
    assert!(finished.output.contains("\nvmm-boot: ended PoweredOff"), "{finished}");
}

fn several() {
    let script = "set -e
        ! $IP link del near 2>/dev/null || sleep 1
        $IP link add near type veth peer name far
        for link in near far; do $IP link set $link up; done
        mkdir /tmp/guests
        for at in 0 1 2 3 4 5 6 7; do
            $IP link add link near name mv$at address 02:00:00:00:01:0$at type macvtap mode bridge
            $IP link set mv$at up
            guest=\"ip link set eth0 address 02:00:00:00:01:0$at; ip link set eth0 up; ip addr add 192.0.2.1$at/24 dev eth0
                until ping -c 1 -w 2 192.0.2.1$(((at + 1) % 8)) >/dev/null; do :; done; echo reached; read x\"
            VMM_NICS=\"/dev/tap$(cat /sys/class/net/mv$at/ifindex)\" vmm-boot $LAB/guest/vmlinux $LAB/guest/initrd \\
                \"console=ttyS0 panic=-1 quiet lab.run=$(echo \"$guest\" | base64 | tr -d '\\n') lab.end=poweroff\" 1 96 \\
                reached 'await /tmp/guests/all' '' 'type go' >/tmp/guests/$at 2>&1 &
        done
        reached() { grep -l reached /tmp/guests/* | wc -l; }
        for try in $(seq 300); do [ $(reached) -lt 8 ] || break; sleep 1; done
        [ $(reached) = 8 ] || { tail -n 5 /tmp/guests/*; exit 1; }
        echo \"at once: $(pidof vmm-boot | wc -w)\"
        touch /tmp/guests/all
        wait
        echo \"powered off: $(grep -l 'ended PoweredOff' /tmp/guests/[0-7] | wc -l)\"
        rm -r /tmp/guests";
    // Eight boots on one emulated processor.
    let finished = crate::run("several guests", script, 2 * LIMIT);
    assert_eq!(finished.code, 0, "{finished}");
    assert!(finished.output.contains("at once: 8\n") && finished.output.contains("powered off: 8\n"), "{finished}");
}
