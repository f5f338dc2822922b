//! `tapvisor image`: the local store that container disks and kernels come from.

use std::process::ExitCode;

use serde_json::json;

use super::arguments::{Image, Output};
use super::failure::{Exit, Failure};
use super::{expect_root, terminal};
use explain::size;
use images::{Image as Stored, ImageError, Store};
use protocol::chain::chain;
use runner::layout::Layout;

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

fn list(images: &[Stored], output: Output) {
    match output {
        Output::Json => {
            let item = |image: &Stored| json!({"names": image.names, "digest": image.digest, "sizeBytes": image.bytes});
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
    vec![digest.chars().take(SHOWN).collect(), size(image.bytes), names.join("\n")]
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
