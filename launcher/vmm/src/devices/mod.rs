//! The devices of a machine. Each has the files `spec` (registers, with the section they come from), `device`, `state`
//! (what a snapshot keeps) and `tests`, and a virtio device `queue` as well; one of a single register is one file.

mod balloon;
mod debug_port;
#[cfg(test)]
mod driver;
mod i8042;
mod net;
mod power;
mod pvpanic;
mod rng;
mod rtc;
mod serial;

pub(crate) use balloon::Balloon;
pub(crate) use debug_port::DebugPort;
pub(crate) use i8042::I8042;
pub use net::{DataPath, NicReport, QueueCounts};
pub(crate) use net::{Net, NetSettings};
pub(crate) use power::state::PowerState;
pub(crate) use power::{EVENTS, POWER_BUTTON, Power, PowerRequest, S5_TYPE, SLEEP_CONTROL, SLEEP_STATUS};
pub(crate) use pvpanic::Pvpanic;
pub(crate) use rng::Rng;
pub(crate) use rtc::state::RtcState;
pub(crate) use rtc::{CENTURY as RTC_CENTURY, Rtc};
pub(crate) use serial::state::SerialState;
pub(crate) use serial::{Console, Serial};

/// Compares a state with its golden file and returns what is read back from it. A new field needs a new version or a default:
/// a snapshot of an older release must be readable.
#[cfg(test)]
pub(crate) fn golden<S>(name: &str, state: &S) -> S
where
    S: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/state/{name}.json"));
    let text = format!("{}\n", serde_json::to_string_pretty(state).unwrap());
    if std::env::var_os("TAPVISOR_REWRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, kept, "{} (TAPVISOR_REWRITE_GOLDEN=1 rewrites it)", path.display());
    let read: S = serde_json::from_str(&kept).unwrap();
    assert_eq!(&read, state);
    read
}
