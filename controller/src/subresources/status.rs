//! Failures as Kubernetes' Status objects, with the texts that k8s.io/apimachinery gives them: clients show them to users.

use hyper::StatusCode;
use serde_json::{Value, json};

/// The group of the objects that messages name.
const GROUP: &str = "kubevirt.io";

/// What an object is called in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A VirtualMachine.
    Machine,
    /// A VirtualMachineInstance.
    Instance,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Machine => "virtualmachine",
            Self::Instance => "virtualmachineinstance",
        }
    }
}

/// A request that is answered by a Status object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    pub(super) code: StatusCode,
    reason: &'static str,
    pub(super) message: String,
    details: Value,
}

impl Failure {
    fn about(kind: Kind, name: &str) -> Value {
        json!({"name": name, "group": GROUP, "kind": kind.word()})
    }

    /// 404: the object does not exist.
    pub(super) fn not_found(kind: Kind, name: &str) -> Self {
        Self {
            code: StatusCode::NOT_FOUND,
            reason: "NotFound",
            message: format!("{}.{GROUP} \"{name}\" not found", kind.word()),
            details: Self::about(kind, name),
        }
    }

    /// 404: the path names no subresource.
    pub(super) fn no_such_path(path: &str) -> Self {
        let message = format!("the server could not find the requested resource: {path}");
        Self { code: StatusCode::NOT_FOUND, reason: "NotFound", message, details: Value::Null }
    }

    /// 409: the object is in another state.
    pub(super) fn conflict(kind: Kind, name: &str, why: impl std::fmt::Display) -> Self {
        Self {
            code: StatusCode::CONFLICT,
            reason: "Conflict",
            message: format!("Operation cannot be fulfilled on {}.{GROUP} \"{name}\": {why}", kind.word()),
            details: Self::about(kind, name),
        }
    }

    /// 403: the object must not be treated so.
    pub(super) fn forbidden(kind: Kind, name: &str, why: impl std::fmt::Display) -> Self {
        Self {
            code: StatusCode::FORBIDDEN,
            reason: "Forbidden",
            message: format!("{}.{GROUP} \"{name}\" is forbidden: {why}", kind.word()),
            details: Self::about(kind, name),
        }
    }

    /// 403: the user has no such right.
    pub(super) fn denied(message: String) -> Self {
        Self { code: StatusCode::FORBIDDEN, reason: "Forbidden", message, details: Value::Null }
    }

    /// 401: it is not known who asks.
    pub(super) fn unauthorized(why: impl std::fmt::Display) -> Self {
        let message = format!("Unauthorized: {why}");
        Self { code: StatusCode::UNAUTHORIZED, reason: "Unauthorized", message, details: Value::Null }
    }

    /// 400: the request itself is wrong. The console's client asks again after it.
    pub(super) fn bad_request(message: impl std::fmt::Display) -> Self {
        let message = message.to_string();
        Self { code: StatusCode::BAD_REQUEST, reason: "BadRequest", message, details: Value::Null }
    }

    /// 405: another method is expected.
    pub(super) fn method(expected: &str) -> Self {
        let message = format!("the server does not allow this method on the requested resource, expected {expected}");
        Self { code: StatusCode::METHOD_NOT_ALLOWED, reason: "MethodNotAllowed", message, details: Value::Null }
    }

    /// 503: another client has the only stream.
    pub(super) fn unavailable(message: &str) -> Self {
        let message = message.to_owned();
        Self { code: StatusCode::SERVICE_UNAVAILABLE, reason: "ServiceUnavailable", message, details: Value::Null }
    }

    /// 501: KubeVirt has it and this product does not.
    pub(super) fn not_implemented(message: String) -> Self {
        Self { code: StatusCode::NOT_IMPLEMENTED, reason: "NotImplemented", message, details: Value::Null }
    }

    /// 500.
    pub(super) fn internal(why: impl std::fmt::Display) -> Self {
        let cause = why.to_string();
        Self {
            code: StatusCode::INTERNAL_SERVER_ERROR,
            reason: "InternalError",
            message: format!("Internal error occurred: {cause}"),
            details: json!({"causes": [{"message": cause}]}),
        }
    }

    /// The Status object.
    pub(super) fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: SUB-3
    #[test]
    fn messages_are_those_of_apimachinery() {
        let texts = [
            (Failure::not_found(Kind::Instance, "web"), 404, "virtualmachineinstance.kubevirt.io \"web\" not found"),
            (
                Failure::conflict(Kind::Machine, "web", "VM is not running"),
                409,
                "Operation cannot be fulfilled on virtualmachine.kubevirt.io \"web\": VM is not running",
            ),
            (
                Failure::forbidden(Kind::Instance, "web", "no"),
                403,
                "virtualmachineinstance.kubevirt.io \"web\" is forbidden: no",
            ),
            (Failure::internal("no agent"), 500, "Internal error occurred: no agent"),
            (Failure::bad_request("VMI is not running"), 400, "VMI is not running"),
        ];
        for (failure, code, message) in texts {
            let status = failure.to_json();
            assert_eq!((&status["code"], &status["message"]), (&json!(code), &json!(message)));
            assert_eq!((&status["kind"], &status["apiVersion"]), (&json!("Status"), &json!("v1")));
        }
        let details = &Failure::not_found(Kind::Machine, "web").to_json()["details"];
        assert_eq!(details, &json!({"name": "web", "group": "kubevirt.io", "kind": "virtualmachine"}));
    }
}
