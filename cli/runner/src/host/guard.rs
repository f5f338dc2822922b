//! The host's network settings under the host lock: recorded before the first VM, restored after the last.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hostnet::linux::Linux;
use hostnet::{Ask, Facts, Failure, Kernel, KernelError, Op};
use serde::{Deserialize, Serialize};
use terms::{ContainerId, IfName, IpNetwork};

use super::baseline::{Baseline, OurChanges, Settings, prepare, questions, restore, settings};
use super::overlap::{Overlap, overlap};
use crate::files::{self, FileError};
use crate::layout::Layout;
use crate::store::HostLock;

/// Why the host could not be prepared or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The record of the host's settings.
    #[error(transparent)]
    File(#[from] FileError),
    /// The host could not be read.
    #[error("cannot read the host's network")]
    Read(#[from] KernelError),
    /// What the plugin `tapvisor-bridge` left could not be removed.
    #[error("the host's network")]
    Plugin(#[from] cni_protocol::spec::Error),
    /// The host could not be changed.
    #[error("the host's network")]
    Change(#[from] Failure),
}

/// The content of `host.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Note {
    before: Baseline,
    /// Links that plugins said they made on the host's side.
    made: BTreeSet<IfName>,
    /// Settings that were changed for VMs.
    #[serde(default)]
    ours: OurChanges,
    /// The settings when the attachments began that are under way, or whose supervisor was killed meanwhile.
    #[serde(default)]
    attaching: BTreeMap<ContainerId, Settings>,
}

/// Who may touch the host's network settings: the holder of the host lock.
#[derive(Debug)]
pub struct HostGuard<'a> {
    layout: &'a Layout,
}

impl<'a> HostGuard<'a> {
    /// The guard of a layout's host.
    #[must_use]
    pub fn new(layout: &'a Layout, _lock: &'a HostLock) -> Self {
        Self { layout }
    }

    /// Something of the host that `ranges` would meet.
    ///
    /// # Errors
    /// When the host cannot be read.
    pub fn overlap(&self, ranges: &[IpNetwork]) -> Result<Option<Overlap>, HostError> {
        Ok(overlap(&Linux::here().gather(&Ask::network())?, ranges))
    }

    /// Records the host's settings unless there is a record, then changes what plugins need.
    ///
    /// # Errors
    /// When the note cannot be written (nothing was changed then), or a change fails.
    pub fn prepare(&self) -> Result<(), HostError> {
        let mut kernel = Linux::here();
        let facts = gather(&mut kernel)?;
        let known = self.note()?;
        let mut note = known.clone().unwrap_or_else(|| Note { before: Baseline::of(&facts), ..Note::default() });
        let ops = prepare(&facts).ops;
        note.ours.note_plan(&settings(&facts), &ops);
        if known.as_ref() != Some(&note) {
            files::replace_json(&self.layout.host_state(), &note)?;
        }
        Ok(kernel.execute(&ops)?)
    }

    /// Takes note of what the host is like before plugins are asked to attach a pod.
    ///
    /// # Errors
    /// When the host cannot be read, or the note not be read or written.
    pub fn begin_attachment(&self, id: &ContainerId) -> Result<(), HostError> {
        let now = settings(&gather(&mut Linux::here())?);
        self.change(|note| drop(note.attaching.insert(id.clone(), now)))
    }

    /// Takes note of what the plugins have changed, and of the links they made.
    ///
    /// # Errors
    /// As [`Self::begin_attachment`].
    pub fn end_attachment(&self, id: &ContainerId, links: &[IfName]) -> Result<(), HostError> {
        let now = settings(&gather(&mut Linux::here())?);
        self.change(|note| {
            if let Some(before) = note.attaching.remove(id) {
                note.ours.note(&before, &now);
            }
            note.made.extend(links.iter().cloned());
        })
    }

    /// Writes settings and takes note of it before.
    ///
    /// # Errors
    /// When the note cannot be read or written (nothing was changed then), or a setting cannot be.
    pub fn write(&self, ops: &[Op]) -> Result<(), HostError> {
        let mut kernel = Linux::here();
        let keys =
            ops.iter().filter_map(|op| if let Op::WriteSysctl { key, .. } = op { Some(key.clone()) } else { None });
        let before = settings(&kernel.gather(&Ask::default().with_sysctls(keys))?);
        self.change(|note| note.ours.note_plan(&before, ops))?;
        Ok(kernel.execute(ops)?)
    }

    fn note(&self) -> Result<Option<Note>, HostError> {
        match files::read_json(&self.layout.host_state()) {
            Err(error) if error.is_absent() => Ok(None),
            note => Ok(Some(note?)),
        }
    }

    /// Changes the note, if there is one and it does change.
    fn change(&self, change: impl FnOnce(&mut Note)) -> Result<(), HostError> {
        let Some(known) = self.note()? else { return Ok(()) };
        let mut note = known.clone();
        change(&mut note);
        if note == known { Ok(()) } else { Ok(files::replace_json(&self.layout.host_state(), &note)?) }
    }

    /// Puts everything back and forgets the note. Without a note there is nothing to do.
    ///
    /// # Errors
    /// When the host cannot be read, or something cannot be put back; the note then stays, and this can be repeated.
    pub fn restore(&self) -> Result<(), HostError> {
        remove_if_empty(&self.layout.vms());
        let path = self.layout.host_state();
        let Some(note) = self.note()? else { return Ok(()) };
        let made: Vec<_> =
            bridge::table_ids().into_iter().filter(|id| !note.before.nat.contains_key(&id.to_string())).collect();
        put_back(&mut Linux::here(), note)?;
        bridge::remove_unused(&mut Linux::here(), &made)?;
        remove_folders(&[self.layout.ipam(), self.layout.cni_cache(), self.layout.plugin_links()])?;
        Ok(files::remove_file(&path)?)
    }
}

/// Each round restores what the round before has changed by itself: settings of the whole host write those of links.
fn put_back(kernel: &mut impl Kernel, note: Note) -> Result<(), HostError> {
    const ROUNDS: usize = 4;
    let Note { before, made, mut ours, attaching } = note;
    let now = gather(kernel)?;
    attaching.values().for_each(|before| ours.note(before, &settings(&now)));
    let target = before.undoing(&ours, &now);
    for _ in 0..ROUNDS {
        let plan = restore(&target, &gather(kernel)?, &made);
        if plan.ops.is_empty() {
            break;
        }
        first_of(hostnet::tear_down(kernel, &plan.ops))?;
    }
    Ok(())
}

/// Removes each folder, also after a failure.
fn remove_folders(folders: &[PathBuf]) -> Result<(), FileError> {
    first_of(folders.iter().filter_map(|folder| files::remove_dir(folder).err()).collect())
}

/// The first failure as the error; the others go to the log, so that each is reported.
fn first_of<E: std::error::Error + 'static>(failures: Vec<E>) -> Result<(), E> {
    let mut failures = failures.into_iter();
    let first = failures.next();
    for failure in failures {
        tracing::warn!(error = %crate::chain(&failure), "a further change of the host's network failed");
    }
    first.map_or(Ok(()), Err)
}

fn gather(kernel: &mut impl Kernel) -> Result<Facts, HostError> {
    let links = kernel.gather(&Ask { links: true, ..Ask::default() })?.links;
    Ok(kernel.gather(&questions(&links))?)
}

/// A folder with something in it stays; that is what rmdir is for.
fn remove_if_empty(path: &Path) {
    let _ = std::fs::remove_dir(path);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_that_cannot_be_removed_does_not_keep_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) = (dir.path().join("file"), dir.path().join("folder"));
        fs::write(&file, "").unwrap();
        fs::create_dir(&folder).unwrap();
        // No process can remove an entry of a regular file.
        let error = remove_folders(&[file.join("entry"), folder.clone()]).unwrap_err();
        assert!(error.to_string().contains("file/entry"), "{error}");
        assert!(!folder.exists());
    }
}
