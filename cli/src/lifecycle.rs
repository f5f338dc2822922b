//! `stop`, `start`, `restart`, `pause`, `unpause`, `rm`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use api::manifest::{Body, Object};
use terms::ObjectKey;

use super::arguments::{Rm, Stop};
use super::failure::{Exit, Failure};
use super::names::Named;
use super::plugins::plugin_folders;
use super::progress::Progress;
use super::run::{self, wait_until_running};
use super::supervisor::{AskError, Line};
use super::{names, open_store, services, terminal};
use protocol::client::ask;
use protocol::control::{Answer, Verb};
use runner::protocol::Request;
use runner::reap::{Reaped, abandon, kill_supervisor, reap_one, stop_unsupervised};
use runner::record::{Kind, OnHost, Phase};
use runner::start::{Written, start_supervisor, write_again};
use runner::store::{Store, StoreError};

/// Stops a VM and keeps it known.
pub(crate) fn stop(arguments: &Stop) -> Result<ExitCode, Failure> {
    let (store, _) = open_store()?;
    let key = names::vm(&arguments.name)?;
    let grace_seconds = if arguments.force { Some(0) } else { arguments.grace };
    if store.status(&key)?.on_host == OnHost::Present {
        let progress = waiting(&store, std::slice::from_ref(&key), grace_seconds, "");
        let asked = ask_to_stop(&store, &key, grace_seconds);
        progress.clear(&key);
        match asked {
            Err(AskError::NoAnswer(_)) if arguments.force => end_by_force(&store, &key)?,
            // One that was ending while it was asked has ended: nothing more was wanted.
            Err(error) if store.status(&key)?.on_host == OnHost::Present => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    terminal::line(&format!("{key} stopped"));
    Ok(ExitCode::SUCCESS)
}

/// Says what a command waits for: the guests that have time to power off. `then` is what comes after it.
fn waiting(store: &Store, keys: &[ObjectKey], grace_seconds: Option<u64>, then: &str) -> Progress {
    let progress = Progress::of(keys.iter().cloned(), "stopping");
    for key in keys {
        let of_manifest = || store.status(key).ok().map(|status| status.grace_period_seconds);
        let grace = grace_seconds.or_else(of_manifest);
        let text = match grace {
            Some(0) => format!("the guest is powered off{then}"),
            Some(seconds) => format!("waiting up to {seconds} s for the guest to power off{then}"),
            None => format!("waiting for the guest to power off{then}"),
        };
        progress.step(key, &text);
    }
    progress
}

fn ask_to_stop(store: &Store, key: &ObjectKey, grace_seconds: Option<u64>) -> Result<Phase, AskError> {
    let mut line = expect_line(store, key)?;
    // Who stops a VM wants to find it again: also one that a terminal started. Where that cannot be written yet, the
    // supervisor knows it all the same.
    match line.ask(Request::Keep) {
        Err(AskError::Refused { message, .. }) => tracing::warn!(vm = %key, error = message, "a request was refused"),
        kept => drop(kept?),
    }
    line.ask(Request::Stop { grace_seconds, remove: false })
}

/// Kills a supervisor that does not answer, and with it its launcher, and removes what they had on the host.
fn end_by_force(store: &Store, key: &ObjectKey) -> Result<(), Failure> {
    if kill_supervisor(store, key) {
        terminal::say(&format!("tapvisor: {key}: its supervisor did not answer and was killed"));
    }
    match stop_unsupervised(store, key)? {
        None => Ok(()),
        Some(left) => Err(Failure::new(Exit::Failed, format!("{key}: not everything could be removed: {left}"))),
    }
}

/// Starts a VM that is known and does not run.
pub(crate) fn start(name: &str) -> Result<ExitCode, Failure> {
    let (store, _) = open_store()?;
    let key = names::vm(name)?;
    let phase = start_stopped(&store, &key)?;
    say_phase(&key, phase);
    Ok(ExitCode::SUCCESS)
}

/// Restarts a VM, or starts it if it does not run.
pub(crate) fn restart(name: &str, grace_seconds: Option<u64>) -> Result<ExitCode, Failure> {
    let (store, _) = open_store()?;
    let key = names::vm(name)?;
    let phase = match store.status(&key)?.on_host {
        OnHost::Present => {
            let progress = waiting(&store, std::slice::from_ref(&key), grace_seconds, ", then for it to start");
            let phase = expect_line(&store, &key)?.ask(Request::Restart { grace_seconds });
            progress.clear(&key);
            phase?
        }
        OnHost::Absent => start_stopped(&store, &key)?,
    };
    say_phase(&key, phase);
    Ok(ExitCode::SUCCESS)
}

/// A guest that was started runs, unless its manifest has it wait.
fn say_phase(key: &ObjectKey, phase: Phase) {
    let word = if phase == Phase::Paused { "paused" } else { "running" };
    terminal::line(&format!("{key} {word}"));
}

pub(crate) fn pause(name: &str) -> Result<ExitCode, Failure> {
    command(name, Verb::Pause, "paused", Phase::Paused)
}

/// Lets a VM's processors go on.
pub(crate) fn unpause(name: &str) -> Result<ExitCode, Failure> {
    command(name, Verb::Resume, "running", Phase::Running)
}

/// Removes VMs by name, or all of a manifest.
pub(crate) fn rm(arguments: &Rm) -> Result<ExitCode, Failure> {
    let (store, reaped) = open_store()?;
    let named = match &arguments.file {
        Some(file) => all_of(file)?,
        None => arguments.names.iter().map(|name| names::any(name)).collect::<Result<_, _>>()?,
    };
    let is_manifest = arguments.file.is_some();
    let mut first_failure: Option<Failure> = None;
    for removed in remove_all(&store, &named, arguments.force, &reaped) {
        match removed {
            Ok(()) => {}
            // What a manifest names and is not there is as it should be.
            Err(failure) if is_manifest && failure.code == Exit::NotFound as u8 => {}
            Err(failure) => match &mut first_failure {
                None => first_failure = Some(failure),
                Some(first) => first.messages.extend(failure.messages),
            },
        }
    }
    first_failure.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Removes everything named: VMs at once, for each is waited for, and Services one by one before them.
fn remove_all(store: &Store, named: &[Named], force: bool, reaped: &[Reaped]) -> Vec<Result<(), Failure>> {
    let mut results = Vec::new();
    let mut vms: Vec<&ObjectKey> = Vec::new();
    for one in named {
        match one {
            Named::Vm(key) if vms.contains(&key) => {}
            Named::Vm(key) => vms.push(key),
            Named::Service(key) => {
                let taken_out = services::take_out(store, std::slice::from_ref(key));
                results.push(taken_out.inspect(|()| terminal::line(&format!("{one} removed"))));
            }
        }
    }
    let running: Vec<_> = vms.iter().copied().filter(|key| is_on_host(store, key)).cloned().collect();
    let progress = waiting(store, &running, force.then_some(0), "");
    let remove_one = |key: &ObjectKey| {
        let removed = remove(store, key, force, reaped);
        match &removed {
            Ok(()) => progress.line(key, &format!("{key} removed")),
            Err(_) => progress.clear(key),
        }
        removed
    };
    for some in vms.chunks(AT_ONCE) {
        results.extend(at_once(some, remove_one));
    }
    results
}

/// Most VMs that are removed at the same time.
const AT_ONCE: usize = 64;

/// Does the same for each key in a thread of its own, or in this thread when no thread can be started.
fn at_once<T: Send>(keys: &[&ObjectKey], work: impl Fn(&ObjectKey) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = keys
            .iter()
            .map(|key| std::thread::Builder::new().spawn_scoped(scope, move || work(key)).map_err(|_| *key))
            .collect();
        let done = threads.into_iter().map(|thread| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(key) => work(key),
        });
        done.collect()
    })
}

