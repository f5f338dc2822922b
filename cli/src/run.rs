//! `tapvisor run`: everything checked, then everything written down, then everything started, or nothing.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver};

use api::manifest::{MAX_BYTES, Object};
use machine::EngineDemand;
use terms::ObjectKey;

use super::arguments::Run;
use super::console::{self, Left};
use super::failure::{Exit, Failure};
use super::interrupt::{Interrupts, What};
use super::plugins::plugin_folders;
use super::progress::Progress;
use super::supervisor::{Line, Sender};
use super::{open_store, services, terminal};
use api::run_strategy::FinalPhase;
use runner::clock::unix_seconds;
use runner::host_files::{MadeFile, make_host_files, remove_host_files};
use runner::launch;
use runner::layout::Layout;
use runner::network::{Choices, Preflight, has_link};
use runner::plan::{self, PlanError, Planner, VmPlan};
use runner::protocol::{Report, Request};
use runner::start::{Written, start_supervisor, write_down};
use runner::store::Store;
use runner::supervisor::release_host;

/// Starts the VMs of a manifest and stays with them, or returns once they run.
pub(crate) fn run(arguments: &Run) -> Result<ExitCode, Failure> {
    let (objects, complaints) = manifest_of(manifest(arguments)?)?;
    if !complaints.is_empty() {
        return Err(with_look_ups(complaints, &objects, &arguments.network));
    }
    let interrupts = Interrupts::catch(What::New)?;
    let (store, _) = open_store()?;
    let engine = arguments.engine.map(Into::into);
    let plans = plan_with(&store, &objects, &arguments.network, engine, |planner| planner.plan(&objects))?;
    warn_of_ignored_fields(&objects);
    warn_of_disks(&plans);
    expect_devices(&plans)?;
    let written = write_down(&store, &plans, &plugin_folders(&store), arguments.detach, unix_seconds())?;
    let companions = match Companions::make(&store, &plans, &objects) {
        Ok(companions) => companions,
        Err(failure) => {
            forget(&store, &written);
            return Err(failure);
        }
    };
    let starts = |vm: &Written| plans.iter().any(|plan| plan.key == vm.key && plan.strategy.starts_by_itself());
    let (starting, resting): (Vec<_>, Vec<_>) = written.into_iter().partition(starts);
    let clean_up = |resting: &[Written]| {
        forget(&store, resting);
        companions.remove(&store)
    };
    let started = start_all(&store, starting, &interrupts);
    let guests = match started.and_then(|started| started.wait_until_all_run(&interrupts)) {
        Ok(guests) => guests,
        Err(failure) => {
            let left = clean_up(&resting).err();
            return Err(left.into_iter().fold(failure, Failure::with));
        }
    };
    if !arguments.detach {
        leave(resting);
        interrupts.all_run();
        let outcome = guests.stay(&store, &plans, &interrupts);
        return match (outcome, companions.remove_with_vms(&store, &plans)) {
            (Err(failure), Err(left)) => Err(failure.with(left)),
            (outcome, gone) => outcome.and_then(|code| gone.map(|()| code)),
        };
    }
    // An interrupt goes to started VMs alone: without one there is nothing to wait for.
    if interrupts.let_go() && !guests.guests.is_empty() {
        guests.wait_until_all_are_gone();
        let left = clean_up(&resting).err();
        return Err(left.into_iter().fold(interrupted(), Failure::with));
    }
    leave(resting);
    Ok(ExitCode::SUCCESS)
}

fn manifest(arguments: &Run) -> Result<&Path, Failure> {
    match (&arguments.operand, &arguments.file) {
        (None, Some(file)) => Ok(file),
        (Some(operand), None) => {
            let operand = operand.display();
            Err(Failure::new(Exit::Usage, format!("pass the manifest by -f: `tapvisor run -f {operand}`")))
        }
        (Some(operand), Some(_)) => {
            let message = format!("{}: unexpected argument, -f names the manifest already", operand.display());
            Err(Failure::new(Exit::Usage, message))
        }
        (None, None) => Err(Failure::new(Exit::Usage, "no manifest is given: -f FILE")),
    }
}

/// Reports the VMs that `tapvisor start` has to start.
fn leave(resting: Vec<Written>) {
    for vm in resting {
        terminal::line(&format!("{0} is not started by its run strategy: `tapvisor start {0}`", vm.key));
    }
}

