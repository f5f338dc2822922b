//! A device plugin per device: kubelet asks over its socket which devices there are and what a container gets.
//!
//! Flow: serve a socket in kubelet's folder, register it, and look at it from time to time: kubelet removes all sockets when
//! it starts, and a plugin whose socket is gone serves a new one and registers again.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use tokio::net::UnixListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use crate::devices::Device;
use crate::grpc::{self, AllocateRequest, AllocateResponse, DevicePluginOptions, Empty, ListAndWatchResponse};

/// How many containers may have the device at once: it is no scarce thing.
const CAPACITY: usize = 1000;
/// kubelet's own socket in the folder.
const KUBELET: &str = "kubelet.sock";
const LOOK: Duration = Duration::from_secs(1);
const REGISTER: Duration = Duration::from_secs(10);

/// How a container gets the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Access {
    /// By a CDI specification, which names owner and mode: containerd 2.0, CRI-O 1.23, kubelet 1.28 and newer.
    Cdi,
    /// As on the host, with the host's owner and mode: the container's user must be able to open it.
    Spec,
}

/// What kubelet is told to give a container that asked for a device.
#[must_use]
pub(crate) fn allocation(device: Device, access: Access) -> grpc::ContainerAllocateResponse {
    match access {
        Access::Cdi => grpc::ContainerAllocateResponse {
            cdi_devices: vec![grpc::CdiDevice { name: device.cdi_name() }],
            devices: Vec::new(),
        },
        Access::Spec => {
            let path = device.path().to_owned();
            let node = grpc::DeviceSpec { container_path: path.clone(), host_path: path, permissions: "rw".to_owned() };
            grpc::ContainerAllocateResponse { devices: vec![node], cdi_devices: Vec::new() }
        }
    }
}

/// Offers a device until the process ends.
///
/// # Errors
/// When the folder is not kubelet's, or takes no socket.
pub(crate) async fn offer(device: Device, access: Access, folder: PathBuf) -> io::Result<()> {
    let socket = folder.join(format!("tapvisor-{}.sock", device.name()));
    loop {
        crate::files::remove(&socket)?;
        let listener = UnixListener::bind(&socket)?;
        let inode = std::fs::symlink_metadata(&socket)?.ino();
        let plugin = grpc::DevicePluginServer::new(Plugin { device, access });
        let server = tonic::transport::Server::builder().serve_with_incoming(plugin, UnixListenerStream::new(listener));
        let server = tokio::spawn(server);
        let registered = tokio::time::timeout(REGISTER, register(device, &folder, &socket)).await;
        match registered.map_err(|_| Status::deadline_exceeded("kubelet does not answer")).and_then(|done| done) {
            Ok(()) => {
                tracing::info!(resource = device.resource(), ?access, "registered at kubelet");
                until_gone(&socket, inode).await;
                tracing::info!(resource = device.resource(), "kubelet has restarted");
            }
            Err(error) => {
                tracing::warn!(
                    resource = device.resource(),
                    error = error.message(),
                    "not registered at kubelet, retrying"
                );
                tokio::time::sleep(LOOK).await;
            }
        }
        server.abort();
    }
}

/// Whether the socket is another one, or none.
async fn until_gone(socket: &Path, inode: u64) {
    while tokio::fs::symlink_metadata(socket).await.is_ok_and(|found| found.ino() == inode) {
        tokio::time::sleep(LOOK).await;
    }
}

async fn register(device: Device, folder: &Path, socket: &Path) -> Result<(), Status> {
    let mut kubelet = grpc::RegistrationClient::new(grpc::connect(folder.join(KUBELET)));
    let request = grpc::RegisterRequest {
        version: grpc::DEVICE_PLUGIN_VERSION.to_owned(),
        endpoint: socket.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        resource_name: device.resource().to_owned(),
        options: Some(DevicePluginOptions::default()),
    };
    kubelet.register(request).await.map(drop)
}

/// One device as kubelet sees it.
#[derive(Debug)]
struct Plugin {
    device: Device,
    access: Access,
}

#[tonic::async_trait]
impl grpc::DevicePlugin for Plugin {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions::default()))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let device =
            |number| grpc::Device { id: format!("{}-{number}", self.device.name()), health: "Healthy".to_owned() };
        let all = ListAndWatchResponse { devices: (0..CAPACITY).map(device).collect() };
        // Nothing changes after the first answer; the stream stays open, for its end means that the plugin is gone.
        let stream = tokio_stream::once(Ok(all)).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn allocate(&self, request: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let containers = request.into_inner().container_requests.len();
        let container_responses = vec![allocation(self.device, self.access); containers];
        Ok(Response::new(AllocateResponse { container_responses }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: NODE-2
    #[test]
    fn a_container_gets_the_node_by_cdi_or_as_on_the_host() {
        let cdi = allocation(Device::VhostNet, Access::Cdi);
        assert_eq!((cdi.cdi_devices[0].name.as_str(), cdi.devices.len()), ("tapvisor.io/device=vhost-net", 0));
        let spec = allocation(Device::Tun, Access::Spec);
        assert_eq!((spec.devices[0].host_path.as_str(), spec.devices[0].permissions.as_str()), ("/dev/net/tun", "rw"));
        assert!(spec.cdi_devices.is_empty());
    }

    // spec: NODE-2
    #[tokio::test]
    async fn a_plugin_whose_socket_was_removed_or_replaced_notices() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("a.sock");
        std::fs::write(&socket, "").unwrap();
        let inode = std::fs::metadata(&socket).unwrap().ino();
        assert!(tokio::time::timeout(Duration::from_millis(50), until_gone(&socket, inode)).await.is_err());
        std::fs::rename(&socket, folder.path().join("b.sock")).unwrap();
        std::fs::write(&socket, "").unwrap();
        until_gone(&socket, inode).await;
        std::fs::remove_file(&socket).unwrap();
        until_gone(&socket, inode).await;
    }
}
