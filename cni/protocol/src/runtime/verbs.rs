//! The verbs over a whole list.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use terms::{ContainerId, IfName, NetworkName};

use super::cache::Cache;
use super::exec::{Executor, Log};
use super::list::PluginConf;
use super::{Attachment, CacheError, Cached, ConfigList, ExecError, document};
use crate::plugin::{AttachmentKey, Verb};
use crate::spec::{CniResult, Version};

/// How long one verb of one plugin may take. kubelet gives up on a pod's sandbox after four minutes: the failing plugin and
/// the DEL that undoes it fit into that.
const PATIENCE: Duration = Duration::from_secs(110);

/// Executes lists of plugins and remembers what it attached.
pub struct Runtime {
    cache: Cache,
    executor: Executor,
}

/// Why a verb failed for a whole configuration list.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum RuntimeError {
    /// A plugin could not be executed, answered with an error, or did not answer.
    #[error(transparent)]
    Plugin(#[from] ExecError),
    /// A plugin's answer is no result.
    #[error("plugin {plugin}: its answer")]
    Result {
        plugin: String,
        /// What is wrong with it.
        source: crate::spec::ResultError,
    },
    /// The record of the attachment could not be read, written or removed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The attachment lacks something, or holds what cannot be passed on.
    #[error("attachment {container_id}/{if_name}: {reason}")]
    Attachment { container_id: ContainerId, if_name: IfName, reason: String },
    /// The network's version has no such verb.
    #[error("network {network}: {verb} came with a later version than {version}", verb = verb.as_str())]
    NoVerb { network: NetworkName, verb: Verb, version: Version },
    /// ADD failed, and undoing it too.
    #[error("{add}; and undoing it: {undo}", add = chain(add), undo = chain(undo))]
    Undo {
        /// Why ADD failed.
        add: Box<RuntimeError>,
        /// Why the DEL after it failed.
        undo: Box<RuntimeError>,
    },
    /// Several things failed on the way down.
    #[error("{}", .0.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "))]
    Several(Vec<RuntimeError>),
}

/// A list and an attachment with its arguments' text: what every call to a plugin needs.
struct Call<'a> {
    list: &'a ConfigList,
    attachment: &'a Attachment,
    args: String,
}

/// How far an ADD came.
#[derive(Default)]
struct Progress {
    /// Plugins that were asked, the one that failed included.
    asked: usize,
    /// Plugins that answered with a result.
    added: usize,
    /// The answer of the last one that did not fail.
    result: Option<Value>,
}

impl Runtime {
    /// A runtime with its cache files in `<cache_dir>/results` and plugins in `bin_dirs`. What plugins write to stderr goes
    /// to ours.
    #[must_use]
    pub fn new(cache_dir: &Path, bin_dirs: Vec<PathBuf>) -> Self {
        let log: Box<Log> = Box::new(|plugin, line| eprintln!("{plugin}: {line}"));
        Self { cache: Cache::new(cache_dir), executor: Executor { bin_dirs, log, patience: PATIENCE } }
    }

