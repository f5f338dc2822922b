//! The thread that speaks with the agent in the guest: requests as they come, and by the clock what status reports.
//!
//! Guarantees: one command at a time, each with a deadline; a request that has waited too long is refused and not executed
//! late. A guest that is silent, floods or opens and closes its end costs a few commands a minute and no more memory.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use protocol::agent::{AgentStatus, CredentialsStatus, Execute, Executed};
use protocol::control::{Report, Verb};

use super::channel::{AgentError, now};
use super::credentials::Credentials;
use super::guest::Guest;
use super::{Job, Link, News};
use crate::control::Call;

/// How long a request may take, with its wait: less than clients of the control socket wait.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long one command of a tick may take.
const COMMAND: Duration = Duration::from_secs(5);
/// Between two looks at what may change at any time.
const TICK: Duration = Duration::from_secs(5);
/// Every so many looks, what seldom changes is asked as well.
const SYSTEM_TICKS: u32 = 12;
/// Between two looks at an agent that does not answer, at most.
const LONGEST_TICK: Duration = Duration::from_secs(60);
/// After an agent has opened its channel, when it opened it just before.
const REOPEN: Duration = Duration::from_secs(2);
/// Between two questions whether a program has ended.
const EXECUTION: Duration = Duration::from_millis(250);
/// Programs that may run at the same time, and the longest that one may run.
const MOST_EXECUTIONS: usize = 8;
const LONGEST_EXECUTION: Duration = Duration::from_secs(600);

/// A program that runs in the guest.
struct Execution {
    process: i64,
    call: Call,
    look_at: Instant,
    deadline: Instant,
}

pub(super) struct Worker<T> {
    link: Arc<Link>,
    jobs: Receiver<Job>,
    tell: T,
    guest: Guest,
    credentials: Credentials,
    credentials_status: Option<CredentialsStatus>,
    /// How often the guest has opened its end, as far as this thread knows.
    opened: u64,
    /// The agent has answered since it opened its end.
    is_connected: bool,
    tick_at: Instant,
    ticks: u32,
    /// Looks in a row without an answer.
    failures: u32,
    thaw_at: Option<Instant>,
    executions: Vec<Execution>,
}

impl<T: Fn(News) -> bool> Worker<T> {
    pub(super) fn new(link: Arc<Link>, jobs: Receiver<Job>, guest: Guest, credentials: Credentials, tell: T) -> Self {
        Self {
            link,
            jobs,
            tell,
            guest,
            credentials,
            credentials_status: None,
            opened: 0,
            is_connected: false,
            tick_at: now(),
            ticks: 0,
            failures: 0,
            thaw_at: None,
            executions: Vec::new(),
        }
    }

