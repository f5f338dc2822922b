//! The options area: read with overload and joined parts, written split and overloaded where it must be.

use std::collections::BTreeMap;

use super::codes::{END, OVERLOAD, PAD, SEARCH};
use crate::bytes::Bytes;
use crate::names::Compressed;

/// Bits of the overload option: which header fields hold options (RFC 2132 §9.3).
const IN_FILE: u8 = 1;
const IN_SNAME: u8 = 2;
/// Bytes of the overload option itself.
const OVERLOAD_BYTES: usize = 3;

/// Options by code. Parts of one option are joined in the order options, file, sname (RFC 3396 §5).
#[derive(Debug, Default)]
pub(crate) struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    /// Reads the three areas. An option that is cut short ends its area; what came before it counts.
    pub(crate) fn parse(area: &[u8], file: &[u8], sname: &[u8]) -> Self {
        let mut options = Self::default();
        options.read(area);
        let overload = options.0.get(&OVERLOAD).and_then(|value| value.first()).copied().unwrap_or(0);
        if overload & IN_FILE != 0 {
            options.read(file);
        }
        if overload & IN_SNAME != 0 {
            options.read(sname);
        }
        options
    }

    fn read(&mut self, area: &[u8]) {
        let mut bytes = Bytes::new(area);
        while let Some(code) = bytes.u8() {
            match code {
                PAD => continue,
                END => return,
                _ => {}
            }
            let Some(value) = bytes.u8().and_then(|length| bytes.take(usize::from(length))) else { return };
            self.0.entry(code).or_default().extend(value);
        }
    }

    pub(crate) fn bytes(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    /// The value if it has exactly `N` bytes.
    pub(crate) fn array<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        self.bytes(code)?.try_into().ok()
    }
}

/// The three areas as they will be sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Areas {
    pub(crate) options: Vec<u8>,
    pub(crate) file: Vec<u8>,
    pub(crate) sname: Vec<u8>,
    /// Names of the search list that fit nowhere.
    pub(crate) search_left_out: usize,
}

/// Places options, the most important first, into `room` bytes and then into header fields of the given sizes (zero
/// for a field that is in use). What fits nowhere is left out; one option never spreads over two areas. The search list
/// comes last, where most of its names fit: it takes room from no other option.
pub(crate) fn place(
    options: &[(u8, Vec<u8>)],
    search: &Compressed,
    room: usize,
    file_room: usize,
    sname_room: usize,
) -> Areas {
    let mut areas = Areas::default();
    let search_bytes = if search.ends.is_empty() { 0 } else { encoded_bytes(search.wire.len()) };
    let all: usize = options.iter().map(|(_, value)| encoded_bytes(value.len())).sum::<usize>() + search_bytes;
    // Each area closes with an end mark.
    let overloaded = all + 1 > room;
    let room = if overloaded { room.saturating_sub(OVERLOAD_BYTES) } else { room };
    for (code, value) in options {
        let bytes = encoded_bytes(value.len());
        let fits = |area: &Vec<u8>, room: usize| area.len() + bytes < room;
        if fits(&areas.options, room) {
            push(&mut areas.options, *code, value);
        } else if fits(&areas.file, file_room) {
            push(&mut areas.file, *code, value);
        } else if fits(&areas.sname, sname_room) {
            push(&mut areas.sname, *code, value);
        }
    }
    areas.push_search(search, [room, file_room, sname_room]);
    let close = |area: &mut Vec<u8>, bit: u8| {
        if area.is_empty() {
            return 0;
        }
        area.push(END);
        bit
    };
    let overload = close(&mut areas.file, IN_FILE) | close(&mut areas.sname, IN_SNAME);
    if overload != 0 {
        push(&mut areas.options, OVERLOAD, &[overload]);
    }
    areas.options.push(END);
    areas
}

impl Areas {
    fn push_search(&mut self, search: &Compressed, rooms: [usize; 3]) {
        let areas = [&mut self.options, &mut self.file, &mut self.sname];
        let fitting = |area: &Vec<u8>, room: usize| {
            search.ends.iter().take_while(|end| area.len() + encoded_bytes(**end) < room).count()
        };
        let counted = areas.into_iter().zip(rooms).map(|(area, room)| (fitting(area, room), area));
        // Of equals the first area: not every client reads the others.
        let best = counted.reduce(|best, next| if next.0 > best.0 { next } else { best });
        let (count, area) = best.map_or((0, None), |(count, area)| (count, Some(area)));
        let last = count.checked_sub(1).and_then(|last| search.ends.get(last));
        if let Some((area, wire)) = area.zip(last.and_then(|end| search.wire.get(..*end))) {
            push(area, SEARCH, wire);
        }
        self.search_left_out = search.ends.len() - count;
    }
}

/// Values above 255 bytes are split (RFC 3396 §7); an empty one still has a header.
fn encoded_bytes(value_bytes: usize) -> usize {
    value_bytes + 2 * value_bytes.div_ceil(255).max(1)
}

fn push(area: &mut Vec<u8>, code: u8, value: &[u8]) {
    if value.is_empty() {
        area.extend([code, 0]);
    }
    for part in value.chunks(255) {
        area.push(code);
        area.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
        area.extend(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_across_all_three_areas() {
        let options = Options::parse(&[52, 1, 3, 43, 1, 1, 255, 9], &[43, 1, 2, 255], &[0, 43, 1, 3]);
        assert_eq!(options.bytes(43), Some(&[1, 2, 3][..]));
    }

    #[test]
    fn header_fields_are_text_unless_overloaded() {
        assert_eq!(Options::parse(&[255], &[43, 1, 2], &[43, 1, 3]).bytes(43), None);
    }

    #[test]
    fn an_option_cut_short_ends_its_area() {
        let options = Options::parse(&[53, 1, 1, 61, 9, 1], &[], &[]);
        assert_eq!((options.bytes(53), options.bytes(61)), (Some(&[1][..]), None));
    }

    #[test]
    fn a_long_value_is_split_and_comes_back_whole() {
        let value: Vec<u8> = (0..600_u16).map(|n| n.to_be_bytes()[1]).collect();
        let areas = place(&[(121, value.clone())], &Compressed::default(), 1000, 0, 0);
        assert_eq!(areas.options.len(), 600 + 3 * 2 + 1);
        assert_eq!(Options::parse(&areas.options, &[], &[]).bytes(121), Some(&value[..]));
    }

    #[test]
    fn what_does_not_fit_moves_to_file_then_sname_then_nowhere() {
        let options: Vec<_> = (1..=5).map(|code| (code, vec![code; 50])).collect();
        let areas = place(&options, &Compressed::default(), 60, 128, 64);
        assert!(areas.options.len() <= 60 && areas.file.len() <= 128 && areas.sname.len() <= 64);
        let read = Options::parse(&areas.options, &areas.file, &areas.sname);
        let seen: Vec<u8> = (1..=5).filter(|code| read.bytes(*code).is_some()).collect();
        assert_eq!(seen, [1, 2, 3, 4]);
        assert_eq!(read.bytes(52), Some(&[3][..]));
    }

    #[test]
    fn fields_in_use_are_left_alone() {
        let areas = place(&[(1, vec![1; 50]), (2, vec![2; 50])], &Compressed::default(), 60, 0, 0);
        assert!(areas.file.is_empty() && areas.sname.is_empty());
        assert_eq!(areas.options.len(), 53);
    }
}
