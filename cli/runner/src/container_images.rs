//! The files that a VM's container images are needed for, in the local store.

use api::translate::{ContainerImage, ImageFiles, ImageUse};
use block::DiskError;
use images::{ImageError, Reader, Store};
use locks::Locks;
use machine::DiskFile;

use super::chain;
use super::layout::Layout;

/// The files that a VM's container images are needed for; the errors name the images.
pub(crate) fn files_of(layout: &Layout, images: &[ContainerImage]) -> Result<ImageFiles, Vec<String>> {
    let (mut files, mut errors) = (ImageFiles::default(), Vec::new());
    for image in images {
        errors.extend(take(layout, image, &mut files).err());
    }
    if errors.is_empty() { Ok(files) } else { Err(errors) }
}

fn take(layout: &Layout, image: &ContainerImage, files: &mut ImageFiles) -> Result<(), String> {
    let wrong = |error: ImageError| match error {
        ImageError::Unknown { .. } | ImageError::Ambiguous { .. } | ImageError::NoFile { .. } => chain(&error),
        error => format!("image {:?}: {}", image.image, chain(&error)),
    };
    let store = Store::open(layout.images(), Locks::new(layout.locks())).map_err(wrong)?;
    match &image.usage {
        ImageUse::Disk { volume, path } => {
            // Root hands the disk on as a descriptor.
            let path = store.resolve(&image.image, path.as_deref(), Reader::Root).map_err(wrong)?;
            let format = block::probe(&path).map_err(|error| match error {
                DiskError::Unfit { flaw, .. } => format!("image {:?}: its disk {flaw}", image.image),
                error => chain(&error),
            })?;
            files.disks.insert(volume.clone(), DiskFile { path, format: Some(format) });
        }
        ImageUse::KernelBoot { kernel, initrd } => {
            // The engine opens these itself, as the VM's own user.
            let resolve = |path: &str| store.resolve(&image.image, Some(path), Reader::Engine).map_err(wrong);
            files.kernel = Some(resolve(kernel)?);
            files.initrd = initrd.as_deref().map(resolve).transpose()?;
        }
    }
    Ok(())
}
