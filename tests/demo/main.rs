//! `make demo`: two VMs on a dual-stack pod network of this machine, every promise checked while you watch.
//!
//! Everything happens in a world of namespaces; the machine's own network is not touched.

mod checks;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use checks::Checks;
use tests::{Guest, Outside, World, wait_for};

const MANIFEST: &str = "examples/demo.yaml";

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        println!("demo: needs root to make network namespaces: sudo make demo");
        return ExitCode::from(6);
    }
    let start = Instant::now();
    let mut checks = Checks::default();
    checks.title("A host in namespaces, with an uplink, and two VMs from examples/demo.yaml");
    let world = World::new();
    world.bring_guest();
    let before = world.snapshot();
    let manifest = tests::workspace().join(MANIFEST).display().to_string();

    let up = checks.check("tapvisor run --detach", || {
        world.tapvisor(&["run", "--detach", "-f", &manifest]).assert_ok();
        "web (masquerade) and db (bridge) are running".to_owned()
    });
    if up {
        let (web, db) = (Guest::of(&world, "web"), Guest::of(&world, "db"));
        boot(&mut checks, &world, [&web, &db]);
        reach(&mut checks, &world, [&web, &db]);
        restart(&mut checks, &web);
    }

    checks.title("Everything is taken away again");
    checks.check("tapvisor rm", || {
        world.tapvisor(&["rm", "-f", &manifest]).assert_ok();
        "both VMs are gone".to_owned()
    });
    leftovers(&mut checks, &world);
    checks.check("network as before", || {
        before.assert_same(&world.snapshot());
        "links, addresses, routes, rules, nft, iptables, sysctls; the IPv6 default route too".to_owned()
    });
    checks.verdict(start.elapsed())
}

