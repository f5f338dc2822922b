//! Firmware, direct kernel boot, ACPI, and the machine's switches that decide nothing here.

use super::ImagePullPolicy;
use super::texts::read_path;
use super::volume::{read_image, read_pull_policy, read_pull_secret};
use crate::reader::{Fields, Node, Scope};

/// Firmware, SMBIOS identity and direct kernel boot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Firmware {
    /// Whether the guest has no ACPI and no power button.
    pub without_acpi: bool,
    /// SMBIOS system UUID, lower-case, 36 characters.
    pub uuid: Option<String>,
    /// SMBIOS system serial number.
    pub serial: Option<String>,
    /// A kernel that is booted without firmware.
    pub kernel_boot: Option<KernelBoot>,
}

/// A kernel from a container image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelBoot {
    /// Kernel command line.
    pub kernel_args: String,
    /// Where the files come from.
    pub container: KernelBootContainer,
}

/// Kernel and initial RAM disk in a container image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelBootContainer {
    /// Image reference.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: ImagePullPolicy,
    /// Secret to pull it with.
    pub pull_secret: Option<String>,
    /// The kernel's absolute path in the image.
    pub kernel_path: String,
    /// The initial RAM disk's absolute path in the image.
    pub initrd_path: Option<String>,
}

/// Reads `firmware`, `machine`, `clock` and `features` of a domain.
pub(super) fn read(domain: &Fields<'_>) -> Firmware {
    if let Some(machine) = domain.field("machine") {
        machine.fields(read_machine);
    }
    if let Some(clock) = domain.field("clock") {
        clock.fields(read_clock);
    }
    let without_acpi = domain.field("features").and_then(|features| features.fields(read_features));
    let firmware = domain.field("firmware").and_then(|node| node.fields(read_firmware)).unwrap_or_default();
    Firmware { without_acpi: without_acpi.unwrap_or_default(), ..firmware }
}

/// The guest sees the same machine by either name; a version after it promises what no engine here keeps.
fn read_machine(machine: &Fields<'_>) {
    let Some(node) = machine.set("type") else { return };
    match node.text() {
        Some("q35" | "pc") | None => {}
        Some(name) if name.starts_with("pc-q35-") || name.starts_with("pc-i440fx-") => {
            node.warn(Scope::Everywhere, "the engine's current machine is used");
        }
        Some(name) => node.refuse_unsupported(format!("{name:?}, the machine is q35")),
    }
}

fn read_clock(clock: &Fields<'_>) {
    clock.unsupported_because("timezone", "the guest's clock starts at UTC");
    if let Some(utc) = clock.field("utc") {
        utc.fields(|utc| utc.unsupported_because("offsetSeconds", "the guest's clock starts at UTC"));
    }
    clock.ignored(Scope::Everywhere, "the engine chooses its timers", &["timer"]);
}

/// Whether ACPI is switched off.
fn read_features(features: &Fields<'_>) -> bool {
    features.unsupported(&["hyperv", "hypervPassthrough", "smm"]);
    features.ignored(Scope::Everywhere, "the engine chooses it", &["pvspinlock"]);
    let acpi = features.field("acpi").and_then(|node| node.fields(|acpi| acpi.boolean("enabled"))?);
    if let Some(node) = features.field("apic") {
        node.fields(|apic| {
            apic.ignored(Scope::Everywhere, "the engine chooses it", &["endOfInterrupt"]);
            if let Some(enabled) = apic.field("enabled")
                && enabled.boolean() == Some(false)
            {
                enabled.refuse_unsupported("the machine always has an APIC");
            }
        });
    }
    if let Some(kvm) = features.field("kvm") {
        kvm.fields(|kvm| kvm.unsupported(&["hidden"]));
    }
    acpi == Some(false)
}

fn read_firmware(firmware: &Fields<'_>) -> Firmware {
    firmware.unsupported(&["acpi"]);
    if let Some(bootloader) = firmware.field("bootloader") {
        bootloader.fields(|bootloader| {
            bootloader.unsupported_because("efi", "boot with bios or kernelBoot");
            // Firmware without a display always speaks on the serial console.
            if let Some(bios) = bootloader.field("bios") {
                bios.fields(|bios| bios.boolean("useSerial"));
            }
        });
    }
    Firmware {
        without_acpi: false,
        uuid: firmware.set("uuid").and_then(|node| read_uuid(&node)),
        serial: firmware.set("serial").and_then(|node| read_serial(&node)),
        kernel_boot: firmware.field("kernelBoot").and_then(|node| node.fields(read_kernel_boot)?),
    }
}

fn read_uuid(node: &Node<'_>) -> Option<String> {
    let text = node.text()?;
    let groups: Vec<_> = text.split('-').map(str::len).collect();
    if groups != [8, 4, 4, 4, 12] || !text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()) {
        node.expected("five groups of 8, 4, 4, 4 and 12 hexadecimal digits joined by '-'");
        return None;
    }
    Some(text.to_ascii_lowercase())
}

fn read_serial(node: &Node<'_>) -> Option<String> {
    let text = node.text()?;
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'+' | b'-');
    if text.len() > 256 || !text.bytes().all(good) {
        node.expected("at most 256 letters, digits, '_', '.', '+' and '-'");
        return None;
    }
    Some(text.to_owned())
}

fn read_kernel_boot(boot: &Fields<'_>) -> Option<KernelBoot> {
    let kernel_args = boot.field("kernelArgs").and_then(|node| read_kernel_args(&node)).unwrap_or_default();
    let container = boot.required("container")?.fields(|container| {
        let image = read_image(container);
        let pull_policy = read_pull_policy(container, image.as_deref());
        let pull_secret = read_pull_secret(container);
        let kernel = container.required("kernelPath").and_then(|node| read_path(&node));
        let initrd_path = container.set("initrdPath").and_then(|node| read_path(&node));
        Some(KernelBootContainer { image: image?, pull_policy, pull_secret, kernel_path: kernel?, initrd_path })
    })??;
    Some(KernelBoot { kernel_args, container })
}

fn read_kernel_args(node: &Node<'_>) -> Option<String> {
    let text = node.text()?;
    if text.contains(['\n', '\r', '\0']) || text.len() > 2047 {
        node.expected("one line of at most 2047 bytes");
    }
    Some(text.to_owned())
}
