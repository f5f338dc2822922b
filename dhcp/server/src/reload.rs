//! Another configuration without a restart.
//!
//! *Guarantees.* A file that is refused changes nothing: the configuration that is in use goes on. Leases are kept.

use std::path::PathBuf;
use std::sync::Arc;

use crate::conf::{self, Conf, ConfError};
use crate::control::Control;
use crate::counts::Counts;
use crate::interface::Interface;

/// What a reload needs.
#[derive(Debug)]
pub(crate) struct Reloader {
    pub(crate) path: PathBuf,
    pub(crate) interface: Interface,
    pub(crate) control: Control,
    pub(crate) counts: Arc<Counts>,
    /// The configuration that is in use.
    pub(crate) running: Conf,
}

impl Reloader {
    /// Reads the file again and puts it into effect, or logs why not.
    pub(crate) async fn reload(&mut self) {
        match self.try_reload().await {
            Ok(()) => tracing::info!("the configuration is reloaded"),
            Err(error) => {
                self.counts.add(|counts| counts.reloads_refused += 1);
                tracing::error!("the configuration is not reloaded, the one in use goes on: {}", crate::chain(&error));
            }
        }
    }

    async fn try_reload(&mut self) -> Result<(), ConfError> {
        let conf = conf::read(&self.path)?;
        let path = || self.path.clone();
        if let Some((field, old, new)) = conf.fixed(&self.running) {
            return Err(ConfError::Fixed { path: path(), field, old, new });
        }
        // A thread that has ended ends the program.
        let Some(done) = self.control.reload(conf.engine(&self.interface)).await else { return Ok(()) };
        done.map_err(|source| ConfError::Contradiction { path: path(), source })?;
        self.running = conf;
        Ok(())
    }
}