fn boot(checks: &mut Checks, world: &World, guests: [&Guest<'_>; 2]) {
    checks.title("What the guests were given, in their own words");
    for guest in guests {
        checks.check(&format!("{}: lease", guest.name()), || {
            let (four, six) = (guest.lease4("eth0"), guest.lease6("eth0"));
            let (seconds4, seconds6) = (four.field("at"), six.field("at"));
            format!(
                "{} via {}, {} via {}, {seconds4} s and {seconds6} s after power-on",
                four.address, four.via, six.address, six.via
            )
        });
    }
    for guest in guests {
        checks.check(&format!("{}: wiring", guest.name()), || {
            let log = std::fs::read_to_string(guest.folder().join("supervisor.log")).unwrap_or_default();
            let wiring = seconds_at(&log, "network attached") - seconds_at(&log, "ADD network=tapvisor-binding");
            // Midnight may lie between the two.
            let wiring = wiring.rem_euclid(86_400.0);
            assert!((0.0..1.0).contains(&wiring), "{wiring} s by the supervisor's log:\n{log}");
            format!("{:.1} ms from starting our plugin to a finished network", wiring * 1000.0)
        });
    }
    let [web, db] = guests;
    checks.check("web: NAT subnet", || {
        assert_eq!((web.lease4("eth0").address.as_str(), web.lease6("eth0").ip()), ("10.0.2.2/24", "fd10:0:2::2"));
        format!("behind {} and {}", web.pod_address("-4"), web.pod_address("-6"))
    });
    checks.check("db: the pod's own", || {
        assert_eq!(db.lease4("eth0").ip(), db.pod_address("-4"));
        assert_eq!(db.lease6("eth0").ip(), db.pod_address("-6"));
        "the guest's addresses are those the network gave the pod".to_owned()
    });
    checks.check("VM processes", || {
        let script = "for pid in $(pgrep -u 1900000000,1900000001); do grep -E '^(Uid|CapEff|NoNewPrivs):' /proc/$pid/status | tr -s '\\t\\n' ' '; echo; done";
        let processes = world.sh(script).text();
        for line in processes.lines() {
            assert!(line.contains("CapEff: 0000000000000000"), "{line}");
            assert!(line.contains("NoNewPrivs: 1"), "{line}");
        }
        assert!(processes.lines().count() >= 4, "{processes}");
        for user in ["1900000000", "1900000001"] {
            assert!(processes.contains(&format!("Uid: {user} {user} {user} {user} ")), "{processes}");
        }
        format!("{} processes: each VM as its own user, no capability, no_new_privs", processes.lines().count())
    });
}

fn reach(checks: &mut Checks, world: &World, guests: [&Guest<'_>; 2]) {
    checks.title("The guest is the pod");
    for guest in guests {
        for family in ["-4", "-6"] {
            let version = family.trim_start_matches('-');
            checks.check(&format!("host → {} HTTP v{version}", guest.name()), || {
                let url = url(&guest.pod_address(family));
                let page = world.run(&["timeout", "60", "busybox", "wget", "-qO-", &url]).text();
                assert!(page.starts_with(&format!("guest {}\n", guest.name())), "{page}");
                format!("{url} says: {}", page.lines().take(2).collect::<Vec<_>>().join(", "))
            });
            checks.check(&format!("host → {} ping v{version}", guest.name()), || {
                let address = guest.pod_address(family);
                let report = world.run(&["ping", "-c", "3", "-i", "0.2", "-W", "5", &address]).text();
                report.lines().last().unwrap_or_default().to_owned()
            });
        }
    }
    let [web, db] = guests;
    for (from, to) in [(web, db), (db, web)] {
        for family in ["-4", "-6"] {
            checks.check(&format!("{} → {} v{}", from.name(), to.name(), &family[1..]), || {
                let page = from.ok(&format!("timeout 60 wget -qO- {}", url(&to.pod_address(family))));
                assert!(page.starts_with(&format!("guest {}\n", to.name())), "{page}");
                page.lines().nth(1).unwrap_or_default().to_owned()
            });
        }
    }
    for guest in guests {
        for address in [Outside::V4, Outside::V6] {
            checks.check(&format!("{} → outside", guest.name()), || {
                let page = guest.ok(&format!("timeout 60 wget -qO- {}", url(address)));
                assert!(page.starts_with("outside sees "), "{page}");
                format!("{address}: {}", page.trim())
            });
        }
    }
}

fn restart(checks: &mut Checks, web: &Guest<'_>) {
    checks.title("A restart");
    checks.check("web powers itself off", || {
        let first = web.mac("eth0", 1);
        // The shell dies with the guest: nothing to wait for.
        web.type_line("poweroff -f");
        let second = web.mac("eth0", 2);
        assert_eq!(first, second);
        let _ = web.wait_told("lease4 eth0", 2);
        format!("runStrategy Always starts it again, with the same MAC {second} and a lease")
    });
}

fn leftovers(checks: &mut Checks, world: &World) {
    checks.check("nothing is left", || {
        let namespaces: Vec<_> = world.ns_names().into_iter().filter(|name| name.starts_with("tv-")).collect();
        assert!(namespaces.is_empty(), "{namespaces:?}");
        // A supervisor says that all is gone and then ends itself.
        let ended =
            || world.sh("pgrep -ax 'tapvisor|tapvisor-launch|qemu-system-x86' || true").text().is_empty().then_some(());
        wait_for("the last process to end", Duration::from_secs(20), ended);
        let files = world.sh("find /run/tapvisor/vms /run/tapvisor/attachments -mindepth 1 2>/dev/null || true").text();
        assert!(files.is_empty(), "{files}");
        "no namespace, no process, no record".to_owned()
    });
}

/// Seconds of the day at which the first line with `words` was written, after its RFC 3339 time.
fn seconds_at(log: &str, words: &str) -> f64 {
    let line = log.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words:?} is not in\n{log}"));
    let time = line.split('Z').next().and_then(|time| time.rsplit_once('T')).map_or("", |(_, time)| time);
    time.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap_or(f64::NAN))
}

fn url(address: &str) -> String {
    if address.contains(':') { format!("http://[{address}]/") } else { format!("http://{address}/") }
}
