//! A structure of the kernel's interface in a document: its bytes in base64. The kernel keeps these structures as they are.

use std::fmt;

use machine::base64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The structure.
#[derive(Clone, Copy)]
pub(crate) struct KernelBytes<T>(pub(crate) T);

impl<T: IntoBytes + Immutable> PartialEq for KernelBytes<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes() == other.0.as_bytes()
    }
}

impl<T: IntoBytes + Immutable> Eq for KernelBytes<T> {}

impl<T> fmt::Debug for KernelBytes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KernelBytes({})", std::any::type_name::<T>())
    }
}

impl<T: IntoBytes + Immutable> Serialize for KernelBytes<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::encode(self.0.as_bytes()))
    }
}

impl<'de, T: FromBytes> Deserialize<'de> for KernelBytes<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = base64::decode(&text).ok_or_else(|| D::Error::custom("expected base64"))?;
        let value = T::read_from_bytes(&bytes);
        let wrong = |_| D::Error::custom(format!("expected {} bytes, found {}", size_of::<T>(), bytes.len()));
        value.map(Self).map_err(wrong)
    }
}
