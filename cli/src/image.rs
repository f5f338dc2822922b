//! `tapvisor image`: the local store that container disks and kernels come from.

use std::path::Path;
use std::process::ExitCode;

use locks::Locks;
use machine::{Boot, DiskFormat, DiskSource};
use serde_json::json;

use super::arguments::{Image, Output};
use super::failure::{Exit, Failure};
use super::{expect_root, terminal};
use explain::size;
use images::{Image as Stored, ImageError, InUse, Removed, Store};
use protocol::chain::chain;
use runner::layout::Layout;
use runner::store::StoreError;

/// Imports, lists or removes images.
pub(crate) fn image(command: &Image) -> Result<ExitCode, Failure> {
    expect_root()?;
    let layout = Layout::default();
    let store = open(&layout)?;
    match command {
        Image::Import { path, name } => {
            for image in import(&store, &layout, path, name.as_deref())? {
                terminal::line(&format!("{} {}", image.digest, names_of(&image)));
            }
        }
        Image::Ls { output } => list(&store.list()?, *output),
        Image::Rm { references } => {
            let in_use = in_use(&layout)?;
            for reference in references {
                say_removed(&store.remove(reference, &in_use)?);
            }
        }
        Image::Prune { all } => {
            let removed = store.prune(*all, &in_use(&layout)?)?;
            say_removed(&removed);
            terminal::line(&format!("{} bytes are free again", removed.bytes));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn open(layout: &Layout) -> Result<Store, ImageError> {
    Store::open(layout.images(), Locks::new(layout.locks()))
}

fn import(store: &Store, layout: &Layout, path: &Path, name: Option<&str>) -> Result<Vec<Stored>, Failure> {
    // Who uses files is not known when a VM's record is damaged: then none is removed.
    let in_use = in_use(layout).ok();
    if !path.is_file() || Store::is_archive(path)? {
        return Ok(store.import(path, name, in_use.as_ref())?);
    }
    let invalid = |text: String| Failure::new(Exit::Invalid, format!("{}: {text}", path.display()));
    let format = block::probe(path).map_err(|error| Failure::new(Exit::Invalid, chain(&error)))?;
    let name = name.ok_or_else(|| {
        invalid(format!(
            "is no OCI layout; to import it as a {format} disk, give it a name: `tapvisor image import {} NAME`",
            path.display()
        ))
    })?;
    let kind = if format == DiskFormat::Qcow2 { "qcow2" } else { "img" };
    Ok(vec![store.import_disk(path, kind, name, in_use.as_ref())?])
}

/// The files of images that VMs need, running or not, and which VM that is.
fn in_use(layout: &Layout) -> Result<InUse, Failure> {
    let vms = runner::store::Store::new(layout.clone());
    let mut in_use = InUse::new();
    for key in vms.keys()? {
        let machine = match vms.machine(&key) {
            Err(StoreError::NotFound(_)) => continue,
            machine => machine?.machine,
        };
        let disks = machine.disks.into_iter().filter_map(|disk| match disk.source {
            DiskSource::Overlay { path, .. } => Some(path),
            _ => None,
        });
        let boot = match machine.boot {
            Boot::Kernel { kernel, initrd, .. } => vec![Some(kernel), initrd],
            Boot::Bios => Vec::new(),
        };
        in_use.extend(disks.chain(boot.into_iter().flatten()).map(|path| (path, key.to_string())));
    }
    Ok(in_use)
}

fn say_removed(removed: &Removed) {
    removed.images.iter().for_each(|image| terminal::line(&format!("{image} removed")));
}

fn list(images: &[Stored], output: Output) {
    match output {
        Output::Json => {
            let item = |image: &Stored| {
                let mut item = json!({"names": image.names, "digest": image.digest, "sizeBytes": image.bytes});
                if let (Some(flaw), Some(item)) = (&image.flaw, item.as_object_mut()) {
                    item.insert("flaw".to_owned(), json!(flaw));
                }
                item
            };
            terminal::listing("ImageList", &images.iter().map(item).collect::<Vec<_>>());
        }
        Output::Table => {
            terminal::table(&["DIGEST", "SIZE", "NAME"], &images.iter().map(row).collect::<Vec<_>>());
        }
    }
}

/// The names last, one below the other: they may be long. Of the digest as much as people compare; JSON has all of it.
fn row(image: &Stored) -> Vec<String> {
    const SHOWN: usize = 12;
    let digest = image.digest.strip_prefix("sha256:").unwrap_or(&image.digest);
    let names: Vec<_> = image.names.iter().map(String::as_str).collect();
    let size = if image.flaw.is_some() { "damaged".to_owned() } else { size(image.bytes) };
    vec![digest.chars().take(SHOWN).collect(), size, names.join("\n")]
}

fn names_of(image: &Stored) -> String {
    image.names.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let exit = match &error {
            ImageError::Unknown { .. } => Exit::NotFound,
            ImageError::NoFile { .. }
            | ImageError::Malformed { .. }
            | ImageError::Digest { .. }
            | ImageError::Unnamed { .. }
            | ImageError::SeveralForName { .. } => Exit::Invalid,
            _ => Exit::Failed,
        };
        Self::new(exit, chain(&error))
    }
}
