//! Whether the VM runs at all.

use super::{Case, Findings, Words};
use crate::explanation::{Code, Severity};
use crate::record::Phase;
use protocol::control::State;

pub(super) fn diagnose(case: &Case<'_>, findings: &mut Findings) {
    let status = &case.seen.status;
    if matches!(status.phase, Phase::Stopped | Phase::Succeeded | Phase::Failed | Phase::CrashLoopBackOff) {
        let why = status.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let remedy = match status.phase {
            Phase::CrashLoopBackOff => {
                format!("It is tried again by itself; {} may say why it ends.", status.logs())
            }
            _ => format!("{}; {} may say why it ended.", status.start(), status.logs()),
        };
        let words = Words::new(
            format!("the VM is {:?}{why}", status.phase),
            "There is no guest, and unless it is about to be started again no network of it either.",
            remedy,
        );
        findings.add(Severity::Error, Code::NotRunning, None, "guest", words);
        return;
    }
    if let Err(why) = &case.seen.pod {
        let words = Words::new(
            format!("the network namespace {} cannot be read: {why}", case.netns()),
            "The VM has no network.",
            status.rewire(),
        );
        findings.add(Severity::Error, Code::NamespaceGone, None, case.netns(), words);
    }
    match &case.seen.launcher {
        Err(why) => {
            let words = Words::new(
                format!("the launcher does not answer on its control socket: {why}"),
                "The VM is still starting, or its process hangs; DHCP and router solicitations get no answer until it responds.",
                format!("See {}.", status.launcher_log()),
            );
            findings.add(Severity::Error, Code::LauncherSilent, None, "launcher", words);
        }
        Ok(launcher) if launcher.state == State::Paused => {
            let why = status.reason.as_ref().filter(|_| status.phase == Phase::Paused);
            let remedy = status.unpause();
            let words = Words::new(
                format!("the guest's processors are stopped{}", why.map(|why| format!(": {why}")).unwrap_or_default()),
                "The guest answers nothing until they run again.",
                if why.is_some() { format!("Mend that, then {remedy}.") } else { remedy },
            );
            findings.add(Severity::Error, Code::Paused, None, "guest", words);
        }
        Ok(_) => {}
    }
}
