//! Streams that a client opens to a guest: its console, and ports of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use kube::ResourceExt as _;
use node_protocol::names::{CONSOLE, VNC};
use serde_json::Value;
use tokio::net::{TcpStream, UdpSocket};

use super::calls::{Api, instance};
use super::instance::{Launcher, failure, has_condition, is_running};
use super::path::Target;
use super::status::{Failure, Kind};
use super::websocket::{self, End, Guest};
use crate::agents::AgentError;
use crate::http::Answer;
use crate::objects::{Phase, VirtualMachineInstance};

/// Longest a guest may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Opens the serial console; it displaces the one that is open.
///
/// # Errors
/// There is no console, or none yet.
pub(super) async fn console(api: &Api, target: &Target, request: Request<Incoming>) -> Result<Answer, Failure> {
    let vmi = instance(&api.client, &target.namespace, &target.name).await?;
    check_console(&vmi)?;
    let launcher = Launcher::of(api, &vmi).await?;
    let stream = api.launchers.stream(&launcher.node, &launcher.pod, CONSOLE).await;
    let stream = stream.map_err(|error| failure(&target.name, &error))?;
    websocket::join(request, Guest::Stream(stream, End::Disconnect))
}

/// 400 means to clients: not yet.
fn check_console(vmi: &VirtualMachineInstance) -> Result<(), Failure> {
    let domain = vmi.spec.fields.get("domain").unwrap_or(&Value::Null);
    if domain.pointer("/devices/autoattachSerialConsole") == Some(&Value::Bool(false)) {
        return Err(Failure::bad_request("No serial consoles are present."));
    }
    if vmi.status.as_ref().is_some_and(|status| status.phase == Some(Phase::Failed)) {
        return Err(Failure::conflict(Kind::Instance, &vmi.name_any(), "VMI is in failed status"));
    }
    if is_running(vmi) { Ok(()) } else { Err(Failure::bad_request("VMI is not running")) }
}

/// Shows the guest's screen by VNC. It displaces the client that looks at it, unless `preserveSession=true` was asked for.
///
/// # Errors
/// There is no screen, or none yet, or another client has it and keeps it.
pub(super) async fn vnc(api: &Api, target: &Target, request: Request<Incoming>) -> Result<Answer, Failure> {
    let vmi = instance(&api.client, &target.namespace, &target.name).await?;
    check_screen(&vmi)?;
    let launcher = Launcher::of(api, &vmi).await?;
    let mut query = request.uri().query().into_iter().flat_map(|query| query.split('&'));
    let stream = match query.any(|pair| pair == "preserveSession=true") {
        true => api.launchers.free_stream(&launcher.node, &launcher.pod, VNC).await,
        false => api.launchers.stream(&launcher.node, &launcher.pod, VNC).await,
    };
    let stream = stream.map_err(|error| match error {
        AgentError::Taken => Failure::unavailable("Active VNC connection. Request denied."),
        other => failure(&target.name, &other),
    })?;
    websocket::join(request, Guest::Stream(stream, End::Disconnect))
}

/// Here a machine has graphics only when it asks for them.
fn check_screen(vmi: &VirtualMachineInstance) -> Result<(), Failure> {
    let domain = vmi.spec.fields.get("domain").unwrap_or(&Value::Null);
    if domain.pointer("/devices/autoattachGraphicsDevice") != Some(&Value::Bool(true)) {
        return Err(Failure::bad_request("No graphics devices are present."));
    }
    if is_running(vmi) { Ok(()) } else { Err(Failure::bad_request("VMI is not running")) }
}

