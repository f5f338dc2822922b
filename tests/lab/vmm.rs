//! Debian's kernel in our machine: to its first process, and every way to end.

use std::time::Duration;

use libtest_mimic::Trial;
use machine::base64;
use tests::lab::Finished;
use tests::trial;

/// A guest needs 2 to 20 seconds here, by how busy the machine is.
const LIMIT: Duration = Duration::from_secs(180);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: LAB-3
        trial("vmlinux reaches init with 1 processor and 128 MiB", || reaches_init("vmlinux", 1, 128)),
        // spec: LAB-3
        trial("vmlinux reaches init with 2 processors and 128 MiB", || reaches_init("vmlinux", 2, 128)),
        // spec: LAB-3
        trial("vmlinux reaches init with 5 GiB", || reaches_init("vmlinux", 2, 5120)),
        // spec: LAB-3
        trial("bzImage reaches init with 1 processor and 128 MiB", || reaches_init("bzImage", 1, 128)),
        // spec: LAB-3
        trial("bzImage reaches init with 2 processors and 128 MiB", || reaches_init("bzImage", 2, 128)),
        // spec: LAB-3
        trial("bzImage reaches init with 5 GiB", || reaches_init("bzImage", 1, 5120)),
        // spec: LAB-3
        trial("vmlinux reaches init with 16 processors", || reaches_init("vmlinux", 16, 256)),
        // spec: LAB-4
        trial("a reset by the guest is no power-off", guest_resets),
        // spec: LAB-4
        trial("a panic of the guest's kernel is reported as a crash", guest_crashes),
        // spec: LAB-8
        trial("the guest reads random bytes from a virtio device by MSI-X", random_bytes),
        // spec: LAB-17
        trial("the guest reads its machine's UUID and serial number by DMI", identity),
        // spec: LAB-35
        trial("a guest of a level has the level's processor and no more", level),
        // spec: LAB-5
        trial("the power button reaches the guest", power_button),
        // spec: LAB-5
        trial("what is typed on the console reaches the guest", console_input),
        // spec: LAB-5
        trial("a paused guest goes on where it was", pause),
        // spec: LAB-21
        trial("a guest goes on counting from a snapshot in a new process", snapshot),
        // spec: LAB-5
        trial("kill ends a guest that does nothing by itself", kill),
    ]
}

/// Boots a guest whose last word is `end`; `more` are texts and commands of `vmm-boot`.
fn boot(kernel: &str, processors: u32, mebibytes: u32, words: &str, more: &str) -> Finished {
    let script = format!(
        "vmm-boot $LAB/guest/{kernel} $LAB/guest/initrd 'console=ttyS0 panic=-1 quiet {words}' {processors} {mebibytes} {more}"
    );
    let mut finished = crate::run(&format!("a guest with {words}"), &script, LIMIT);
    // A terminal's lines.
    finished.output = finished.output.replace('\r', "");
    assert_eq!(finished.code, 0, "{finished}");
    finished
}

fn ended(finished: &Finished, how: &str) {
    assert!(finished.output.contains(&format!("\nvmm-boot: ended {how}")), "expected {how}\n{finished}");
}

fn reaches_init(kernel: &str, processors: u32, mebibytes: u32) {
    let finished = boot(kernel, processors, mebibytes, "lab.end=poweroff", "");
    ended(&finished, "PoweredOff");
    let line = finished.output.lines().find(|line| line.starts_with("guest: init with ")).map(str::to_owned);
    let line = line.unwrap_or_else(|| panic!("init has not started\n{finished}"));
    let numbers: Vec<u32> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [seen, kibibytes] = numbers[..] else { panic!("{line}") };
    assert_eq!(seen, processors, "{finished}");
    // The kernel keeps a part for itself.
    let given = mebibytes * 1024;
    assert!((given / 2..given).contains(&kibibytes), "{finished}");
}

fn guest_resets() {
    ended(&boot("vmlinux", 1, 128, "lab.end=reboot", ""), "Reset { by_guest: true }");
}

fn guest_crashes() {
    ended(&boot("vmlinux", 1, 128, "lab.end=panic", ""), "Crashed");
}

fn power_button() {
    let finished = boot("vmlinux", 2, 128, "lab.end=button", "'guest: waits for the button' power-button");
    assert!(finished.output.contains("guest: the button was pressed"), "{finished}");
    ended(&finished, "PoweredOff");
}

fn console_input() {
    let finished = boot(
        "vmlinux",
        1,
        128,
        "lab.end=stay",
        "'guest: shell' 'type echo $((6 * 7))-typed' '42-typed' 'type poweroff -f'",
    );
    ended(&finished, "PoweredOff");
}

