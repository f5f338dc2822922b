//! Tests of the power registers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::device::Line;
use super::state::PowerState;
use super::{EVENTS, POWER_BUTTON, Power, PowerRequest, SLEEP_CONTROL, SLEEP_STATUS};
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
    assert!(!level.load(Ordering::Relaxed));
    power.press();
    assert!(level.load(Ordering::Relaxed));
    assert_eq!(power.read(EVENTS), POWER_BUTTON);
    power.write(EVENTS, !POWER_BUTTON);
    assert!(level.load(Ordering::Relaxed), "another bit clears nothing");
    power.write(EVENTS, POWER_BUTTON);
    assert!(!level.load(Ordering::Relaxed));
    assert_eq!(power.read(EVENTS), 0);
}

#[test]
fn only_s5_switches_the_machine_off() {
    for sleep_type in 0..8 {
        let mut power = Power::new(line().1);
        let value = sleep_type << 2;
        assert_eq!(power.write(SLEEP_CONTROL, value), None, "without SLP_EN");
        let expected = (sleep_type == 5).then_some(PowerRequest::Off);
        assert_eq!(power.write(SLEEP_CONTROL, value | 1 << 5), expected, "{sleep_type}");
        assert_eq!(power.read(SLEEP_CONTROL), value, "SLP_EN reads as zero");
        assert_eq!(power.write(SLEEP_STATUS, 0x80), None);
        assert_eq!(power.read(SLEEP_STATUS), 0);
    }
}

#[test]
fn registers_that_are_none_read_as_all_ones() {
    let mut power = Power::new(line().1);
    for register in [3, 12, 255] {
        assert_eq!(power.write(register, 0xff), None);
        assert_eq!(power.read(register), 0xff);
    }
}

// spec: LAB-6
#[test]
fn a_pressed_button_survives_a_snapshot() {
    let mut power = Power::new(line().1);
    power.press();
    let state: PowerState = golden("power", &power.save());
    let (level, set) = line();
    let restored = Power::restore(&state, set);
    assert!(level.load(Ordering::Relaxed));
    assert_eq!(restored.save(), state);
}
