//! Two real namespaces, between which the calling thread goes back and forth.

use std::os::fd::AsFd as _;

use super::steps::{Real, Steps};
use super::{Linux, bridge};
use crate::facts::Ask;
use crate::kernel::{Failure, Kernel as _, KernelError};
use crate::netns::{Netns, NetnsError};
use crate::pair::{Both, KernelPair, PairFacts, Place, Step};

/// The host's namespace and a pod's. A thread that uses it is in either of them afterwards.
#[derive(Debug)]
pub struct LinuxPair<'s> {
    kernels: Both<Linux<'s>>,
    namespaces: Both<Netns>,
    /// Where the thread is.
    here: Place,
}

impl LinuxPair<'_> {
    /// The namespace that the calling thread is in, and `pod`; use it on that thread only.
    ///
    /// # Errors
    /// When a namespace cannot be opened.
    pub fn with_pod(pod: Netns) -> Result<Self, NetnsError> {
        Self::of(pod, Real::default)
    }
}

impl<'s> LinuxPair<'s> {
    /// The same, with single calls that go through what `steps` makes, one for each namespace.
    ///
    /// # Errors
    /// When a namespace cannot be opened.
    pub fn of<S: Steps + Send + 's>(pod: Netns, mut steps: impl FnMut() -> S) -> Result<Self, NetnsError> {
        let host = Netns::current()?;
        let mut kernel = |other: &Netns| -> Result<Linux<'s>, NetnsError> {
            let mut kernel = Linux::with(steps());
            let descriptor = other.as_fd().try_clone_to_owned();
            let failed = |source| NetnsError::Failed { action: "open", path: other.path().to_owned(), source };
            kernel.other = Some(descriptor.map_err(failed)?);
            Ok(kernel)
        };
        let kernels = Both { host: kernel(&pod)?, pod: kernel(&host)? };
        Ok(Self { kernels, namespaces: Both { host, pod }, here: Place::Host })
    }

    /// Takes the calling thread back to the host.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn return_to_host(&mut self) -> Result<(), KernelError> {
        self.enter(Place::Host).map(drop)
    }

    /// The kernel of a place, with the thread there.
    fn enter(&mut self, place: Place) -> Result<&mut Linux<'s>, KernelError> {
        if self.here != place {
            self.namespaces.at(place).enter()?;
            self.here = place;
        }
        Ok(self.kernels.at_mut(place))
    }
}

impl KernelPair for LinuxPair<'_> {
    fn gather(&mut self, ask: &Both<Ask>) -> Result<PairFacts, KernelError> {
        let mut facts = PairFacts::default();
        // First where the thread is.
        for place in [self.here, self.here.other()] {
            if *ask.at(place) != Ask::default() {
                *facts.at_mut(place) = self.enter(place)?.gather(ask.at(place))?;
            }
        }
        Ok(facts)
    }

    fn execute(&mut self, steps: &[Step]) -> Result<(), Failure> {
        let mut done = 0;
        for run in steps.chunk_by(|one, next| one.at == next.at) {
            let Some(first) = run.first() else { continue };
            let outcome = match self.enter(first.at) {
                Ok(kernel) => kernel.execute_all(run.iter().map(|step| &step.op)),
                Err(error) => Err((0, error)),
            };
            outcome.map_err(|(index, error)| {
                let index = done + index;
                let step = steps.get(index);
                let what = step.map(ToString::to_string).unwrap_or_default();
                Failure { what, ..bridge::failure(index, step.map(|step| &step.op), error) }
            })?;
            done += run.len();
        }
        Ok(())
    }
}
