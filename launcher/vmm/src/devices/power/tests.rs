//! Tests of the power registers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::device::Line;
use super::state::PowerState;
use super::{Power, PowerRequest};
use crate::devices::golden;

fn line() -> (Arc<AtomicBool>, Line) {
    let level = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&level);
    (level, Box::new(move |active| set.store(active, Ordering::Relaxed)))
}

#[test]
fn the_power_button_interrupts_until_the_guest_has_seen_it() {
    let (level, set) = line();
    let mut power = Power::new(set);
    power.press();
    assert!(!level.load(Ordering::Relaxed), "the guest has not enabled it yet");
    power.write(3, 1);
    assert!(level.load(Ordering::Relaxed));
    assert_eq!(power.read(1, Duration::ZERO), 1);
    power.write(1, 0xfe);
    assert!(level.load(Ordering::Relaxed), "another bit clears nothing");
    power.write(1, 1);
    assert!(!level.load(Ordering::Relaxed));
    assert_eq!(power.read(1, Duration::ZERO), 0);
}

#[test]
fn only_s5_switches_the_machine_off() {
    for sleep_type in 0..8 {
        let mut power = Power::new(line().1);
        let value = sleep_type << 2;
        assert_eq!(power.write(5, value), None, "without SLP_EN");
        let expected = (sleep_type == 5).then_some(PowerRequest::Off);
        assert_eq!(power.write(5, value | 1 << 5), expected, "{sleep_type}");
        assert_eq!(power.read(5, Duration::ZERO), value, "SLP_EN reads as zero");
        assert_eq!(power.read(4, Duration::ZERO), 1, "SCI_EN is always on");
    }
}

#[test]
fn the_timer_counts_at_its_frequency_and_wraps() {
    let power = Power::new(line().1);
    let read = |now| u32::from_le_bytes([8, 9, 10, 11].map(|register| power.read(register, now)));
    assert_eq!(read(Duration::ZERO), 0);
    assert_eq!(read(Duration::from_secs(1)), 3_579_545);
    assert_eq!(u128::from(read(Duration::from_secs(4000))), 4000 * 3_579_545 % (1 << 32));
}

#[test]
fn registers_that_are_none_read_as_all_ones() {
    let mut power = Power::new(line().1);
    for register in [6, 7, 12, 255] {
        assert_eq!(power.write(register, 0xff), None);
        assert_eq!(power.read(register, Duration::ZERO), 0xff);
    }
}

// spec: LAB-6
#[test]
fn a_pressed_button_survives_a_snapshot() {
    let mut power = Power::new(line().1);
    power.write(3, 1);
    power.press();
    let state: PowerState = golden("power", &power.save());
    let (level, set) = line();
    let restored = Power::restore(&state, set);
    assert!(level.load(Ordering::Relaxed));
    assert_eq!(restored.save(), state);
}
