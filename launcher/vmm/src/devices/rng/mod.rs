//! The entropy source, virtio-rng (Virtual I/O Device 1.2, §5.4): buffers of the guest are filled with the host's random bytes.

mod device;
mod queue;
mod spec;
#[cfg(test)]
mod tests;

pub(crate) use device::Rng;