    /// The same runtime with another time for one verb of one plugin; one that takes longer is killed with all it started.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.executor.patience = patience;
        self
    }

    /// The same runtime with another receiver for the lines that plugins write to stderr: the plugin's type and the line.
    #[must_use]
    pub fn with_log(mut self, log: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        self.executor.log = Box::new(log);
        self
    }

    /// ADD, forward. What fails is undone by DEL of the plugins that were asked.
    ///
    /// # Errors
    /// When the attachment has no namespace, a plugin is missing or fails, or the cache cannot be written.
    pub fn add(&self, list: &ConfigList, attachment: &Attachment) -> Result<CniResult, RuntimeError> {
        let call = Call::new(list, attachment)?;
        call.expect_netns()?;
        list.types().try_for_each(|plugin| self.executor.find(plugin).map(drop))?;
        self.cache.write(&Cached { list: list.clone(), attachment: attachment.clone(), result: None, added: None })?;
        let mut progress = Progress::default();
        self.add_all(&call, &mut progress).map_err(|error| self.undo(&call, &progress, error))
    }

    /// CHECK, forward. Does nothing when the network says `disableCheck`.
    ///
    /// # Errors
    /// When a plugin finds something amiss, nothing is known of the attachment, or the network is older than CHECK.
    pub fn check(&self, list: &ConfigList, attachment: &Attachment) -> Result<(), RuntimeError> {
        if list.disable_check {
            return Ok(());
        }
        if !list.version.has_check() {
            let (network, version) = (list.name.clone(), list.version);
            return Err(RuntimeError::NoVerb { network, verb: Verb::Check, version });
        }
        let call = Call::new(list, attachment)?;
        call.expect_netns()?;
        let cached = self.cached_one(list.name(), &attachment.container_id, &attachment.if_name)?;
        let result = cached.and_then(|cached| cached.result).ok_or_else(|| call.bad("no result of ADD is known"))?;
        for plugin in &list.plugins {
            self.run(&call, plugin, Verb::Check, Some(&result))?;
        }
        Ok(())
    }

    /// DEL, in reverse, with the configuration of ADD if that is known, else with `list`. Goes on past failures.
    ///
    /// # Errors
    /// All failures; the attachment is then still known and DEL can be repeated.
    pub fn del(&self, list: &ConfigList, attachment: &Attachment) -> Result<(), RuntimeError> {
        match self.cached_one(list.name(), &attachment.container_id, &attachment.if_name) {
            Ok(Some(cached)) => {
                let attachment = Attachment { netns: attachment.netns.clone(), ..cached.attachment };
                self.del_cached(&Cached { attachment, ..cached })
            }
            // A file that cannot be read must not keep an attachment alive.
            Ok(None) | Err(_) => {
                let (list, attachment) = (list.clone(), attachment.clone());
                self.del_cached(&Cached { list, attachment, result: None, added: None })
            }
        }
    }

    /// DEL of an attachment that the cache lists, whatever became of its configuration file.
    ///
    /// # Errors
    /// As [`Runtime::del`].
    pub fn del_cached(&self, cached: &Cached) -> Result<(), RuntimeError> {
        let Cached { list, attachment, result, added } = cached;
        let call = Call::new(list, attachment)?;
        self.del_plugins(&call, &list.plugins, result.as_ref(), added.unwrap_or(list.plugins.len()))?;
        Ok(self.cache.remove(list.name(), attachment)?)
    }

    /// GC: DEL of what the cache knows of this network and `valid` does not list, then the verb.
    ///
    /// # Errors
    /// All failures.
    pub fn gc(&self, list: &ConfigList, valid: &[AttachmentKey]) -> Result<(), RuntimeError> {
        if list.disable_gc {
            return Ok(());
        }
        let mut errors = Vec::new();
        for cached in self.cached()? {
            match cached {
                Ok(cached) if cached.list.name() != list.name() || valid.contains(&cached.attachment.key()) => {}
                Ok(cached) => errors.extend(self.del_cached(&cached).err()),
                Err(error) => errors.push(error.into()),
            }
        }
        if list.version.has_gc_and_status() {
            for plugin in &list.plugins {
                let conf = document::for_gc(list, plugin, valid);
                errors.extend(self.executor.run(&plugin.kind, Verb::Gc, None, &conf).err().map(RuntimeError::from));
            }
        }
        all(errors)
    }

    /// STATUS, forward, to the first plugin that is not ready. Networks older than the verb are taken to be ready.
    ///
    /// # Errors
    /// The plugin's answer.
    pub fn status(&self, list: &ConfigList) -> Result<(), RuntimeError> {
        if !list.version.has_gc_and_status() {
            return Ok(());
        }
        for plugin in &list.plugins {
            self.executor.run(&plugin.kind, Verb::Status, None, &document::for_status(list, plugin))?;
        }
        Ok(())
    }

    /// VERSION of one plugin: the versions it speaks, as it writes them.
    ///
    /// # Errors
    /// When the plugin is missing or does not answer as the specification says.
    pub fn versions(&self, plugin: &str) -> Result<Vec<String>, RuntimeError> {
        let asked = serde_json::json!({"cniVersion": Version::NEWEST.as_str()});
        let answer = self.executor.run(plugin, Verb::Version, None, &asked)?.unwrap_or_default();
        let spoken = answer.get("supportedVersions").and_then(Value::as_array).into_iter().flatten();
        Ok(spoken.filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Forgets an attachment without a DEL, for a namespace that is removed whatever is left of it elsewhere.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn forget(&self, list: &ConfigList, attachment: &Attachment) -> Result<(), RuntimeError> {
        Ok(self.cache.remove(list.name(), attachment)?)
    }

    /// Every attachment that was made or begun and not detached; a file that cannot be read is an error in its place.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn cached(&self) -> Result<Vec<Result<Cached, CacheError>>, CacheError> {
        self.cache.read_all()
    }

    /// One attachment, if it is known.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn cached_one(
        &self,
        network: &NetworkName,
        container_id: &ContainerId,
        if_name: &IfName,
    ) -> Result<Option<Cached>, CacheError> {
        self.cache.read(network, container_id, if_name)
    }

    fn run(
        &self,
        call: &Call<'_>,
        plugin: &PluginConf,
        verb: Verb,
        previous: Option<&Value>,
    ) -> Result<Option<Value>, ExecError> {
        let conf = document::for_attachment(call.list, plugin, call.attachment, previous);
        self.executor.run(&plugin.kind, verb, Some((call.attachment, &call.args)), &conf)
    }

    /// The plugin's answer, in the version of the list.
    fn add_one(&self, call: &Call<'_>, plugin: &PluginConf, previous: Option<&Value>) -> Result<Value, RuntimeError> {
        let version = call.list.version;
        let document = self.run(call, plugin, Verb::Add, previous)?.unwrap_or_default();
        let bad = |source| RuntimeError::Result { plugin: plugin.kind.clone(), source };
        let result = CniResult::from_document(&document, version).map_err(bad)?;
        match CniResult::version_of(&document, version) {
            Ok(written_in) if written_in == version => Ok(document),
            _ => Ok(result.to_document(version)),
        }
    }

    fn add_all(&self, call: &Call<'_>, progress: &mut Progress) -> Result<CniResult, RuntimeError> {
        for plugin in &call.list.plugins {
            progress.asked += 1;
            progress.result = Some(self.add_one(call, plugin, progress.result.as_ref())?);
            progress.added += 1;
        }
        let (list, attachment) = (call.list.clone(), call.attachment.clone());
        let cached = Cached { list, attachment, result: progress.result.clone(), added: None };
        self.cache.write(&cached)?;
        let bad = |source| RuntimeError::Result { plugin: call.list.name.to_string(), source };
        Ok(cached.result().map_err(bad)?.unwrap_or_default())
    }

    /// DEL of the plugins that were asked; the one that failed may have left something too.
    fn undo(&self, call: &Call<'_>, progress: &Progress, add: RuntimeError) -> RuntimeError {
        let asked = call.list.plugins.get(..progress.asked).unwrap_or_default();
        let undone = self
            .del_plugins(call, asked, progress.result.as_ref(), progress.added)
            .and_then(|()| Ok(self.cache.remove(call.list.name(), call.attachment)?));
        let Err(undo) = undone else { return add };
        let (list, attachment) = (call.list.clone(), call.attachment.clone());
        let known = Cached { list, attachment, result: None, added: Some(progress.added) };
        if let Err(error) = self.cache.write(&known) {
            (self.executor.log)(call.list.name().as_str(), &chain(&error));
        }
        RuntimeError::Undo { add: Box::new(add), undo: Box::new(undo) }
    }

    /// DEL in reverse. What a plugin cannot remove that never answered ADD with a result is a line in the log: it refuses DEL for
    /// the reason for which it refused ADD, and a retry would fail for ever.
    fn del_plugins(
        &self,
        call: &Call<'_>,
        plugins: &[PluginConf],
        result: Option<&Value>,
        added: usize,
    ) -> Result<(), RuntimeError> {
        let result = result.filter(|_| call.list.version.has_check());
        let mut failures = Vec::new();
        for (index, plugin) in plugins.iter().enumerate().rev() {
            match self.run(call, plugin, Verb::Del, result) {
                Ok(_) => {}
                Err(error) if index < added => failures.push(error.into()),
                Err(error) => (self.executor.log)(&plugin.kind, &format!("after its failed ADD: {}", chain(&error))),
            }
        }
        all(failures)
    }
}

impl<'a> Call<'a> {
    fn new(list: &'a ConfigList, attachment: &'a Attachment) -> Result<Self, RuntimeError> {
        let mut call = Self { list, attachment, args: String::new() };
        call.args = attachment
            .args_text()
            .map_err(|(key, value)| call.bad(&format!("argument {key:?}={value:?} cannot be written in CNI_ARGS")))?;
        Ok(call)
    }

    fn expect_netns(&self) -> Result<(), RuntimeError> {
        self.attachment.netns.as_ref().map(|_| ()).ok_or_else(|| self.bad("no network namespace is given"))
    }

    fn bad(&self, reason: &str) -> RuntimeError {
        RuntimeError::Attachment {
            container_id: self.attachment.container_id.clone(),
            if_name: self.attachment.if_name.clone(),
            reason: reason.to_owned(),
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("cache", &self.cache).field("bin_dirs", &self.executor.bin_dirs).finish()
    }
}

fn all(mut errors: Vec<RuntimeError>) -> Result<(), RuntimeError> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(RuntimeError::Several(errors)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    crate::spec::Error::from_chain(crate::spec::Code::INTERNAL, error).msg
}

#[cfg(test)]
mod tests;
