//! Addresses from another plugin: it gets our environment and the whole configuration (specification section 4).

use cni_protocol::plugin::{AttachmentKey, NetConf, Verb};
use cni_protocol::runtime::{ExecError, delegate};
use cni_protocol::spec::{CniResult, Code, Error};
use serde_json::Value;

pub(super) fn add(kind: &str, conf: &NetConf) -> Result<CniResult, Error> {
    let answer = call(kind, Verb::Add, conf, None)?.unwrap_or_default();
    Ok(CniResult::from_document(&answer, conf.version())?)
}

/// `instead` names another attachment than the environment does.
pub(super) fn call(
    kind: &str,
    verb: Verb,
    conf: &NetConf,
    instead: Option<&AttachmentKey>,
) -> Result<Option<Value>, Error> {
    delegate(kind, verb, conf.text(), instead).map_err(|error| {
        let code = match &error {
            ExecError::Refused { source, .. } => source.code,
            ExecError::NotFound { .. } => Code::INVALID_CONFIG,
            ExecError::Late { .. } => Code::TRY_AGAIN,
            _ => Code::INTERNAL,
        };
        Error::from_chain(code, &error)
    })
}
