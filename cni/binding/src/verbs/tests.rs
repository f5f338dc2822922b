//! The verbs one after another on a kernel in memory.

use hostnet::facts::{Address, AddressScope, Route};
use hostnet::nft::Table;
use hostnet::{Failure, Fake, KernelError};

use super::*;
use crate::Refusal;
use crate::mark::FIRST_GROUP;

const ONE: u32 = FIRST_GROUP + 1;
const OTHER: u32 = FIRST_GROUP + 2;

/// A pod with two families after its network's plugin.
fn pod() -> Facts {
    serde_json::from_str(include_str!("../../tests/golden/masquerade-dual-stack/facts.json")).unwrap()
}

/// The same without addresses: a NIC of a pure layer 2 network.
fn layer_2() -> Facts {
    let eth0 = |link: &IfName| link.as_str() == "eth0";
    let mut facts = pod();
    facts.addresses.retain(|address| !eth0(&address.link));
    facts.routes.retain(|route| !route.link.as_ref().is_some_and(eth0));
    facts
}

fn request(binding: &str, more: &str) -> Request {
    let text = r#"{"version":1,"owner":{"uid":107,"gid":107},"interfaces":[{"name":"default","podInterface":"eth0""#;
    Request::parse(&format!(r#"{text},"binding":"{binding}"{more}}}]}}"#)).unwrap()
}

fn wired(facts: Facts, request: &Request) -> Fake {
    let mut kernel = Fake::new(facts);
    add(&mut kernel, request, &[], ONE, false).unwrap();
    check(&mut kernel, request, ONE).unwrap();
    kernel
}

fn is_incomplete(error: &BindingError) -> bool {
    matches!(error, BindingError::Refused(Refusal::Incomplete(_)))
}

// spec: CNI-ADD-2
#[test]
fn add_after_a_del_killed_anywhere_refuses_or_completes_the_wiring() {
    for request in [request("masquerade", ""), request("bridge", r#","mac":"02:00:00:00:00:09""#)] {
        let whole = wired(pod(), &request);
        let mut refusals = 0;
        for step in 0.. {
            // A process that is killed does no further step; every failure after the first is one that it never came to.
            let mut cut = Killed { kernel: whole.clone(), left: step };
            let done = del(&mut cut, Some(&request), ONE).is_ok();
            let mut kernel = cut.kernel;
            match add(&mut kernel, &request, &[], ONE, false) {
                Ok(_) => check(&mut kernel, &request, ONE).unwrap(),
                Err(error) => {
                    assert!(is_incomplete(&error), "step {step}: {error}");
                    refusals += 1;
                }
            }
            del(&mut kernel, Some(&request), ONE).unwrap();
            assert_eq!(kernel.facts().links, pod().links, "step {step}");
            if done {
                break;
            }
        }
        assert!(refusals > 0, "no step of DEL was between two states");
    }
}

#[test]
fn a_wiring_whose_tables_or_settings_are_gone_is_not_called_wired() {
    let request = request("masquerade", "");
    let mut kernel = wired(pod(), &request);
    let table = kernel.facts().tables.first().unwrap().id.clone();
    kernel.execute(&[Op::Nft(hostnet::nft::Transaction::delete([table]))]).unwrap();
    let error = add(&mut kernel, &request, &[], ONE, false).unwrap_err();
    assert!(error.to_string().contains("tapvisor is missing, although taps carry this request's mark"), "{error}");
    let mut kernel = wired(pod(), &request);
    let key = Sysctl::net("ipv4/ip_forward");
    kernel.execute(&[Op::WriteSysctl { key, value: "0".to_owned() }]).unwrap();
    let error = add(&mut kernel, &request, &[], ONE, false).unwrap_err();
    assert!(error.to_string().starts_with("sysctl net/ipv4/ip_forward is 0, not 1"), "{error}");
}

// spec: CNI-CHECK
#[test]
fn check_and_a_second_add_accept_later_routes_addresses_and_mtu() {
    let request = request("masquerade", r#","mtu":1400"#);
    let mut facts = pod();
    let later = |facts: &mut Facts| {
        let eth0: IfName = "eth0".parse().unwrap();
        facts.routes.push(Route::by(eth0.clone(), "10.0.0.0/8".parse().unwrap()));
        facts.addresses.push(Address {
            scope: AddressScope::Host,
            ..Address::permanent("lo".parse().unwrap(), "10.0.2.77/32".parse().unwrap())
        });
        facts.links.iter_mut().filter(|link| link.name == eth0).for_each(|link| link.mtu_bytes = 1300);
    };
    let mut changed = wired(facts.clone(), &request).facts().clone();
    later(&mut changed);
    let mut kernel = Fake::new(changed);
    check(&mut kernel, &request, ONE).unwrap();
    assert_eq!(add(&mut kernel, &request, &[], ONE, false).unwrap().plan, Plan::default());
    // A wiring that is still to be made is refused by each of them.
    later(&mut facts);
    let error = add(&mut Fake::new(facts), &request, &[], ONE, false).unwrap_err();
    assert!(matches!(error, BindingError::Refused(Refusal::Overlap { .. })), "{error}");
}

// spec: CNI-ADD-3
#[test]
fn the_same_request_of_another_attachment_is_met_and_passes_check() {
    for (facts, request) in
        [(pod(), request("masquerade", "")), (pod(), request("bridge", "")), (layer_2(), request("bridge", ""))]
    {
        let mut kernel = wired(facts, &request);
        let before = kernel.facts().clone();
        assert_eq!(add(&mut kernel, &request, &[], OTHER, false).unwrap().plan, Plan::default());
        check(&mut kernel, &request, OTHER).unwrap();
        // The taps belong to the one that made them.
        del(&mut kernel, Some(&request), OTHER).unwrap();
        assert_eq!(*kernel.facts(), before);
        check(&mut kernel, &request, ONE).unwrap();
        del(&mut kernel, Some(&request), ONE).unwrap();
        let error = check(&mut kernel, &request, OTHER).unwrap_err();
        assert!(error.to_string().contains("is missing"), "{error}");
    }
}

// spec: CNI-DEL-4
#[test]
fn del_removes_what_is_there_where_the_kernel_has_no_tables_at_all() {
    let request = request("masquerade", "");
    for errno in [93, 22] {
        let mut kernel = WithoutTables { kernel: Fake::new(pod()), errno };
        del(&mut kernel, Some(&request), ONE).unwrap();
        assert_eq!(*kernel.kernel.facts(), pod());
        assert!(matches!(add(&mut kernel, &request, &[], ONE, false), Err(BindingError::Read(_))));
    }
    let mut kernel = WithoutTables { kernel: Fake::new(pod()), errno: 1 };
    assert!(matches!(del(&mut kernel, Some(&request), ONE), Err(BindingError::Read(_))));
}

/// A kernel that hears so many operations of a process, and then no more.
struct Killed {
    kernel: Fake,
    left: usize,
}

impl Kernel for Killed {
    fn gather(&mut self, ask: &Ask) -> Result<Facts, KernelError> {
        self.kernel.gather(ask)
    }

    fn holds(&mut self, tables: &[Table], facts: &Facts) -> Result<bool, KernelError> {
        self.kernel.holds(tables, facts)
    }

    fn execute(&mut self, ops: &[Op]) -> Result<(), Failure> {
        for (index, op) in ops.iter().enumerate() {
            let Some(left) = self.left.checked_sub(1) else {
                return Err(Failure { index, what: op.to_string(), error: KernelError::refused(5) });
            };
            self.left = left;
            self.kernel.execute(std::slice::from_ref(op))?;
        }
        Ok(())
    }
}

/// A kernel that does not know of tables, and says so with that number.
struct WithoutTables {
    kernel: Fake,
    errno: i32,
}

impl Kernel for WithoutTables {
    fn gather(&mut self, ask: &Ask) -> Result<Facts, KernelError> {
        if ask.table_ids { Err(KernelError::refused(self.errno)) } else { self.kernel.gather(ask) }
    }

    fn holds(&mut self, tables: &[Table], facts: &Facts) -> Result<bool, KernelError> {
        self.kernel.holds(tables, facts)
    }

    fn execute(&mut self, ops: &[Op]) -> Result<(), Failure> {
        self.kernel.execute(ops)
    }
}
