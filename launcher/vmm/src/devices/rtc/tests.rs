//! Tests of the clock.

use super::spec::{CENTURY, DAY, HOURS, MINUTES, MONTH, SECONDS, STATUS_A, STATUS_D, WEEKDAY, YEAR};
use super::{Rtc, state::RtcState};
use crate::devices::golden;

fn reads(rtc: &mut Rtc, now: u64, register: u8) -> u8 {
    rtc.set_index(register);
    rtc.read(now)
}

#[test]
fn the_clock_shows_utc_in_bcd() {
    let mut rtc = Rtc::default();
    // By `date -u -d @N '+%C %y %m %d %u %H %M %S'`.
    let cases = [
        (0, [0x19, 0x70, 0x01, 0x01, 5, 0x00, 0x00, 0x00]),
        (951_782_399, [0x20, 0x00, 0x02, 0x28, 2, 0x23, 0x59, 0x59]),
        (951_868_800, [0x20, 0x00, 0x03, 0x01, 4, 0x00, 0x00, 0x00]),
        (4_107_542_400, [0x21, 0x00, 0x03, 0x01, 2, 0x00, 0x00, 0x00]),
        (1_735_689_599, [0x20, 0x24, 0x12, 0x31, 3, 0x23, 0x59, 0x59]),
    ];
    for (now, expected) in cases {
        let registers = [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS];
        assert_eq!(registers.map(|register| reads(&mut rtc, now, register)), expected, "{now}");
    }
}

#[test]
fn the_guest_sets_memory_but_not_the_clock() {
    let mut rtc = Rtc::default();
    for register in 0..=u8::MAX {
        rtc.set_index(register);
        rtc.write(0x5a);
    }
    assert_eq!(reads(&mut rtc, 0, SECONDS), 0);
    assert_eq!(reads(&mut rtc, 0, STATUS_A), 0x20);
    assert_eq!(reads(&mut rtc, 0, STATUS_D), 0x80);
    assert_eq!(reads(&mut rtc, 0, 0x0f), 0x5a);
    assert_eq!(reads(&mut rtc, 0, 0xff), 0x5a);
}

// spec: LAB-6
#[test]
fn a_saved_clock_is_restored_as_it_was() {
    let mut rtc = Rtc::default();
    rtc.set_index(0x0f);
    rtc.write(7);
    let state: RtcState = golden("rtc", &rtc.save());
    let mut restored = Rtc::restore(&state);
    assert_eq!(restored.index(), 0x0f);
    assert_eq!(reads(&mut restored, 0, 0x0f), 7);
}