fn pause() {
    let finished = boot("vmlinux", 2, 128, "lab.end=stay", "'/ # ' pause '' 'type poweroff -f'");
    // The guest's shell may write between them: it asks the terminal for the cursor's place.
    let paused = finished.output.split_once("vmm-boot: Paused\n").map(|(_, after)| after);
    assert!(paused.is_some_and(|after| after.contains("vmm-boot: Running\n")), "{finished}");
    ended(&finished, "PoweredOff");
}

fn snapshot() {
    let count =
        "n=0; while [ $n -lt 7 ]; do n=$((n + 1)); echo count $n; sleep 1; done; dmesg | grep -i 'lockup\\|stall'";
    let words = format!("lab.run={} lab.end=poweroff", base64::encode(count.as_bytes()));
    let again = "VMM_SNAPSHOT=/tmp/snapshot vmm-boot $LAB/guest/vmlinux $LAB/guest/initrd '' 2 128";
    // A machine with other parts does not go on from it.
    let other = "VMM_SNAPSHOT=/tmp/snapshot vmm-boot $LAB/guest/vmlinux $LAB/guest/initrd '' 1 128 || true";
    let more = format!("'count 3' 'save /tmp/snapshot'; {again}; {other}; rm -r /tmp/snapshot");
    let finished = boot("vmlinux", 2, 128, &words, &more);
    let (before, after) = finished.output.split_once("vmm-boot: saved Ok(())\n").unwrap_or_default();
    assert!(before.contains("count 3") && !before.contains("count 4"), "{finished}");
    assert!(after.contains("vmm-boot: ended Killed"), "{finished}");
    let counts: Vec<_> = after.lines().filter_map(|line| line.strip_prefix("count ")).collect();
    assert_eq!(counts, ["4", "5", "6", "7"], "{finished}");
    assert!(!["lockup", "stall"].iter().any(|word| after.contains(word)), "{finished}");
    assert!(after.contains("what: \"processors\", expected: 1, found: 2"), "{finished}");
    ended(&finished, "PoweredOff");
}

fn kill() {
    ended(&boot("vmlinux", 1, 128, "lab.end=stay", "'guest: shell' kill"), "Killed");
}

fn identity() {
    let script = "cd /sys/class/dmi/id; cat product_uuid product_serial sys_vendor product_name";
    let words = format!("lab.run={} lab.end=poweroff", base64::encode(script.as_bytes()));
    let finished = boot("vmlinux", 1, 128, &words, "");
    let expected = "00112233-4455-6677-8899-aabbccddeeff\nvmm-boot\nTapvisor\nVM\n";
    assert!(finished.output.contains(expected), "{finished}");
}

fn level() {
    let script = "grep -m1 'model name' /proc/cpuinfo; grep -m1 flags /proc/cpuinfo";
    let words = format!("lab.run={} lab.end=poweroff", base64::encode(script.as_bytes()));
    let guest = format!("vmm-boot $LAB/guest/vmlinux $LAB/guest/initrd 'console=ttyS0 panic=-1 quiet {words}' 2 128");
    let finished =
        crate::run("a level", &format!("VMM_CPU=x86-64-v3 {guest}; VMM_CPU=x86-64-v9 {guest} || true"), LIMIT);
    let output = finished.output.replace('\r', "");
    assert!(output.contains("model name\t: x86-64-v3\n"), "{finished}");
    let flags = output.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    // Of AVX there is nothing in the emulated host: its KVM gives the state of a guest's XSAVE another size than Linux counts.
    for flag in ["bmi1", "bmi2", "movbe", "popcnt", "sse4_2", "hypervisor", "arat"] {
        assert!(has(flag), "{flag}\n{finished}");
    }
    // The host's processor has these.
    for flag in ["svm", "aes", "rdrand", "smep", "sse4a"] {
        assert!(!has(flag), "{flag}\n{finished}");
    }
    assert!(output.contains("\nvmm-boot: ended PoweredOff"), "{finished}");
    assert!(output.contains("no processor is called x86-64-v9"), "{finished}");
}

fn random_bytes() {
    let script = "cat /sys/class/misc/hw_random/rng_current; head -c 6000 /dev/hwrng | wc -c; grep virtio0-input /proc/interrupts";
    let words = format!("lab.run={} lab.end=poweroff", base64::encode(script.as_bytes()));
    let finished = boot("vmlinux", 2, 128, &words, "");
    ended(&finished, "PoweredOff");
    assert!(finished.output.contains("virtio_rng.0\n6000\n"), "{finished}");
    let line = finished.output.lines().find(|line| line.contains("virtio0-input")).unwrap_or_default();
    let counts = line.split_whitespace().skip(1).map_while(|word| word.parse::<u32>().ok());
    assert!(line.contains("PCI-MSI") && counts.sum::<u32>() > 0, "{finished}");
}
