//! `tapvisor image`: the local store that container disks and kernels come from.

use std::path::Path;
use std::process::ExitCode;

use api::translate::{ContainerImage, ImageFiles, ImageUse};
use serde_json::json;

use super::arguments::{Image, Output};
use super::failure::{Exit, Failure};
use super::{expect_root, terminal};
use crate::image::{Image as Stored, ImageError, Store};
use crate::runner::chain;
use crate::runner::layout::Layout;

/// Imports or lists images.
pub(crate) fn image(command: &Image) -> Result<ExitCode, Failure> {
    expect_root()?;
    let store = Store::open(Layout::default().images())?;
    match command {
        Image::Import { path, name } => {
            for image in store.import(path, name.as_deref())? {
                terminal::line(&format!("{} {}", image.digest, names_of(&image)));
            }
        }
        Image::Ls { output } => list(&store.list()?, *output),
    }
    Ok(ExitCode::SUCCESS)
}

/// The files that a VM's container images are needed for; the error names the image.
pub(crate) fn files_of(folder: &Path, images: &[ContainerImage]) -> Result<ImageFiles, String> {
    let mut files = ImageFiles::default();
    for image in images {
        let wrong = |error: ImageError| match error {
            ImageError::Unknown { .. } | ImageError::Ambiguous { .. } | ImageError::NoFile { .. } => chain(&error),
            error => format!("image {:?}: {}", image.image, chain(&error)),
        };
        let store = Store::open(folder).map_err(wrong)?;
        let resolve = |path: Option<&str>| store.resolve(&image.image, path).map_err(wrong);
        match &image.usage {
            ImageUse::Disk { volume, path } => {
                files.disks.insert(volume.clone(), resolve(path.as_deref())?);
            }
            ImageUse::KernelBoot { kernel, initrd } => {
                files.kernel = Some(resolve(Some(kernel))?);
                files.initrd = initrd.as_deref().map(|initrd| resolve(Some(initrd))).transpose()?;
            }
        }
    }
    Ok(files)
}

fn list(images: &[Stored], output: Output) {
    match output {
        Output::Json => {
            let item = |image: &Stored| json!({"names": image.names, "digest": image.digest, "sizeBytes": image.bytes});
            terminal::listing("ImageList", &images.iter().map(item).collect::<Vec<_>>());
        }
        Output::Table => {
            let row = |image: &Stored| vec![names_of(image), image.digest.clone(), image.bytes.to_string()];
            terminal::table(&["NAME", "DIGEST", "BYTES"], &images.iter().map(row).collect::<Vec<_>>());
        }
    }
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
            | ImageError::SeveralForName { .. } => Exit::Invalid,
            _ => Exit::Failed,
        };
        Self::new(exit, chain(&error))
    }
}
