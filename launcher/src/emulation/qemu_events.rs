//! QEMU's events: those that concern the machine, and how it ended once QEMU has exited.

use machine::WatchdogAction;
use serde_json::{Map, Value};

use super::command_line::AGENT_PORT;
use super::process::Exit;
use super::qmp::shortened;
use crate::engine::{Ending, Event};

/// What QEMU has reported so far.
#[derive(Debug, Default)]
pub(crate) struct QemuEvents {
    disks: Vec<String>,
    shutdown: Option<String>,
    panic: Option<String>,
    watchdog: bool,
}

impl QemuEvents {
    /// For a machine with disks of these names.
    pub(crate) fn of(disks: Vec<String>) -> Self {
        Self { disks, ..Self::default() }
    }

    /// Takes one event of `qapi/run-state.json` or `qapi/block-core.json`.
    pub(crate) fn on(&mut self, name: &str, data: &Map<String, Value>) -> Option<Event> {
        let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default();
        match name {
            "RESUME" => {
                // A machine that runs again was kept at its guest's shutdown.
                self.shutdown = None;
                Some(Event::Running)
            }
            "STOP" => Some(Event::Paused),
            "RESET" => Some(Event::Reset { by_guest: data.get("guest").and_then(Value::as_bool).unwrap_or_default() }),
            "SHUTDOWN" => {
                self.shutdown = Some(shortened(text("reason")));
                (text("reason") == "guest-shutdown").then_some(Event::ShutDown)
            }
            "GUEST_PANICKED" => {
                let info = data.get("info").map(|info| shortened(&format!("guest panic, {info}")));
                self.panic = Some(info.unwrap_or_else(|| "the guest's kernel panicked".to_owned()));
                None
            }
            "WATCHDOG" => {
                let action = match text("action") {
                    "poweroff" => WatchdogAction::Poweroff,
                    "shutdown" => WatchdogAction::Shutdown,
                    _ => WatchdogAction::Reset,
                };
                self.watchdog |= action != WatchdogAction::Reset;
                Some(Event::Watchdog(action))
            }
            "VSERPORT_CHANGE" if text("id") == AGENT_PORT => {
                Some(Event::AgentPort { is_open: data.get("open").and_then(Value::as_bool).unwrap_or_default() })
            }
            "BLOCK_IO_ERROR" => Some(self.disk_failed(data)),
            _ => None,
        }
    }

    /// How the machine ended, from the events so far and QEMU's exit.
    pub(crate) fn ending(self, exit: &Exit) -> Ending {
        if let Some(reason) = self.panic {
            return Ending::Crashed { reason };
        }
        // The watchdog's power-off is an exit on the spot, without SHUTDOWN.
        if self.watchdog {
            return Ending::Watchdog;
        }
        match self.shutdown.as_deref() {
            Some("guest-shutdown") if exit.is_success() => Ending::PoweredOff,
            Some("guest-reset") if exit.is_success() => Ending::Rebooted,
            Some("guest-panic") => Ending::Crashed { reason: "the guest's kernel panicked".to_owned() },
            Some("host-signal" | "host-qmp-quit") if exit.is_success() => Ending::Killed,
            _ => Ending::Failed { reason: exit.describe() },
        }
    }

    fn disk_failed(&mut self, data: &Map<String, Value>) -> Event {
        let text = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default();
        // `device` is empty for disks made with -blockdev; the node's name holds our index.
        let number = |name: &str| name.trim_start_matches("disk").split('-').next()?.parse::<usize>().ok();
        let disk = number(text("node-name")).and_then(|index| self.disks.get(index));
        Event::DiskFailed {
            disk: disk.map_or_else(|| shortened(text("node-name")), Clone::clone),
            reason: shortened(text("reason")),
            paused: text("action") == "stop",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::super::process::Process;
    use super::*;

    fn exit(script: &str) -> Exit {
        let arguments = ["-c".into(), script.into()];
        Process::follow(Process::spawn(Path::new("/bin/sh"), &arguments, &[], None).unwrap()).wait()
    }

    fn ending(events: &[(&str, Value)], script: &str) -> Ending {
        let mut events_so_far = QemuEvents::of(vec!["root".into()]);
        for (name, data) in events {
            events_so_far.on(name, data.as_object().unwrap());
        }
        events_so_far.ending(&exit(script))
    }

    // spec: LAUNCH-4
    #[test]
    fn power_off_crash_watchdog_and_kill_are_told_apart() {
        let shutdown = |reason: &str| ("SHUTDOWN", json!({"guest": true, "reason": reason}));
        let panicked = ("GUEST_PANICKED", json!({"action": "shutdown"}));
        assert_eq!(ending(&[shutdown("guest-shutdown")], "exit 0"), Ending::PoweredOff);
        assert_eq!(ending(&[shutdown("guest-reset")], "exit 0"), Ending::Rebooted);
        assert_eq!(ending(&[shutdown("host-signal")], "exit 0"), Ending::Killed);
        assert!(matches!(ending(&[panicked, shutdown("guest-panic")], "exit 0"), Ending::Crashed { .. }));
        assert_eq!(ending(&[("WATCHDOG", json!({"action": "poweroff"}))], "exit 0"), Ending::Watchdog);
        let rebooted = [shutdown("guest-shutdown"), ("RESUME", json!({}))];
        assert!(matches!(ending(&rebooted, "exit 0"), Ending::Failed { .. }), "that shutdown was not the end");
        let after_reset = [("WATCHDOG", json!({"action": "reset"})), shutdown("guest-shutdown")];
        assert_eq!(ending(&after_reset, "exit 0"), Ending::PoweredOff);
    }

    #[test]
    fn a_vanished_or_failing_qemu_is_a_failure_with_its_words() {
        let Ending::Failed { reason } = ending(&[], "echo boom >&2; exit 1") else { panic!() };
        assert_eq!(reason, "QEMU exited with code 1: boom");
        let Ending::Failed { reason } = ending(&[], "kill -9 $$") else { panic!() };
        assert_eq!(reason, "QEMU was killed by signal 9");
    }

    #[test]
    fn a_full_disk_names_the_disk() {
        let data = json!({"device": "", "node-name": "disk0", "reason": "No space left on device", "action": "stop",
            "nospace": true, "operation": "write"});
        let event = QemuEvents::of(vec!["root".into()]).on("BLOCK_IO_ERROR", data.as_object().unwrap());
        let reason = "No space left on device".to_owned();
        assert_eq!(event, Some(Event::DiskFailed { disk: "root".into(), reason, paused: true }));
    }
}
