//! VLANs of `tapvisor-bridge`, which not every machine's kernel has, and the stories of its page that need them.

use std::time::Duration;

use libtest_mimic::Trial;
use tests::lab::Finished;
use tests::{trial, workspace};

/// Calls and pings take moments; what must not be reached is waited for some seconds.
const LIMIT: Duration = Duration::from_secs(120);
/// Two guests boot.
const STORIES: Duration = Duration::from_secs(240);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: L2-VLAN
        trial("a port of a VLAN reaches its VLAN and gateway, and no other VLAN", access),
        // spec: L2-VLAN
        trial("a trunk carries its VLANs with their tags, and no other", trunk),
        // spec: L2-VLAN, L2-GUARD
        trial("a checked trunk that changes its address is cut off in its VLANs", spoof_check),
        // spec: L2-VLAN, L2-GUARD
        trial("isolated ports of a VLAN reach its gateway and not each other", isolation),
        // spec: L2-VLAN
        trial("CHECK notices a port outside its VLAN; DEL leaves no VLAN", drift),
        // spec: L2-STORY
        trial("stories: a VM and a container on one VLAN, two VLANs on one VM", stories),
    ]
}

/// What scripts here have in common. Networks are those of a host that has nothing else on `br-l2`.
const PRELUDE: &str = r#"
set -e
ip() { $IP "$@"; }
# What a case left that failed.
for name in $(ls /run/netns 2>/dev/null); do ip netns delete $name; done
for link in $(ls /sys/class/net); do case $link in br-l2*|br-lan*) ip link delete $link 2>/dev/null || true ;; esac; done
rm -rf /run/tapvisor/bridge /run/tapvisor/addresses /run/tapvisor/networks /tmp/l2
mkdir -p /tmp/l2
# net NAME SUBNET FIRST FIELDS: a configuration, with addresses from number FIRST of a subnet
net() {
    echo "{\"cniVersion\": \"1.0.0\", \"name\": \"$1\", \"type\": \"tapvisor-bridge\", \"bridge\": \"br-l2\", $4,
        \"ipam\": {\"type\": \"host-local\", \"ranges\": [[{\"subnet\": \"10.77.$2.0/24\", \"rangeStart\": \"10.77.$2.$3\"}],
        [{\"subnet\": \"fd77:$2::/64\", \"rangeStart\": \"fd77:$2::$3\"}]]}}"
}
call() { # VERB POD, the configuration on standard input
    CNI_COMMAND=$1 CNI_CONTAINERID=$2 CNI_NETNS=/run/netns/$2 CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin tapvisor-bridge
}
join() { # POD CONFIGURATION
    ip netns add $1
    echo "$2" >/tmp/l2/$1.conf
    call ADD $1 </tmp/l2/$1.conf >/tmp/l2/$1.result || { cat /tmp/l2/$1.result; return 1; }
}
later() { # VERB POD: with what ADD answered
    sed '$ s/}$//' /tmp/l2/$2.conf >/tmp/l2/later
    echo ", \"prevResult\": $(cat /tmp/l2/$2.result)}" >>/tmp/l2/later
    call $1 $2 </tmp/l2/later
}
end_of() { grep -o 'veth[0-9a-f]*' /tmp/l2/$1.result | head -1; }
asks() { ip netns exec $1 ping -c 1 -W $3 $2 >/dev/null 2>&1; }
reaches() { # POD ADDRESS: soon
    for attempt in 1 2 3 4 5 6 7 8 9 10; do asks $1 $2 3 && { echo "$1 reaches $2"; return; }; done
    echo "$1 does not reach $2"
}
misses() { asks $1 $2 2 && echo "$1 reaches $2, which it must not" || echo "$1 misses $2"; }
tagged() { # POD VLAN ADDRESS: an interface for frames with this tag
    ip -n $1 link add link eth0 name eth0.$2 type vlan id $2
    ip -n $1 address add $3/24 dev eth0.$2
    ip -n $1 link set eth0.$2 up
}
"#;

/// Runs a script; each of `lines` is among what it wrote.
fn run(case: &str, script: &str, lines: &[&str]) -> Finished {
    let finished = crate::run(case, &format!("{PRELUDE}\n{script}"), LIMIT);
    assert_eq!(finished.code, 0, "{finished}");
    for line in lines {
        assert!(finished.output.lines().any(|written| written == *line), "no line {line:?}\n{finished}");
    }
    finished
}

fn access() {
    let script = r#"
        ten=$(net ten 10 2 '"vlan": 10, "isGateway": true, "preserveDefaultVlan": false')
        join one "$ten"
        join two "$ten"
        join other "$(net twenty 10 100 '"vlan": 20, "preserveDefaultVlan": false')"
        for address in 10.77.10.3 fd77:10::3 10.77.10.1 fd77:10::1; do reaches one $address; done
        for address in 10.77.10.100 fd77:10::100; do misses one $address; done
        misses other 10.77.10.1
        for pod in one two other; do later CHECK $pod && echo "CHECK of $pod: as it was made"; done
    "#;
    run(
        "ports of VLANs",
        script,
        &[
            "one reaches 10.77.10.3",
            "one reaches fd77:10::3",
            "one reaches 10.77.10.1",
            "one reaches fd77:10::1",
            "one misses 10.77.10.100",
            "one misses fd77:10::100",
            "other misses 10.77.10.1",
            "CHECK of one: as it was made",
            "CHECK of two: as it was made",
            "CHECK of other: as it was made",
        ],
    );
}

/// A port with VLAN 10 and 20 to 21, and a pod in each of some VLANs.
const TRUNK: &str = r#"
    for vlan in 10 21 30; do join in$vlan "$(net v$vlan $vlan 2 "\"vlan\": $vlan, \"preserveDefaultVlan\": false")"; done
    both='"vlanTrunk": [{"id": 10}, {"minID": 20, "maxID": 21}], "preserveDefaultVlan": false, "macspoofchk": true'
    join trunk "$(net both 99 2 "$both")"
    for vlan in 10 21 30; do tagged trunk $vlan 10.77.$vlan.50; done
    for vlan in 10 21; do reaches trunk 10.77.$vlan.2; done
"#;

fn trunk() {
    let script = format!(
        r#"{TRUNK}
        misses trunk 10.77.30.2
        # The VLAN of a frame is in the frame, on the trunk alone.
        ip netns exec trunk tcpdump -Z root -c 1 -w /tmp/l2/trunk.pcap -i eth0 vlan 10 and icmp 2>/dev/null &
        capture=$!
        while kill -0 $capture 2>/dev/null; do reaches in10 10.77.10.50 >/dev/null; sleep 0.2; done
        wait $capture && echo "a frame with tag 10"
        later CHECK trunk && echo "CHECK: as it was made"
        bridge vlan show dev $(end_of trunk)
        "#
    );
    let finished = run(
        "a trunk",
        &script,
        &[
            "trunk reaches 10.77.10.2",
            "trunk reaches 10.77.21.2",
            "trunk misses 10.77.30.2",
            "a frame with tag 10",
            "CHECK: as it was made",
        ],
    );
    let words: Vec<_> = finished.output.split_whitespace().skip_while(|word| *word != "vlan-id").skip(2).collect();
    assert_eq!(words, ["10", "20", "21"], "{finished}");
}

fn spoof_check() {
    let script = format!(
        r#"{TRUNK}
        own=$(ip netns exec trunk cat /sys/class/net/eth0/address)
        for vlan in 10 21; do ip -n trunk link set eth0.$vlan address 02:00:00:00:66:66; done
        for vlan in 10 21; do misses trunk 10.77.$vlan.2; done
        ip -n trunk link set eth0.10 address $own
        echo again; reaches trunk 10.77.10.2
        "#
    );
    let finished = run("a checked trunk", &script, &["trunk misses 10.77.10.2", "trunk misses 10.77.21.2"]);
    assert!(finished.output.ends_with("again\ntrunk reaches 10.77.10.2\n"), "{finished}");
}

fn isolation() {
    let script = r#"
        ten=$(net ten 10 2 '"vlan": 10, "isGateway": true, "portIsolation": true')
        join one "$ten"
        join two "$ten"
        for pod in one two; do reaches $pod 10.77.10.1; done
        misses one 10.77.10.3
        misses two fd77:10::2
    "#;
    let lines = ["one reaches 10.77.10.1", "two reaches 10.77.10.1", "one misses 10.77.10.3", "two misses fd77:10::2"];
    run("isolated ports of a VLAN", script, &lines);
}

fn drift() {
    let script = r#"
        join one "$(net ten 10 2 '"vlan": 10, "preserveDefaultVlan": false')"
        end=$(end_of one)
        later CHECK one && echo "as it was made"
        bridge vlan delete dev $end vid 10
        later CHECK one || true
        echo
        bridge vlan add dev $end vid 10 pvid untagged
        later CHECK one && echo "mended"
        ip link set br-l2 type bridge vlan_filtering 0
        later CHECK one || true
        echo
        later DEL one
        echo "left: $(ls /sys/class/net | grep -cx $end) ends, $(find /run/tapvisor/bridge -type f | wc -l) records, $(bridge vlan show dev $end 2>/dev/null | wc -l) lines"
    "#;
    let expected = ["as it was made", "mended", "left: 0 ends, 0 records, 0 lines"];
    let finished = run("a port outside its VLAN", script, &expected);
    assert!(finished.output.contains("is not in VLAN 10"), "{finished}");
    assert!(finished.output.contains("bridge br-l2 has no VLAN filtering"), "{finished}");
}

/// The blocks of a kind on the page, below a heading of it.
fn blocks(page: &str, heading: &str, kind: &str) -> Vec<String> {
    let part = page.split("\n## ").find(|part| part.starts_with(heading));
    let part = part.unwrap_or_else(|| panic!("the page has no part {heading:?}"));
    let (fence, mut found) = (format!("```{kind}\n"), Vec::new());
    for block in part.split(&fence).skip(1) {
        found.push(block.split("```").next().unwrap_or_default().to_owned());
    }
    assert!(!found.is_empty(), "no block of {kind} below {heading:?}");
    found
}

/// What the page says, in its order.
fn stories() {
    let page = std::fs::read_to_string(workspace().join("bridge/LAYER2.md")).expect("the page is there");
    let (vlan, trunk) = ("A VM and a container on one VLAN", "Two VLANs on one VM");
    let mut script = format!(
        "{PRELUDE}\nsudo() {{ \"$@\"; }}\nmkdir -p /etc/tapvisor/net.d /opt/cni/bin /var/cache/tapvisor examples\n\
         cp $LAB/bin/tapvisor-bridge /opt/cni/bin/\ntapvisor image import $LAB/images\n"
    );
    for (heading, names) in [(vlan, &["lan10", "lan20"][..]), (trunk, &["trunk"])] {
        let files = blocks(&page, heading, "json");
        assert_eq!(files.len(), names.len());
        for (file, name) in files.iter().zip(names) {
            assert!(page.contains(&format!("`/etc/tapvisor/net.d/{name}.conf`")), "{name}");
            script.push_str(&format!("cat >/etc/tapvisor/net.d/{name}.conf <<'END'\n{file}END\n"));
        }
    }
    for name in ["vlan", "trunk"] {
        let path = workspace().join(format!("examples/{name}.yaml"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        script.push_str(&format!("cat >examples/{name}.yaml <<'END'\n{text}END\n"));
    }
    script.push_str("ip -o link | cut -d: -f2 | cut -d@ -f1 >/tmp/l2/links\n");
    for (heading, sign) in [(vlan, "in VLANs"), (trunk, "between VLANs"), ("Putting it away", "put away")] {
        for block in blocks(&page, heading, "sh") {
            script.push_str(&block);
        }
        script.push_str(&format!("echo 'story: {sign}'\n"));
    }
    script.push_str(
        "ip -o link | cut -d: -f2 | cut -d@ -f1 | diff /tmp/l2/links - && echo \"links as before, $(ls /run/netns | wc -l) namespaces\"\n",
    );
    let finished = crate::run("stories of VLANs", &script, STORIES);
    assert_eq!(finished.code, 0, "{finished}");
    println!("{}", finished.output);
    for line in ["not from another VLAN", "story: in VLANs", "story: between VLANs", "story: put away"] {
        assert!(finished.output.lines().any(|written| written == line), "no line {line:?}\n{finished}");
    }
    for text in ["VM default/desk", "container box10", "container box20", "VLAN 10", "VLAN 20", "10.10.0.2"] {
        assert!(finished.output.contains(text), "{text}\n{finished}");
    }
    assert!(finished.output.contains("links as before, 0 namespaces"), "{finished}");
}
