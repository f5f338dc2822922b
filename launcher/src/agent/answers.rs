//! What commands of the guest agent return, read field by field: a field of another type than the protocol's is left out.
//!
//! Guarantees: texts are printable and short, lists have a limited size as JSON, so that a status fits into its message.

use std::net::IpAddr;

use machine::base64;
use protocol::agent::{AgentCommand, Executed, GuestDisk, GuestFilesystem, GuestInterface, GuestOs, GuestUser};
use serde::Serialize;
use serde_json::{Value, json};

use super::decoder::printable;

/// The longest name and the longest path that are passed on.
const NAME: usize = 64;
const PATH: usize = 256;
/// The longest text that describes something.
const TEXT: usize = 128;
/// Most addresses of one interface that are passed on.
const MOST_ADDRESSES: usize = 16;
/// Bytes that a list may have as JSON.
const INTERFACES: usize = 20 << 10;
const COMMANDS: usize = 12 << 10;
const USERS: usize = 12 << 10;
const FILESYSTEMS: usize = 20 << 10;
/// The longest output of a program that is passed on.
const OUTPUT: usize = 10 << 10;

fn text(value: &Value, key: &str, most: usize) -> String {
    printable(value.get(key).and_then(Value::as_str).unwrap_or_default(), most)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The first items that fit into a number of bytes as JSON.
fn fit<T: Serialize>(items: impl Iterator<Item = T>, most: usize) -> Vec<T> {
    let mut bytes = 0;
    items
        .take_while(|item| {
            bytes += serde_json::to_vec(item).map_or(most, |json| json.len()) + 1;
            bytes <= most
        })
        .collect()
}

/// `guest-info`: the agent's version and commands.
pub(super) fn info(value: &Value) -> (String, Vec<AgentCommand>) {
    let command = |value: &Value| AgentCommand {
        name: text(value, "name", NAME),
        enabled: value.get("enabled").and_then(Value::as_bool).unwrap_or_default(),
    };
    let commands = value.get("supported_commands").unwrap_or(&Value::Null);
    (text(value, "version", NAME), fit(items(commands).map(command), COMMANDS))
}

/// The result of `guest-get-osinfo`; a missing field is an empty string.
pub(super) fn os(value: &Value) -> GuestOs {
    GuestOs {
        name: text(value, "name", TEXT),
        kernel_release: text(value, "kernel-release", TEXT),
        version: text(value, "version", TEXT),
        pretty_name: text(value, "pretty-name", TEXT),
        version_id: text(value, "version-id", TEXT),
        kernel_version: text(value, "kernel-version", TEXT),
        machine: text(value, "machine", TEXT),
        id: text(value, "id", TEXT),
    }
}

/// The result of `guest-get-host-name`.
pub(super) fn hostname(value: &Value) -> String {
    text(value, "host-name", PATH)
}

/// The result of `guest-get-timezone` in KubeVirt's form: name, offset in seconds.
pub(super) fn timezone(value: &Value) -> String {
    let offset = value.get("offset").and_then(Value::as_i64).unwrap_or_default();
    format!("{}, {offset}", text(value, "zone", NAME))
}

/// The result of `guest-get-users`, cut to its limit of bytes.
pub(super) fn users(value: &Value) -> Vec<GuestUser> {
    let user = |value: &Value| GuestUser {
        user_name: text(value, "user", NAME),
        domain: text(value, "domain", NAME),
        login_time: value.get("login-time").and_then(Value::as_f64).unwrap_or_default(),
    };
    fit(items(value).map(user), USERS)
}

/// The result of `guest-get-fsinfo`, cut to its limit of bytes.
pub(super) fn filesystems(value: &Value) -> Vec<GuestFilesystem> {
    let disk =
        |value: &Value| GuestDisk { serial: text(value, "serial", NAME), bus_type: text(value, "bus-type", NAME) };
    let number = |value: &Value, key| value.get(key).and_then(Value::as_u64).unwrap_or_default();
    let filesystem = |value: &Value| GuestFilesystem {
        disk_name: text(value, "name", NAME),
        mount_point: text(value, "mountpoint", PATH),
        file_system_type: text(value, "type", NAME),
        used_bytes: number(value, "used-bytes"),
        total_bytes: number(value, "total-bytes"),
        disk: items(value.get("disk").unwrap_or(&Value::Null)).take(8).map(disk).collect(),
    };
    fit(items(value).map(filesystem), FILESYSTEMS)
}

/// `guest-network-get-interfaces`. An interface without an Ethernet address is none that has to do with a NIC.
pub(super) fn interfaces(value: &Value) -> Vec<GuestInterface> {
    let address = |value: &Value| -> Option<IpAddr> { value.get("ip-address")?.as_str()?.parse().ok() };
    let interface = |value: &Value| {
        let addresses = items(value.get("ip-addresses").unwrap_or(&Value::Null)).filter_map(address);
        Some(GuestInterface {
            name: text(value, "name", NAME),
            mac: value.get("hardware-address")?.as_str()?.parse().ok()?,
            addresses: addresses.take(MOST_ADDRESSES).collect(),
        })
    };
    fit(items(value).filter_map(interface), INTERFACES)
}

/// `guest-fsfreeze-status`; `None` for a word that the protocol does not have.
pub(super) fn is_frozen(value: &Value) -> Option<bool> {
    match value.as_str()? {
        "frozen" => Some(true),
        "thawed" => Some(false),
        _ => None,
    }
}

/// The result of `guest-exec`: the number of the process; `None` for another shape.
pub(super) fn process(value: &Value) -> Option<i64> {
    value.get("pid")?.as_i64()
}

/// `guest-exec-status`; the outer `None` for another shape, the inner one for a process that runs.
pub(super) fn executed(value: &Value) -> Option<Option<Executed>> {
    if !value.get("exited")?.as_bool()? {
        return Some(None);
    }
    let number = |key: &str| value.get(key).and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok());
    let exit_code = number("exitcode").or_else(|| Some(128_i32.saturating_add(number("signal")?))).unwrap_or(-1);
    let output = |key: &str| value.get(key).and_then(Value::as_str).and_then(base64::decode).unwrap_or_default();
    let output = [output("out-data"), output("err-data")].concat();
    let output = String::from_utf8_lossy(&output);
    let is_shown = |letter: &char| !letter.is_control() || matches!(letter, '\n' | '\t');
    let mut output: String = output.chars().filter(is_shown).collect();
    output.truncate(output.floor_char_boundary(OUTPUT));
    Some(Some(Executed { exit_code, output }))
}

