//! Probes of a manifest, with a guest that answers them, stops to, and is started again.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{trial, wait_for};

use crate::manifest::{Vm, document};
use crate::vm::Host;

pub(crate) fn trials() -> Vec<Trial> {
    // spec: SVC-12
    vec![trial("probes add guests to a Service, remove them, restart a dead one", probes)]
}

/// Longest between a change in the guest and what follows from it; a probe asks each second.
const SOON: Duration = Duration::from_secs(60);

fn probes() {
    let host = Host::new();
    let often = |mut probe: Value| {
        (probe["periodSeconds"], probe["timeoutSeconds"], probe["failureThreshold"]) = (json!(1), json!(1), json!(2));
        probe
    };
    let port = |name: &str, number: u16| json!([{"name": name, "port": number}]);
    let web = Vm::new("web", "masquerade").set("/domain/devices/interfaces/0", "ports", port("http", 80)).set(
        "",
        "readinessProbe",
        often(json!({"httpGet": {"path": "/ready", "port": "http"}})),
    );
    let mut liveness = often(json!({"tcpSocket": {"port": 8080}}));
    // Two guests boot at once and take their time; the server that the probe asks is started by hand.
    (liveness["initialDelaySeconds"], liveness["failureThreshold"]) = (json!(40), json!(10));
    let db = Vm::new("db", "bridge").set("", "readinessProbe", often(json!({"tcpSocket": {"port": 8080}}))).set(
        "",
        "livenessProbe",
        liveness,
    );
    let service = |app: &str, to: Value| {
        document(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": app},
            "spec": {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": to}]}}))
    };
    let manifest = [web.yaml(), db.yaml(), service("web", json!("http")), service("db", json!(8080))].concat();
    host.world.write("/run/vms.yaml", manifest);
    host.world.tapvisor(&["run", "--detach", "-f", "/run/vms.yaml"]).assert_ok();
    let items = || host.world.tapvisor(&["services", "-o", "json"]).json()["items"].as_array().cloned().unwrap();
    let item = |name: &str| {
        let name = format!("default/{name}/80");
        items().into_iter().find(|item| item["name"] == *name).unwrap_or_else(|| panic!("no {name} in {:?}", items()))
    };
    let behind = |name: &str| {
        let at = item(name)["addresses"][0].as_str().expect("an address").to_owned();
        let asked = host.world.run(&["timeout", "5", "busybox", "wget", "-qO-", &format!("http://{at}/")]);
        asked.stdout().starts_with(&format!("guest {name}\n"))
    };
    let listed = |name: &str| !item(name)["backends"].as_array().expect("a list").is_empty();
    let becomes = |name: &str, served: bool| {
        let what = format!("{name} to be {} its Service", if served { "in" } else { "out of" });
        wait_for(&what, SOON, || (behind(name) == served && listed(name) == served).then_some(()));
    };
    let (web, db) = (host.guest("web"), host.guest("db"));
    let _ = (web.lease4("eth0"), db.lease4("eth0"));
    assert!(!behind("web") && !behind("db"), "served before they were ready");
    let _ = (web.ok("touch /www/ready"), db.ok("httpd -p '[::]:8080' -h /www"));
    becomes("web", true);
    becomes("db", true);
    let _ = web.ok("rm /www/ready");
    becomes("web", false);
    let _ = web.ok("touch /www/ready");
    becomes("web", true);

    // What listens on 8080 dies: out of the Service at once, and started again by the liveness probe.
    let _ = db.ok("kill $(pidof httpd)");
    becomes("db", false);
    let _ = db.wait_told("lease4 eth0", 2);
    let list = host.world.tapvisor(&["ps", "-o", "json"]).json();
    let restarts =
        list["items"].as_array().unwrap().iter().map(|item| (item["name"].clone(), item["restarts"].clone()));
    assert_eq!(restarts.collect::<Vec<_>>(), [(json!("db"), json!(1)), (json!("web"), json!(0))], "{list}");
    let log = host.world.run(&["cat", "/run/tapvisor/vms/default.db/supervisor.log"]).text();
    assert!(log.contains("its liveness probe failed"), "{log}");
    host.world.tapvisor(&["rm", "-f", "/run/vms.yaml"]).assert_ok();
    host.assert_nothing_left();
}
