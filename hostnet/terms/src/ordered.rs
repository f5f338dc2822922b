//! Short lists in order, filled one by one.
//!
//! *Why not `sort`.* The standard library's takes several KB of code for each type of element, which every call of the plugin
//! would have in memory; our lists have a handful of elements.

use std::cmp::Ordering;

/// Puts `item` into an ordered list, after those that compare as equal.
pub fn insert_ordered<T>(list: &mut Vec<T>, item: T, mut compare: impl FnMut(&T, &T) -> Ordering) {
    let at = list.partition_point(|earlier| compare(earlier, &item) != Ordering::Greater);
    list.insert(at, item);
}

/// An ordered list of items, each once.
pub fn ordered_once<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut list = Vec::new();
    for item in items {
        if let Err(at) = list.binary_search(&item) {
            list.insert(at, item);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_ordered_equal_ones_stay_in_their_order() {
        let mut list = Vec::new();
        for item in [(2, 'a'), (1, 'b'), (2, 'c'), (0, 'd'), (1, 'e')] {
            insert_ordered(&mut list, item, |one, other| one.0.cmp(&other.0));
        }
        assert_eq!(list, [(0, 'd'), (1, 'b'), (1, 'e'), (2, 'a'), (2, 'c')]);
        assert_eq!(ordered_once([3, 1, 3, 2, 1]), [1, 2, 3]);
        assert_eq!(ordered_once(Vec::<u8>::new()), []);
    }
}
