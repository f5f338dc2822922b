//! Makes the clients and servers of kubelet's and the runtime's gRPC services from their methods, without `protoc`.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let codec = "tonic_prost::ProstCodec";
    let method = |name: &str, route: &str, input: &str, output: &str| {
        let messages = "crate::grpc";
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("{messages}::{input}"))
            .output_type(format!("{messages}::{output}"))
            .codec_path(codec)
    };
    let registration = Service::builder()
        .name("Registration")
        .package("v1beta1")
        .method(method("register", "Register", "RegisterRequest", "Empty").build())
        .build();
    let plugin = Service::builder()
        .name("DevicePlugin")
        .package("v1beta1")
        .method(method("get_device_plugin_options", "GetDevicePluginOptions", "Empty", "DevicePluginOptions").build())
        .method(method("list_and_watch", "ListAndWatch", "Empty", "ListAndWatchResponse").server_streaming().build())
        .method(method("allocate", "Allocate", "AllocateRequest", "AllocateResponse").build())
        .build();
    let runtime = Service::builder()
        .name("RuntimeService")
        .package("runtime.v1")
        .method(method("list_pod_sandbox", "ListPodSandbox", "ListPodSandboxRequest", "ListPodSandboxResponse").build())
        .method(
            method("pod_sandbox_status", "PodSandboxStatus", "PodSandboxStatusRequest", "PodSandboxStatusResponse")
                .build(),
        )
        .build();
    Builder::new().build_server(false).compile(&[registration, runtime]);
    Builder::new().build_client(false).compile(&[plugin]);
}
