//! Rung cluster: a real Kubernetes of two nodes, started once for all trials, and the product in it.

mod agent;
mod background;
mod claims;
mod end;
mod explain;
mod files;
mod guest_agent;
mod hostile;
mod images;
mod migrations;
mod nodes;
mod older;
mod pods;
mod product;
mod rbac;
mod reach;
mod segment;
mod sets;
mod silent;
mod soak;
mod upgrade;
mod virtctl;
mod virtctl_machines;
mod virtctl_ssh;
mod virtctl_streams;
mod vm;
mod vm_ends;
mod vm_strategies;
mod vmi;
mod vmi_trouble;
mod volumes;

use std::process::ExitCode;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use end::Machine;
use tests::{Cluster, trial};

/// The name of this rung's cluster. Checkouts that run at once on a machine take different ones by `TEST_CLUSTER`.
static NAME: LazyLock<String> = LazyLock::new(|| std::env::var("TEST_CLUSTER").unwrap_or_else(|_| "test".to_owned()));

static CLUSTER: Mutex<Option<Arc<Cluster>>> = Mutex::new(None);
static BEFORE: OnceLock<Machine> = OnceLock::new();

/// The cluster of this rung; the first trial that asks starts it.
fn cluster() -> Arc<Cluster> {
    let mut cluster = CLUSTER.lock().expect("the cluster came up");
    let start = || {
        BEFORE.get_or_init(Machine::gather);
        Arc::new(Cluster::start(&NAME))
    };
    Arc::clone(cluster.get_or_insert_with(start))
}

/// Ends the cluster and demands that the machine is as it was.
fn leaves_nothing() {
    drop(cluster());
    let cluster = CLUSTER.lock().expect("the cluster came up").take();
    Arc::into_inner(cluster.expect("it runs")).expect("all trials have ended").end();
    BEFORE.get().expect("the start looked").assert_same(&Machine::gather());
}

fn main() -> ExitCode {
    let mut trials = Vec::new();
    trials.extend(nodes::trials());
    trials.extend(pods::trials());
    trials.extend(volumes::trials());
    trials.extend(product::trials());
    trials.extend(vmi::trials());
    trials.extend(vm::trials());
    trials.extend(vm_ends::trials());
    trials.extend(vm_strategies::trials());
    trials.extend(sets::trials());
    trials.extend(claims::trials());
    trials.extend(older::trials());
    trials.extend(files::trials());
    trials.extend(migrations::trials());
    trials.extend(vmi_trouble::trials());
    trials.extend(reach::trials());
    trials.extend(segment::trials());
    trials.extend(virtctl::trials());
    trials.extend(virtctl_streams::trials());
    trials.extend(virtctl_machines::trials());
    trials.extend(guest_agent::trials());
    trials.extend(virtctl_ssh::trials());
    trials.extend(explain::trials());
    trials.extend(rbac::trials());
    trials.extend(end::trials());
    trials.extend(upgrade::trials());
    let ran = tests::main(trials);
    // They stop nodes, take the Lease, change the configuration, and what the runtime executes for every pod.
    let mut alone = silent::trials();
    alone.extend(hostile::trials());
    alone.extend(images::trials());
    alone.extend(vmi_trouble::alone());
    alone.extend(claims::alone());
    alone.extend(soak::trials());
    alone.extend(agent::trials());
    let agent = tests::main_of(1, alone);
    let ran = if ran == ExitCode::SUCCESS { agent } else { ran };
    // spec: K8S-4
    let ended = tests::main(vec![trial("the end of a cluster leaves nothing on the machine", leaves_nothing)]);
    // Filters may have left out that last trial.
    if let Some(cluster) = CLUSTER.lock().ok().and_then(|mut cluster| cluster.take()).and_then(Arc::into_inner) {
        cluster.end();
    }
    if ran == ExitCode::SUCCESS {
        return ended;
    }
    eprintln!("the cluster's logs are in {}", tests::cluster::logs(&NAME).display());
    ran
}
