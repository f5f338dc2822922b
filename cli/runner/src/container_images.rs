//! The files that a VM's container images are needed for, in the local store.

use std::path::Path;

use api::translate::{ContainerImage, ImageFiles, ImageUse};
use images::{ImageError, Store};

use super::chain;

/// The files that a VM's container images are needed for; the errors name the images.
pub(crate) fn files_of(folder: &Path, images: &[ContainerImage]) -> Result<ImageFiles, Vec<String>> {
    let (mut files, mut errors) = (ImageFiles::default(), Vec::new());
    for image in images {
        errors.extend(take(folder, image, &mut files).err());
    }
    if errors.is_empty() { Ok(files) } else { Err(errors) }
}

fn take(folder: &Path, image: &ContainerImage, files: &mut ImageFiles) -> Result<(), String> {
    {
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
    Ok(())
}
