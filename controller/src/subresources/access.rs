//! Whether a user may do what a request asks for: one SubjectAccessReview for each call.

use hyper::Method;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use super::path::{GROUP, Route};
use super::status::Failure;
use super::trust::User;

/// The verb of access rules for a method; `None` for methods that no subresource has.
fn verb(method: &Method) -> Option<&'static str> {
    match *method {
        Method::GET | Method::HEAD => Some("get"),
        Method::PUT => Some("update"),
        _ => None,
    }
}

/// What is to be reviewed; `None` for documents that everyone may read.
///
/// # Errors
/// The method is none of a subresource.
fn attributes(route: &Route, method: &Method) -> Result<Option<ResourceAttributes>, Failure> {
    let verb = || verb(method).map(str::to_owned).ok_or_else(|| Failure::method("GET or PUT"));
    let group = Some(GROUP.to_owned());
    match route {
        Route::Open(_) => Ok(None),
        Route::Object(target) => Ok(Some(ResourceAttributes {
            group,
            version: Some(target.version.to_owned()),
            namespace: Some(target.namespace.clone()),
            resource: Some(target.resource().to_owned()),
            name: Some(target.name.clone()),
            subresource: Some(target.subresource()),
            verb: Some(verb()?),
            ..ResourceAttributes::default()
        })),
        Route::ExpandSpec { version, namespace } => Ok(Some(ResourceAttributes {
            group,
            version: Some((*version).to_owned()),
            namespace: Some(namespace.clone()),
            resource: Some("expand-vm-spec".to_owned()),
            verb: Some(verb()?),
            ..ResourceAttributes::default()
        })),
    }
}

/// Asks the API server; `user` is who the front proxy named, if a front proxy it was.
///
/// # Errors
/// The user is not known, has no such right, or the review failed.
pub(super) async fn authorize(
    client: &Client,
    route: &Route,
    method: &Method,
    user: Option<User>,
) -> Result<(), Failure> {
    let Some(attributes) = attributes(route, method)? else { return Ok(()) };
    let user = user.ok_or_else(|| Failure::unauthorized("the request does not come through the API server"))?;
    let message = denial(&user.name, &attributes);
    let spec = SubjectAccessReviewSpec {
        user: Some(user.name),
        uid: user.uid,
        groups: Some(user.groups),
        extra: Some(user.extra),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let reviewed = Api::<SubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await;
    let status = reviewed.map_err(|error| Failure::internal(format!("the access review failed: {error}")))?.status;
    if status.is_some_and(|status| status.allowed) { Ok(()) } else { Err(Failure::denied(message)) }
}

/// The text of the API server's own refusals.
fn denial(user: &str, attributes: &ResourceAttributes) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let subresource = attributes.subresource.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
    let resource = text(&attributes.resource);
    format!(
        "{resource}.{GROUP} \"{}\" is forbidden: User \"{user}\" cannot {} resource \"{resource}{subresource}\" in API group \"{GROUP}\" in the namespace \"{}\"",
        text(&attributes.name),
        text(&attributes.verb),
        text(&attributes.namespace),
    )
}

#[cfg(test)]
mod tests {
    use super::super::path::route;
    use super::*;

    // spec: SUB-2
    #[test]
    fn a_call_is_reviewed_by_its_verb_object_and_subresource() {
        let path = "/apis/subresources.kubevirt.io/v1/namespaces/vms/virtualmachineinstances/web/portforward/80";
        let found = attributes(&route(path).unwrap(), &Method::GET).unwrap().unwrap();
        let text = |field: &Option<String>| field.clone().unwrap();
        assert_eq!(
            [&found.verb, &found.namespace, &found.resource, &found.name, &found.subresource].map(text),
            ["get", "vms", "virtualmachineinstances", "web", "portforward"]
        );
        let refused = denial("ann", &found);
        let expected = "virtualmachineinstances.subresources.kubevirt.io \"web\" is forbidden: User \"ann\" cannot get resource \"virtualmachineinstances/portforward\" in API group \"subresources.kubevirt.io\" in the namespace \"vms\"";
        assert_eq!(refused, expected);
        assert_eq!(attributes(&route(path).unwrap(), &Method::PUT).unwrap().unwrap().verb.unwrap(), "update");
        assert_eq!(attributes(&route(path).unwrap(), &Method::DELETE).unwrap_err().code, 405);
        assert_eq!(attributes(&route("/apis").unwrap(), &Method::GET).unwrap(), None);
    }
}