fn is_on_host(store: &Store, key: &ObjectKey) -> bool {
    store.status(key).is_ok_and(|status| status.on_host == OnHost::Present)
}

fn remove(store: &Store, key: &ObjectKey, force: bool, reaped: &[Reaped]) -> Result<(), Failure> {
    let existed = store.exists(key);
    if !existed && reaped.iter().any(|vm| vm.key == *key) {
        return Ok(());
    }
    match ask_to_remove(store, key, force) {
        Ok(()) => return Ok(()),
        Err(AskError::Gone(_)) => {}
        Err(AskError::NoAnswer(_)) if force => {
            if kill_supervisor(store, key) {
                terminal::say(&format!("tapvisor: {key}: its supervisor did not answer and was killed"));
            }
        }
        Err(error) => return Err(error.into()),
    }
    remove_unsupervised(store, key, force, existed)
}

fn ask_to_remove(store: &Store, key: &ObjectKey, force: bool) -> Result<(), AskError> {
    let mut line = expect_line(store, key)?;
    match line.ask(Request::Stop { grace_seconds: force.then_some(0), remove: true }) {
        Err(error @ AskError::NoAnswer(_)) => Err(error),
        // Killed, or at its end, while it was being asked.
        Err(_) if Line::to(store, key).is_none() => Err(AskError::Gone(key.clone())),
        outcome => outcome.map(drop),
    }
}