/// Connects to a port of the guest by the address of its first NIC.
///
/// # Errors
/// The guest has no address, is paused, or refuses the connection.
pub(super) async fn port_forward(
    api: &Api,
    target: &Target,
    request: Request<Incoming>,
    port: &str,
    protocol: &str,
) -> Result<Answer, Failure> {
    let vmi = match target.kind {
        Kind::Instance => instance(&api.client, &target.namespace, &target.name).await?,
        Kind::Machine => super::machine::instance_of(api, &target.namespace, &target.name).await?,
    };
    let address = SocketAddr::new(guest_address(&vmi)?, number(port)?);
    let failed = |error: std::io::Error| Failure::internal(format!("dialing VM: {protocol} {address}: {error}"));
    match protocol {
        "tcp" => {
            let connected = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
            let stream = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            websocket::join(request, Guest::Stream(stream, End::Close))
        }
        "udp" => {
            let any: IpAddr =
                if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
            socket.connect(address).await.map_err(failed)?;
            websocket::join(request, Guest::<TcpStream>::Datagrams(socket))
        }
        other => Err(Failure::bad_request(format!("protocol {other:?}: expected tcp or udp"))),
    }
}

fn number(port: &str) -> Result<u16, Failure> {
    let number = port.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Failure::bad_request(format!("port {port:?}: expected a number from 1 to 65535")))
}

fn guest_address(vmi: &VirtualMachineInstance) -> Result<IpAddr, Failure> {
    if has_condition(vmi, "Paused") {
        return Err(Failure::conflict(Kind::Instance, &vmi.name_any(), "VMI is paused"));
    }
    let first = vmi.status.as_ref().and_then(|status| status.interfaces.first());
    let first = first.ok_or_else(|| Failure::bad_request("no network interfaces are present"))?;
    let address = first.ip_address.as_deref().and_then(|address| address.parse().ok());
    address.ok_or_else(|| Failure::bad_request(format!("the network interface {} has no address yet", first.name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vmi(spec: Value, status: Value) -> VirtualMachineInstance {
        let object = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"namespace": "vms", "name": "web"}, "spec": spec, "status": status});
        serde_json::from_value(object).unwrap()
    }

    // spec: SUB-4
    #[test]
    fn a_console_of_a_guest_that_does_not_run_yet_is_asked_for_again() {
        let check = |spec: Value, phase: &str| check_console(&vmi(spec, json!({"phase": phase})));
        let code = |checked: Result<(), Failure>| checked.unwrap_err().code.as_u16();
        assert_eq!(check(json!({}), "Running"), Ok(()));
        assert_eq!(check(json!({}), "Scheduling").unwrap_err().message, "VMI is not running");
        assert_eq!(code(check(json!({}), "Scheduling")), 400);
        assert_eq!(code(check(json!({}), "Failed")), 409);
        let without = json!({"domain": {"devices": {"autoattachSerialConsole": false}}});
        assert_eq!(check(without, "Running").unwrap_err().message, "No serial consoles are present.");
    }

    // spec: SUB-8
    #[test]
    fn a_screen_is_there_only_for_a_guest_that_asks_for_graphics() {
        let check = |attach: Value, phase: &str| {
            let spec = json!({"domain": {"devices": {"autoattachGraphicsDevice": attach}}});
            check_screen(&vmi(spec, json!({"phase": phase}))).map_err(|failure| failure.message)
        };
        assert_eq!(check(json!(true), "Running"), Ok(()));
        assert_eq!(check(json!(true), "Scheduled").unwrap_err(), "VMI is not running");
        for attach in [json!(false), Value::Null] {
            assert_eq!(check(attach, "Running").unwrap_err(), "No graphics devices are present.");
        }
    }

    // spec: SUB-5
    #[test]
    fn a_port_is_reached_by_the_first_nics_address() {
        let nics = json!([{"name": "default", "ipAddress": "10.244.1.7"}, {"name": "lan", "ipAddress": "10.0.0.1"}]);
        assert_eq!(guest_address(&vmi(json!({}), json!({"interfaces": nics}))).unwrap().to_string(), "10.244.1.7");
        assert_eq!(guest_address(&vmi(json!({}), json!({}))).unwrap_err().message, "no network interfaces are present");
        let paused = json!({"interfaces": nics, "conditions": [{"type": "Paused", "status": "True"}]});
        assert_eq!(guest_address(&vmi(json!({}), paused)).unwrap_err().code, 409);
        assert_eq!(number("80").unwrap(), 80);
        for port in ["0", "65536", "http", ""] {
            assert_eq!(number(port).unwrap_err().code, 400);
        }
    }
}