/// What every reader of this file makes of a value.
pub(super) fn all(value: &Value) -> Value {
    let lists = json!([info(value), users(value), filesystems(value), interfaces(value)]);
    let texts = json!([os(value), hostname(value), timezone(value)]);
    json!([lists, texts, is_frozen(value), process(value), executed(value)])
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: AGENT-1
    #[test]
    fn answers_of_debians_agent_are_read() {
        let info = info(
            &json!({"version": "7.2.22", "supported_commands": [{"enabled": true, "name": "guest-ping", "success-response": true}]}),
        );
        assert_eq!(info.0, "7.2.22");
        assert_eq!(info.1, [AgentCommand { name: "guest-ping".to_owned(), enabled: true }]);
        let os = os(
            &json!({"name": "Debian GNU/Linux", "kernel-release": "6.1.0-18-amd64", "version": "12 (bookworm)",
            "pretty-name": "Debian GNU/Linux 12 (bookworm)", "version-id": "12", "kernel-version": "#1 SMP", "machine": "x86_64", "id": "debian"}),
        );
        assert_eq!((os.id.as_str(), os.version_id.as_str(), os.machine.as_str()), ("debian", "12", "x86_64"));
        assert_eq!(timezone(&json!({"zone": "CET", "offset": 3600})), "CET, 3600");
        assert_eq!(hostname(&json!({"host-name": "web"})), "web");
        let users = users(&json!([{"login-time": 1_789_000_000.25, "user": "fedora"}]));
        assert_eq!((users[0].user_name.as_str(), users[0].login_time), ("fedora", 1_789_000_000.25));
        let disks =
            filesystems(&json!([{"name": "vda2", "mountpoint": "/", "type": "ext4", "used-bytes": 1, "total-bytes": 2,
            "disk": [{"bus-type": "virtio", "bus": 0, "target": 0, "unit": 0, "serial": "R1", "dev": "/dev/vda2"}]}]));
        assert_eq!(disks[0].disk, [GuestDisk { serial: "R1".to_owned(), bus_type: "virtio".to_owned() }]);
        let nics = interfaces(
            &json!([{"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1", "prefix": 8}], "hardware-address": "00:00:00:00:00:00"},
            {"name": "eth0", "hardware-address": "02:00:00:00:00:11", "ip-addresses": [{"ip-address-type": "ipv4", "ip-address": "10.0.2.2", "prefix": 24}]}]),
        );
        assert_eq!(
            (nics.len(), nics[0].name.as_str(), nics[0].addresses[0].to_string()),
            (1, "eth0", "10.0.2.2".to_owned())
        );
        let ended = executed(&json!({"exited": true, "signal": 9, "out-data": "aGkK"})).flatten().unwrap();
        assert_eq!((ended.exit_code, ended.output.as_str()), (137, "hi\n"));
        assert_eq!(executed(&json!({"exited": false})), Some(None));
    }

    // spec: AGENT-2
    #[test]
    fn lists_and_texts_without_end_are_cut_to_what_a_message_holds() {
        let long = "é\u{7}".repeat(400);
        let many = |item: Value| Value::Array(vec![item; 200]);
        let bytes = |value: &dyn Fn() -> Value| value().to_string().len();
        let interface = json!({"name": long, "hardware-address": "02:00:00:00:00:11", "ip-addresses": many(json!({"ip-address": "2001:db8::1111:2222:3333:4444"}))});
        let found = interfaces(&many(interface));
        assert!(!found.is_empty() && found[0].name.chars().count() == NAME);
        assert!(bytes(&|| json!(found)) <= INTERFACES + 2);
        let mounted = filesystems(&many(json!({"mountpoint": long, "disk": many(json!({"serial": long}))})));
        assert!(!mounted.is_empty() && bytes(&|| json!(mounted)) <= FILESYSTEMS + 2);
        assert!(bytes(&|| json!(users(&many(json!({"user": long}))))) <= USERS + 2);
        assert!(bytes(&|| json!(info(&json!({"supported_commands": many(json!({"name": long}))})).1)) <= COMMANDS + 2);
        let output = base64::encode("é".repeat(100_000).as_bytes());
        let ended = executed(&json!({"exited": true, "exitcode": 0, "out-data": output})).flatten().unwrap();
        assert!(ended.output.len() <= OUTPUT);
    }

    // spec: AGENT-2
    #[test]
    fn fields_of_another_type_are_left_out() {
        for odd in [
            json!(null),
            json!(7),
            json!("text"),
            json!([7, [], {}]),
            json!({"name": 7, "ip-addresses": "x", "pid": "1"}),
        ] {
            let (_, _, _, _) = (info(&odd), os(&odd), users(&odd), filesystems(&odd));
            assert_eq!((interfaces(&odd), is_frozen(&odd), process(&odd), executed(&odd)), (vec![], None, None, None));
        }
    }
}