/// What a manifest contains in addition to its VMs: files of disks to make, and Services.
struct Companions {
    host_files: Vec<MadeFile>,
    services: Vec<ObjectKey>,
}

impl Companions {
    /// Makes all of it, or nothing.
    fn make(store: &Store, plans: &[VmPlan], objects: &[Object]) -> Result<Self, Failure> {
        let wanted: Vec<_> = plans.iter().flat_map(|plan| plan.host_files.clone()).collect();
        let host_files = make_host_files(store.layout(), &wanted)?;
        match services::take_in(store, objects) {
            Ok(services) => Ok(Self { host_files, services }),
            Err(failure) => {
                remove_host_files(store.layout(), &host_files);
                Err(failure)
            }
        }
    }

    fn remove(&self, store: &Store) -> Result<(), Failure> {
        remove_host_files(store.layout(), &self.host_files);
        services::take_out(store, &self.services)
    }

    /// Removes the Services if this command started VMs and all of them are removed. Services of a manifest without VMs stay.
    fn remove_with_vms(&self, store: &Store, plans: &[VmPlan]) -> Result<(), Failure> {
        let has_started = plans.iter().any(|plan| plan.strategy.starts_by_itself());
        if !has_started || plans.iter().any(|plan| store.exists(&plan.key)) {
            return Ok(());
        }
        for key in &self.services {
            match services::take_out(store, std::slice::from_ref(key)) {
                // Another command removed it already.
                Err(failure) if failure.code == Exit::NotFound as u8 => {}
                taken_out => taken_out?,
            }
        }
        Ok(())
    }
}

fn interrupted() -> Failure {
    Failure::new(Exit::Interrupted, "interrupted; everything was removed")
}

/// Looks for the tun driver before a plugin stumbles over it.
fn expect_devices(plans: &[VmPlan]) -> Result<(), Failure> {
    let has_nic = |plan: &VmPlan| plan.strategy.starts_by_itself() && !plan.launch.machine.nics.is_empty();
    if !plans.iter().any(has_nic) {
        return Ok(());
    }
    launch::expect_tun().map_err(|error| Failure::new(Exit::HostLacks, protocol::chain::chain(&error)))
}

/// Reads and checks a manifest.
pub(crate) fn objects_of(file: &Path) -> Result<Vec<Object>, Failure> {
    let (objects, complaints) = manifest_of(file)?;
    if complaints.is_empty() { Ok(objects) } else { Err(Failure::lines(Exit::Invalid, complaints)) }
}

/// What is wrong in a manifest, and what it refers to that is not there: one round for the user.
fn with_look_ups(complaints: Vec<String>, objects: &[Object], given: &[String]) -> Failure {
    let found =
        plan_with(&Store::new(Layout::default()), objects, given, None, |planner| match planner.look_up(objects) {
            found if found.is_empty() => Ok(()),
            found => Err(found),
        });
    let found = found.err().into_iter().flat_map(|failure| failure.messages);
    Failure::lines(Exit::Invalid, complaints.into_iter().chain(found).collect())
}

