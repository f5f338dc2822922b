//! The clock.

use super::spec::{
    A_TIME_BASE, B_24_HOURS, CENTURY, D_VALID, DAY, HOURS, INDEX_MASK, MINUTES, MONTH, REGISTERS, SECONDS, STATUS_A,
    STATUS_B, STATUS_C, STATUS_D, WEEKDAY, YEAR,
};

const DAY_SECONDS: u64 = 86_400;

/// The index register and the memory behind it.
#[derive(Debug)]
pub(crate) struct Rtc {
    pub(super) index: u8,
    pub(super) memory: [u8; REGISTERS],
}

impl Default for Rtc {
    fn default() -> Self {
        Self { index: 0, memory: [0; REGISTERS] }
    }
}

impl Rtc {
    /// What was written to the index register.
    pub(crate) fn index(&self) -> u8 {
        self.index
    }

    /// Chooses a register.
    pub(crate) fn set_index(&mut self, index: u8) {
        self.index = index;
    }

    /// The chosen register at `now`, seconds of Unix.
    pub(crate) fn read(&self, now: u64) -> u8 {
        let date = Date::of(now);
        match self.index & INDEX_MASK {
            SECONDS => bcd(now % 60),
            MINUTES => bcd(now / 60 % 60),
            HOURS => bcd(now / 3600 % 24),
            // 1970-01-01 was a Thursday; Sunday is 1.
            WEEKDAY => bcd((now / DAY_SECONDS + 4) % 7 + 1),
            DAY => bcd(date.day),
            MONTH => bcd(date.month),
            YEAR => bcd(date.year % 100),
            CENTURY => bcd(date.year / 100),
            STATUS_A => A_TIME_BASE,
            STATUS_B => B_24_HOURS,
            STATUS_C => 0,
            STATUS_D => D_VALID,
            register => self.memory.get(usize::from(register)).copied().unwrap_or(0xff),
        }
    }

    /// Writes the chosen register. The clock's own are not the guest's to set.
    pub(crate) fn write(&mut self, value: u8) {
        let register = self.index & INDEX_MASK;
        if register > STATUS_D
            && register != CENTURY
            && let Some(byte) = self.memory.get_mut(usize::from(register))
        {
            *byte = value;
        }
    }
}

fn bcd(value: u64) -> u8 {
    u8::try_from(value / 10 % 10 * 16 + value % 10).unwrap_or_default()
}

struct Date {
    year: u64,
    month: u64,
    day: u64,
}

impl Date {
    /// The day of the Gregorian calendar. Years are counted from March, so that the leap day is a year's last.
    fn of(now: u64) -> Self {
        const ERA_DAYS: u64 = 146_097;
        // From 0000-03-01 to 1970-01-01.
        let days = now / DAY_SECONDS + 719_468;
        let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day_of_year + 2) / 153;
        let of_march = month < 10;
        Self {
            year: era * 400 + year + u64::from(!of_march),
            month: if of_march { month + 3 } else { month - 9 },
            day: day_of_year - (153 * month + 2) / 5 + 1,
        }
    }
}
