//! The host's network settings under the host lock: taken note of before the first VM, put back after the last.

use std::collections::BTreeSet;
use std::path::Path;

use hostnet::linux::Linux;
use hostnet::{Ask, Facts, Failure, Kernel, KernelError};
use serde::{Deserialize, Serialize};
use terms::{IfName, IpNetwork};

use super::before::{Before, prepare, questions, restore};
use super::overlap::{Overlap, overlap};
use crate::runner::files::{self, FileError};
use crate::runner::layout::Layout;
use crate::runner::store::HostLock;

/// Why the host could not be prepared or put back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Our note of what was before.
    #[error(transparent)]
    File(#[from] FileError),
    /// The host could not be read.
    #[error("cannot read the host's network")]
    Read(#[from] KernelError),
    /// The host could not be changed.
    #[error("the host's network")]
    Change(#[from] Failure),
}

/// `host.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Note {
    before: Before,
    /// Links that plugins said they made on the host's side.
    made: BTreeSet<IfName>,
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

    /// Takes note of the host unless that was done, then changes what plugins need changed.
    ///
    /// # Errors
    /// When the note cannot be written (nothing was changed then), or a change fails.
    pub fn prepare(&self) -> Result<(), HostError> {
        let mut kernel = Linux::here();
        let facts = gather(&mut kernel)?;
        let path = self.layout.host_state();
        if !path.exists() {
            files::replace_json(&path, &Note { before: Before::of(&facts), made: BTreeSet::new() })?;
        }
        Ok(kernel.execute(&prepare(&facts).ops)?)
    }

    /// Adds links that plugins made to the note.
    ///
    /// # Errors
    /// When the note cannot be read or written.
    pub fn note_made(&self, links: &[IfName]) -> Result<(), HostError> {
        let path = self.layout.host_state();
        let mut note: Note = files::read_json(&path)?;
        let known = note.made.len();
        note.made.extend(links.iter().cloned());
        if note.made.len() == known { Ok(()) } else { Ok(files::replace_json(&path, &note)?) }
    }

    /// Puts everything back and forgets the note. Without a note there is nothing to do.
    ///
    /// # Errors
    /// When the host cannot be read, or something cannot be put back; the note then stays, and this can be repeated.
    pub fn restore(&self) -> Result<(), HostError> {
        remove_if_empty(&self.layout.vms());
        let path = self.layout.host_state();
        let note: Note = match files::read_json(&path) {
            Err(error) if error.is_absent() => return Ok(()),
            note => note?,
        };
        put_back(&mut Linux::here(), &note)?;
        for folder in [self.layout.ipam(), self.layout.cni_cache(), self.layout.plugin_links()] {
            files::remove_dir(&folder)?;
        }
        Ok(files::remove_file(&path)?)
    }
}

/// Each round restores what the round before has changed by itself: settings of the whole host write those of links.
fn put_back(kernel: &mut impl Kernel, note: &Note) -> Result<(), HostError> {
    const ROUNDS: usize = 4;
    for _ in 0..ROUNDS {
        let plan = restore(&note.before, &gather(kernel)?, &note.made);
        if plan.ops.is_empty() {
            break;
        }
        if let Some(failure) = hostnet::tear_down(kernel, &plan.ops).into_iter().next() {
            return Err(failure.into());
        }
    }
    Ok(())
}

fn gather(kernel: &mut impl Kernel) -> Result<Facts, HostError> {
    let links = kernel.gather(&Ask { links: true, ..Ask::default() })?.links;
    Ok(kernel.gather(&questions(&links))?)
}

/// A folder with something in it stays; that is what rmdir is for.
fn remove_if_empty(path: &Path) {
    let _ = std::fs::remove_dir(path);
}