fn remove_unsupervised(store: &Store, key: &ObjectKey, force: bool, existed: bool) -> Result<(), Failure> {
    let reaped = reap_one(store, key);
    // All that this record could help to remove was removed; remove the record too.
    let is_damaged = reaped.as_ref().is_some_and(|vm| vm.is_damaged);
    if let Some(left) = reaped.and_then(|vm| vm.left)
        && !force
        && !is_damaged
    {
        let message = format!("{key}: {left}; --force removes its record nevertheless");
        return Err(Failure::new(Exit::Failed, message));
    }
    if !store.exists(key) {
        return if existed { Ok(()) } else { Err(StoreError::NotFound(key.clone()).into()) };
    }
    match abandon(store, key)? {
        Some(left) if force || is_damaged => terminal::say(&format!("tapvisor: {key}: left behind: {left}")),
        Some(left) => return Err(Failure::new(Exit::Failed, format!("{key}: {left}"))),
        None => {}
    }
    Ok(())
}

fn start_stopped(store: &Store, key: &ObjectKey) -> Result<Phase, Failure> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let status = store.status(key)?;
    if status.kind != Kind::VirtualMachine {
        return Err(Failure::new(
            Exit::Failed,
            format!("{key} is a VirtualMachineInstance: it runs once; `tapvisor run` it again"),
        ));
    }
    if status.on_host == OnHost::Present {
        return Err(Failure::new(Exit::Exists, format!("{key} runs already")));
    }
    let lock = store.lock_vm(key, PATIENCE)?.ok_or_else(|| StoreError::Busy { path: store.layout().vm(key).lock() })?;
    let vm = Written { key: key.clone(), lock };
    write_again(store, &vm, &plugin_folders(store))?;
    let stream = start_supervisor(store, vm)?;
    wait_until_running(store, Line::with(key.clone(), stream))?;
    Ok(store.status(key)?.phase)
}

/// A line to a VM's supervisor; one that is alive and has no socket does not answer.
fn expect_line(store: &Store, key: &ObjectKey) -> Result<Line, AskError> {
    Line::to(store, key).ok_or_else(|| match store.supervisor(key) {
        Some(_) => AskError::NoAnswer(key.clone()),
        None => AskError::Gone(key.clone()),
    })
}

fn all_of(file: &Path) -> Result<Vec<Named>, Failure> {
    let named = |object: &Object| match &object.body {
        Body::VirtualMachine(_) | Body::VirtualMachineInstance(_) => Some(Named::Vm(object.body.key().clone())),
        Body::Service(service) => Some(Named::Service(service.metadata.key.clone())),
        _ => None,
    };
    Ok(run::objects_of(file)?.iter().filter_map(named).collect())
}

/// One verb of a launcher's control socket, and where the VM is afterwards.
fn command(name: &str, verb: Verb, done: &str, phase: Phase) -> Result<ExitCode, Failure> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let (store, _) = open_store()?;
    let key = names::vm(name)?;
    store.status(&key)?;
    let answer = ask(&store.layout().vm(&key).control_socket(), verb, PATIENCE)
        .map_err(|error| Failure::new(Exit::Failed, format!("{key} does not answer: is it running? ({error})")))?;
    if let Answer::Error { error, .. } = answer {
        return Err(Failure::new(Exit::Failed, format!("{key}: {error}")));
    }
    wait_until_told(&store, &key, phase)?;
    terminal::line(&format!("{key} {done}"));
    Ok(ExitCode::SUCCESS)
}

/// The supervisor hears of it from the launcher as well, and writes it down: what is asked next shall not be answered with
/// what was before. It is not waited for at length, because the guest may already be elsewhere.
fn wait_until_told(store: &Store, key: &ObjectKey, phase: Phase) -> Result<(), Failure> {
    const STEP: Duration = Duration::from_millis(10);
    const STEPS: usize = 200;
    for _ in 0..STEPS {
        if store.status(key)?.phase == phase {
            break;
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    // spec: CLI-8
    #[test]
    fn several_vms_are_removed_at_the_same_time_and_reported_in_order() {
        let keys: Vec<_> = (0..20).map(|n| ObjectKey::new("default", &format!("vm{n}")).unwrap()).collect();
        let all: Vec<_> = keys.iter().collect();
        // No thread passes before all have arrived: sequential calls would wait for ever.
        let barrier = Barrier::new(all.len());
        let names = at_once(&all, |key| {
            barrier.wait();
            key.name().to_owned()
        });
        assert_eq!(names, all.iter().map(|key| key.name().to_owned()).collect::<Vec<_>>());
    }
}