/// The objects of a manifest as far as they can be read, and all that is wrong in it.
fn manifest_of(file: &Path) -> Result<(Vec<Object>, Vec<String>), Failure> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let unreadable = |error: std::io::Error| Failure::new(Exit::Invalid, format!("cannot read {name}: {error}"));
    let mut bytes = Vec::new();
    let most = MAX_BYTES as u64 + 1;
    let read = match name.as_str() {
        "standard input" => std::io::stdin().take(most).read_to_end(&mut bytes),
        _ => File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes)),
    };
    if read.map_err(unreadable)? > MAX_BYTES {
        return Err(Failure::new(Exit::Invalid, format!("{name}: more than {MAX_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| unreadable(std::io::Error::other(error)))?;
    let (objects, errors) = api::manifest::parse_as_far_as_possible(&text, &name);
    Ok((objects, errors.iter().map(ToString::to_string).collect()))
}

/// Waits until a single VM runs that no terminal follows.
pub(crate) fn wait_until_running(store: &Store, line: Line) -> Result<(), Failure> {
    let interrupts = Interrupts::catch(What::Known)?;
    let progress = Progress::of(std::iter::once(line.key().clone()), "starting");
    let started = Started { guests: vec![Guest::follow(line, &interrupts)?], progress, store: store.clone() };
    let started = started.wait_until_all_run(&interrupts)?;
    if interrupts.let_go() {
        started.wait_until_all_are_gone();
        return Err(interrupted());
    }
    Ok(())
}

/// Plans with the networks given and those of the host; what is wrong with either comes in one failure.
fn plan_with<T>(
    store: &Store,
    objects: &[Object],
    given: &[String],
    engine: Option<EngineDemand>,
    plan: impl FnOnce(&Planner<'_>) -> Result<T, Vec<PlanError>>,
) -> Result<T, Failure> {
    let layout = store.layout();
    let (choices, unusable) = Choices::load(given, plan::definitions(objects), layout.networks(), &layout.ipam());
    let folders = plugin_folders(store);
    let preflight = Preflight::new(&folders, has_link);
    let planned = plan(&Planner { choices: &choices, preflight: &preflight, layout, engine });
    if unusable.is_empty() {
        return Ok(planned?);
    }
    let found = planned.err().map(Failure::from).into_iter().flat_map(|failure| failure.messages);
    let unusable = unusable.iter().map(|error| protocol::chain::chain(error));
    Err(Failure::lines(Exit::Invalid, unusable.chain(found).collect()))
}

fn warn_of_ignored_fields(objects: &[Object]) {
    for object in objects {
        for warning in &object.warnings {
            let (kind, key) = (object.body.kind(), object.body.key());
            terminal::say(&format!("tapvisor: {kind} {key}: {} has no effect: {}", warning.path, warning.why));
        }
    }
}

fn warn_of_disks(plans: &[VmPlan]) {
    for plan in plans {
        plan.warnings.iter().for_each(|warning| terminal::say(&format!("tapvisor: {}: {warning}", plan.key)));
    }
}

/// Removes the records of VMs that are not started; logs failures, because the caller reports an earlier one.
fn forget(store: &Store, written: &[Written]) {
    let host = match store.lock_host() {
        Err(error) => {
            return tracing::warn!(error = %runner::chain(&error), "the host lock is not free: the VMs of this command stay recorded");
        }
        Ok(host) => host,
    };
    let remove = |vm: &Written| store.remove(&host, &vm.key, &vm.lock).map_err(Failure::from);
    let mut failures: Vec<_> = written.iter().filter_map(|vm| remove(vm).err()).collect();
    // The host is restored only once no VM is written down any more.
    failures.extend(release_host(store, &host).map_err(Failure::from).err());
    for failure in failures {
        tracing::warn!(error = failure.messages.join("; "), "a VM that did not start cannot be removed");
    }
}

/// Starts the supervisors. VMs whose lock is dropped here are removed by the reaper of the next command, so a failure
/// in the middle leaves nothing for long.
fn start_all(store: &Store, starting: Vec<Written>, interrupts: &Interrupts) -> Result<Started, Failure> {
    let progress = Progress::of(starting.iter().map(|vm| vm.key.clone()), "starting");
    let mut guests = Vec::new();
    for vm in starting {
        let key = vm.key.clone();
        let stream = start_supervisor(store, vm).inspect_err(|_| interrupts.cancel())?;
        guests.push(Guest::follow(Line::with(key, stream), interrupts)?);
    }
    Ok(Started { guests, progress, store: store.clone() })
}

/// What is said of a VM that has come to run: where others reach it.
fn running_at(store: &Store, key: &ObjectKey) -> String {
    let addresses = store.status(key).map(|status| status.addresses).unwrap_or_default();
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    if addresses.is_empty() { "running".to_owned() } else { format!("running at {}", addresses.join(", ")) }
}

/// What the keys of a terminal do that has no console.
fn hint(guests: &[Guest]) -> Option<String> {
    let what = match guests {
        [] => return None,
        [only] => format!("stops {}", only.key),
        _ => "stops all of them".to_owned(),
    };
    io::stderr().is_terminal().then(|| {
        format!("tapvisor: Ctrl-C {what}, a second one without waiting for the guest; `tapvisor console NAME` in another terminal")
    })
}

/// VMs on their way up.
struct Started {
    guests: Vec<Guest>,
    progress: Progress,
    store: Store,
}

/// One VM that this command follows.
struct Guest {
    key: ObjectKey,
    reports: Receiver<Report>,
    sender: Sender,
}

impl Guest {
    fn follow(mut line: Line, interrupts: &Interrupts) -> Result<Self, Failure> {
        let (key, sender) = (line.key().clone(), line.sender()?);
        interrupts.pass_to(line.sender()?);
        let (tell, reports) = mpsc::channel();
        std::thread::Builder::new().name("reports".to_owned()).spawn(move || {
            while let Some(report) = line.next() {
                // At once: the reader of the reports may stay at the console until the guest ends.
                if let Report::Paused { reason: Some(reason) } = &report {
                    let key = line.key();
                    terminal::say(&format!("{key} is paused: {reason}; `tapvisor unpause {key}` resumes it"));
                }
                if tell.send(report).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { key, reports, sender })
    }

    /// The next report that says something about the guest.
    fn next(&self) -> Report {
        let gone = || Report::Failed {
            exit_code: Exit::Failed as u8,
            message: "its supervisor is gone; the next command removes what it left".to_owned(),
        };
        loop {
            match self.reports.recv() {
                Ok(Report::Alive | Report::Done { .. } | Report::Refused { .. }) => {}
                Ok(report) => return report,
                Err(mpsc::RecvError) => return gone(),
            }
        }
    }

    /// Whether the guest runs; `false` if it was stopped meanwhile.
    fn wait_until_runs(&self, progress: &Progress, store: &Store) -> Result<bool, Failure> {
        loop {
            match self.next() {
                Report::Progress { text } => progress.step(&self.key, &text),
                Report::Note { text } => progress.note(&self.key, &text),
                Report::Running => {
                    progress.finish(&self.key, &running_at(store, &self.key));
                    return Ok(true);
                }
                Report::Paused { .. } => {
                    progress.finish(&self.key, &format!("paused; `tapvisor unpause {}` lets it run", self.key));
                    return Ok(true);
                }
                Report::Failed { exit_code, message } => {
                    progress.finish(&self.key, "not started");
                    return Err(Failure::told(exit_code, format!("{}: {message}", self.key)));
                }
                Report::Ended { end, reason } => return self.ended(end, reason).map(|_| false),
                Report::Again { .. } | Report::Alive | Report::Done { .. } | Report::Refused { .. } => {}
            }
        }
    }

    fn ended(&self, end: FinalPhase, reason: Option<String>) -> Result<ExitCode, Failure> {
        let reason = reason.unwrap_or_else(|| "it has ended".to_owned());
        match end {
            FinalPhase::Failed => Err(Failure::new(Exit::GuestFailed, format!("{}: {reason}", self.key))),
            FinalPhase::Stopped | FinalPhase::Succeeded => {
                terminal::say(&format!("{}: {reason}", self.key));
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

impl Started {
    /// All of them run, or all of them are removed.
    fn wait_until_all_run(mut self, interrupts: &Interrupts) -> Result<Self, Failure> {
        let (mut run, mut failure) = (Vec::new(), None::<Failure>);
        for guest in &self.guests {
            let found = guest.wait_until_runs(&self.progress, &self.store);
            run.push(matches!(found, Ok(true)));
            match (found, &mut failure) {
                (Ok(_), _) => {}
                (Err(found), None) => {
                    failure = Some(found);
                    interrupts.cancel();
                }
                // The others were removed because of the first one.
                (Err(found), Some(first)) if found.code != Exit::Interrupted as u8 => {
                    first.messages.extend(found.messages);
                }
                (Err(_), Some(_)) => {}
            }
        }
        // An interrupt was passed on to all of them, running or not. Without a VM there is nothing to wait for.
        let is_interrupted = interrupts.seen() && !self.guests.is_empty();
        if failure.is_some() || is_interrupted {
            self.wait_until_all_are_gone();
        }
        match failure {
            _ if is_interrupted => Err(interrupted()),
            Some(failure) => Err(failure),
            None => {
                let mut run = run.into_iter();
                self.guests.retain(|_| run.next() == Some(true));
                Ok(self)
            }
        }
    }

    fn wait_until_all_are_gone(&self) {
        for guest in &self.guests {
            while guest.reports.recv().is_ok() {}
        }
    }

    /// Stays until all have ended, or the user detaches from the console of a single one.
    fn stay(mut self, store: &Store, plans: &[VmPlan], interrupts: &Interrupts) -> Result<ExitCode, Failure> {
        let has_console =
            |key: &ObjectKey| plans.iter().any(|plan| plan.key == *key && plan.launch.machine.serial_console);
        let outcome = match self.guests.as_mut_slice() {
            [only] if has_console(&only.key) => only.stay_at_console(store, interrupts),
            guests => {
                if let Some(hint) = hint(guests) {
                    terminal::say(&hint);
                }
                // Every one is waited for, whatever became of those before it.
                let ends: Vec<_> = guests.iter().map(Guest::stay).collect();
                ends.into_iter().find(Result::is_err).unwrap_or(Ok(ExitCode::SUCCESS))
            }
        };
        match outcome {
            Ok(_) if interrupts.seen() => Err(Failure::new(Exit::Interrupted, "interrupted")),
            outcome => outcome,
        }
    }
}

impl Guest {
    /// Waits until the VM is over and reports its restarts meanwhile.
    fn stay(&self) -> Result<ExitCode, Failure> {
        loop {
            match self.next() {
                Report::Again { reason, after_seconds } => self.say_again(&reason, after_seconds),
                Report::Ended { end, reason } => return self.ended(end, reason),
                Report::Failed { exit_code, message } => return Err(self.failed(exit_code, &message)),
                _ => {}
            }
        }
    }

    /// Attaches to the console, again after each restart.
    fn stay_at_console(&mut self, store: &Store, interrupts: &Interrupts) -> Result<ExitCode, Failure> {
        let mut runs = true;
        loop {
            if runs && console::attach(store, &self.key).is_ok_and(|left| left == Left::Detached) {
                // One that came before ends the VM all the same, and this command says so.
                let _ = interrupts.let_go();
                self.sender.send(Request::Keep)?;
                // The answer says that it is written down; only then may this command go.
                while let Ok(report) = self.reports.recv() {
                    match report {
                        Report::Done { .. } => break,
                        Report::Refused { message } => {
                            terminal::say(&format!("tapvisor: {}: {message}", self.key));
                            break;
                        }
                        _ => {}
                    }
                }
                terminal::say(&format!("tapvisor: detached; `tapvisor console {}` attaches again", self.key));
                return Ok(ExitCode::SUCCESS);
            }
            runs = match self.next() {
                Report::Running | Report::Paused { .. } => true,
                Report::Again { reason, after_seconds } => {
                    self.say_again(&reason, after_seconds);
                    false
                }
                Report::Ended { end, reason } => return self.ended(end, reason),
                Report::Failed { exit_code, message } => return Err(self.failed(exit_code, &message)),
                _ => false,
            };
        }
    }

    fn say_again(&self, reason: &str, after_seconds: u64) {
        match after_seconds {
            0 => terminal::say(&format!("{}: {reason}; starting again", self.key)),
            seconds => terminal::say(&format!("{}: {reason}; starting again in {seconds} s", self.key)),
        }
    }

    fn failed(&self, exit_code: u8, message: &str) -> Failure {
        Failure::told(exit_code, format!("{}: {message}", self.key))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::names;

    fn key(name: &str) -> ObjectKey {
        names::vm(name).unwrap()
    }

    /// A guest whose supervisor has said this and is gone.
    fn guest(name: &str, said: &[Report]) -> Guest {
        let (ours, _) = UnixStream::pair().unwrap();
        let sender = Line::with(key(name), ours).sender().unwrap();
        let (tell, reports) = mpsc::channel();
        said.iter().for_each(|report| tell.send(report.clone()).unwrap());
        Guest { key: key(name), reports, sender }
    }

    // spec: CLI-12
    #[test]
    fn running_and_paused_guests_are_followed_stopped_ones_are_not() {
        let ended = Report::Ended { end: FinalPhase::Stopped, reason: None };
        let guests = vec![
            guest("up", &[Report::Progress { text: "launcher started".to_owned() }, Report::Running]),
            guest("stopped", &[ended]),
            guest("paused", &[Report::Paused { reason: None }]),
        ];
        let progress = Progress::of(std::iter::empty(), "starting");
        let store = Store::new(runner::layout::Layout::default());
        let started = Started { guests, progress, store }.wait_until_all_run(&Interrupts::default()).unwrap();
        let followed: Vec<_> = started.guests.iter().map(|guest| guest.key.name()).collect();
        assert_eq!(followed, ["up", "paused"]);
    }
}
