//! Which fields stay out of JSON.

/// Whether a field has its type's default, which readers assume where the field is absent.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
