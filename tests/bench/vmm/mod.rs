//! Our machine compared with Debian's QEMU, with the same KVM, kernel and tap, in the lab's host while it counts instructions.
//!
//! *Flow*: a script boots one VMM in the host and prints lines of a name and numbers; here they become rows.
//! *Assumptions*: there a nanosecond is an instruction of host's kernel, VMM or guest. Idle time passes at once.

mod network;
mod start;

use std::collections::BTreeMap;
use std::time::Duration;

use ::tests::dist_file;
use ::tests::lab::Lab;
pub(crate) use network::measure as measure_network;
pub(crate) use start::measure as measure_start;

/// Of the machine, not of the host, where time passes with instructions.
const LIMIT: Duration = Duration::from_secs(300);

/// Machine types that are compared; the first is ours.
const MACHINES: [(&str, &str); 3] =
    [("vmm-boot", "tapvisor"), ("microvm", "QEMU microvm (qboot)"), ("q35", "QEMU q35 (SeaBIOS)")];

/// What a script printed: numbers by their names.
#[derive(Debug)]
struct Counts(BTreeMap<String, Vec<u64>>);

impl Counts {
    fn of(output: &str) -> Self {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let name = words.next()?.to_owned();
            let numbers: Option<Vec<u64>> = words.map(|word| word.parse().ok()).collect();
            numbers.filter(|numbers| !numbers.is_empty()).map(|numbers| (name, numbers))
        };
        Self(output.lines().filter_map(line).collect())
    }

    /// The first number of a name.
    ///
    /// # Panics
    /// When the script printed none.
    fn one(&self, name: &str) -> u64 {
        let numbers = self.0.get(name).unwrap_or_else(|| panic!("the script printed no {name}: {self:?}"));
        numbers[0]
    }

    /// Numbers whose names begin so, the largest first.
    fn beginning(&self, prefix: &str) -> Vec<(&str, u64)> {
        let mut found: Vec<_> =
            self.0.iter().filter_map(|(name, numbers)| Some((name.strip_prefix(prefix)?, numbers[0]))).collect();
        found.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
        found
    }
}

fn lab() -> Lab {
    Lab::counting(["vmm-boot", "meter"].map(dist_file).to_vec())
}

/// Runs a script with variables.
///
/// # Panics
/// When it fails.
fn run(lab: &mut Lab, script: &str, variables: &[(&str, &str)]) -> Counts {
    let set: String = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let what = variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
    eprintln!("bench: {what}");
    let finished = lab.run(&what, &format!("{set}{script}"), LIMIT);
    assert_eq!(finished.code, 0, "{what}: {finished}");
    Counts::of(&finished.output)
}

/// Thousands or millions, by `unit`, with one digit behind the point.
fn in_units(number: u64, unit: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "figures of a report")]
    {
        number as f64 / unit as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_script_are_read_by_their_names() {
        let counts = Counts::of("vmm: starts\nudp 500 700\nkind:io 3\nkind:npf 9\nudp is fast\n");
        assert_eq!(counts.one("udp"), 500);
        assert_eq!(counts.beginning("kind:"), [("npf", 9), ("io", 3)]);
    }
}