    /// Works until there is no launcher any more.
    pub(super) fn run(mut self) {
        loop {
            let job = match self.next_deadline() {
                Some(deadline) => self.jobs.recv_timeout(deadline.saturating_duration_since(now())),
                None => self.jobs.recv().map_err(RecvTimeoutError::from),
            };
            self.follow_port();
            match job {
                Ok(Job::Call(call, arrived)) => self.answer(call, arrived),
                Ok(Job::PowerOff) => self.power_off(),
                Ok(Job::Look) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.on_time();
            if !self.publish() {
                return;
            }
        }
    }

    fn can_ask(&self) -> Result<(), AgentError> {
        match self.link.port() {
            (_, false, _) => Err(AgentError::Disconnected),
            (_, _, false) => Err(AgentError::Paused),
            _ => Ok(()),
        }
    }

    /// When there is something to do without a job.
    fn next_deadline(&self) -> Option<Instant> {
        let looks = self.executions.iter().map(|execution| execution.look_at);
        let clock = [Some(self.tick_at), self.thaw_at].into_iter().flatten();
        looks.chain(clock.filter(|_| self.can_ask().is_ok())).min()
    }

    /// Notices that the guest has opened or closed its end.
    fn follow_port(&mut self) {
        let (opened, is_open, _) = self.link.port();
        if opened != self.opened {
            self.opened = opened;
            self.close();
            self.tick_at = now().max(self.tick_at.min(now() + REOPEN));
        } else if !is_open && self.is_connected {
            self.close();
        }
    }

    fn close(&mut self) {
        (self.is_connected, self.ticks, self.failures, self.thaw_at) = (false, 0, 0, None);
        self.guest.forget();
        self.credentials.forget();
        for execution in self.executions.drain(..) {
            drop(execution.call.answer(Err(AgentError::Disconnected.to_string())));
        }
    }

    fn answer(&mut self, call: Call, arrived: Instant) {
        let deadline = arrived + PATIENCE;
        let ready = self.can_ask().and_then(|()| if now() < deadline { Ok(()) } else { Err(AgentError::Busy) });
        let result = match (ready, call.request.verb) {
            (Err(error), Verb::Reboot) => return self.not_rebooted(call, &error),
            (Err(error), _) => Err(error),
            (Ok(()), Verb::AgentExecute) => return self.execute(call, arrived),
            (Ok(()), Verb::Reboot) => match self.guest.shut_down(true, deadline) {
                Ok(()) => Ok(Report::Done {}),
                Err(error) => return self.not_rebooted(call, &error),
            },
            (Ok(()), Verb::AgentInfo) => self.guest.info(deadline).map(|guest| Report::Guest { guest: guest.into() }),
            (Ok(()), Verb::Freeze) => self.freeze(&call, deadline).map(|()| Report::Done {}),
            (Ok(()), Verb::Unfreeze) => self.thaw(deadline).map(|()| Report::Done {}),
            // Other verbs do not come here.
            (Ok(()), _) => self.guest.ping(deadline).map(|()| Report::Done {}),
        };
        drop(call.answer(result.map_err(|error| error.to_string())));
    }

    /// The power button is the other way.
    fn not_rebooted(&self, call: Call, error: &AgentError) {
        tracing::info!(%error, "the guest's agent does not reboot it");
        (self.tell)(News::NotRebooted(call));
    }

    fn freeze(&mut self, call: &Call, deadline: Instant) -> Result<(), AgentError> {
        let was_frozen = self.guest.known().frozen;
        let frozen = self.guest.freeze(deadline);
        let seconds = call.request.unfreeze_seconds.unwrap_or_default();
        // A freeze whose answer was lost may still have been one. A second freeze changes nothing, nor does its time-out.
        if !was_frozen && seconds > 0 {
            self.thaw_at = now().checked_add(Duration::from_secs(seconds));
        }
        frozen
    }

    fn thaw(&mut self, deadline: Instant) -> Result<(), AgentError> {
        self.guest.thaw(deadline)?;
        self.thaw_at = None;
        Ok(())
    }

    /// A guest whose file systems are frozen cannot shut down.
    fn power_off(&mut self) {
        let deadline = now() + PATIENCE;
        let thawed = self.can_ask().and_then(|()| if self.guest.known().frozen { self.thaw(deadline) } else { Ok(()) });
        if let Err(error) = thawed.and_then(|()| self.guest.shut_down(false, deadline)) {
            tracing::debug!(%error, "the guest's agent does not power it off");
        }
    }

    fn execute(&mut self, call: Call, arrived: Instant) {
        let refuse = |call: Call, why: &str| drop(call.answer(Err(why.to_owned())));
        let Some(Execute { command, timeout_seconds }) = call.request.execute.clone() else {
            return refuse(call, "execute: required by the verb agentExecute");
        };
        if self.executions.len() >= MOST_EXECUTIONS {
            return refuse(call, "too many programs run in the guest at the same time");
        }
        let deadline = arrived + Duration::from_secs(timeout_seconds.max(1)).min(LONGEST_EXECUTION);
        let execute = Execute { command, timeout_seconds };
        match self.guest.execute(&execute, deadline.min(arrived + PATIENCE)) {
            Ok(process) => self.executions.push(Execution { process, call, look_at: now() + EXECUTION / 5, deadline }),
            Err(error) => refuse(call, &error.to_string()),
        }
    }

    fn on_time(&mut self) {
        self.look_at_executions();
        if self.can_ask().is_err() {
            return;
        }
        if self.thaw_at.is_some_and(|at| at <= now())
            && let Err(error) = self.thaw(now() + COMMAND)
        {
            tracing::warn!(%error, "the guest's file systems are not thawed at the end of their time and will be tried again");
            self.thaw_at = Some(now() + TICK);
        }
        if self.tick_at <= now() {
            self.tick();
        }
    }

    fn look_at_executions(&mut self) {
        for mut execution in std::mem::take(&mut self.executions) {
            let late = now() >= execution.deadline;
            if execution.look_at > now() && !late {
                self.executions.push(execution);
                continue;
            }
            let looked = self.can_ask().and_then(|()| self.guest.executed(execution.process, now() + COMMAND));
            match looked {
                Ok(Some(executed)) => finish(execution.call, Ok(executed)),
                Ok(None) | Err(AgentError::Paused) if !late => {
                    execution.look_at = now() + EXECUTION;
                    self.executions.push(execution);
                }
                Ok(None) | Err(AgentError::Paused) => {
                    finish(execution.call, Err("the program did not end in time".to_owned()));
                }
                Err(error) => finish(execution.call, Err(error.to_string())),
            }
        }
    }

    fn tick(&mut self) {
        match self.refresh() {
            Ok(()) => (self.is_connected, self.failures) = (true, 0),
            Err(error) => {
                tracing::debug!(%error, "looked at the guest by its agent");
                self.failures = self.failures.saturating_add(1);
            }
        }
        self.ticks = self.ticks.wrapping_add(1);
        self.tick_at = now() + (TICK * 2_u32.pow(self.failures.min(4))).min(LONGEST_TICK);
    }

    fn refresh(&mut self) -> Result<(), AgentError> {
        if !self.is_connected || self.ticks.is_multiple_of(SYSTEM_TICKS) {
            self.guest.refresh_system(now() + COMMAND)?;
        }
        self.guest.refresh_interfaces(now() + COMMAND)?;
        let status = self.credentials.synchronize(&mut self.guest, || now() + COMMAND)?;
        self.credentials_status = status.or(self.credentials_status.take());
        Ok(())
    }

    /// Makes known what has changed; `false` when there is no launcher any more.
    fn publish(&self) -> bool {
        let (known, (keys, passwords)) = (self.guest.known(), self.credentials.kinds());
        let status = AgentStatus {
            connected: self.is_connected,
            version: known.version.clone(),
            lacks: if self.is_connected { self.guest.lacks(keys, passwords) } else { Vec::new() },
            os: (known.os != Default::default()).then(|| known.os.clone()),
            interfaces: self.guest.interfaces().to_vec(),
            frozen: known.frozen,
            credentials: self.credentials_status.clone(),
        };
        !self.link.replace(status) || (self.tell)(News::Changed)
    }
}

fn finish(call: Call, result: Result<Executed, String>) {
    drop(call.answer(result.map(|executed| Report::Executed { executed })));
}
