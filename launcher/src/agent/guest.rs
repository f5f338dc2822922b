//! What the guest is asked by its agent, and what is known of it from earlier answers.

use std::time::Instant;

use machine::base64;
use protocol::agent::{
    AgentCommand, BASIC_COMMANDS, Execute, Executed, GuestInfo, GuestInterface, PASSWORD_COMMAND, SSH_KEYS_COMMAND,
};
use serde_json::{Value, json};

use super::answers;
use super::channel::{AgentError, Channel};

/// The guest by its agent.
#[derive(Debug)]
pub(super) struct Guest {
    channel: Channel,
    known: GuestInfo,
    interfaces: Vec<GuestInterface>,
}

impl Guest {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, known: GuestInfo::default(), interfaces: Vec::new() }
    }

    pub(super) fn known(&self) -> &GuestInfo {
        &self.known
    }

    /// The interfaces of an earlier answer.
    pub(super) fn interfaces(&self) -> &[GuestInterface] {
        &self.interfaces
    }

    /// Forgets all but the operating system: the agent has closed its channel.
    pub(super) fn forget(&mut self) {
        let os = std::mem::take(&mut self.known.os);
        self.known = GuestInfo { os, ..GuestInfo::default() };
        self.interfaces.clear();
    }

    /// Commands of a machine that the agent does not have; `keys` and `passwords` say what its credentials need.
    pub(super) fn lacks(&self, keys: bool, passwords: bool) -> Vec<String> {
        let needed = BASIC_COMMANDS.into_iter();
        let needed = needed.chain(keys.then_some(SSH_KEYS_COMMAND)).chain(passwords.then_some(PASSWORD_COMMAND));
        let has = |name: &str| self.known.commands.iter().any(|AgentCommand { name: known, .. }| known == name);
        needed.filter(|name| !has(name)).map(str::to_owned).collect()
    }

    pub(super) fn ping(&mut self, deadline: Instant) -> Result<(), AgentError> {
        self.ask("guest-ping", deadline).map(drop)
    }

    /// Asks what seldom changes. An agent that refuses a command is asked the others: a frozen guest's refuses most.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) fn refresh_system(&mut self, deadline: Instant) -> Result<(), AgentError> {
        let info = self.ask("guest-info", deadline)?;
        (self.known.version, self.known.commands) = answers::info(&info);
        if let Some(os) = self.try_ask("guest-get-osinfo", deadline)? {
            self.known.os = answers::os(&os);
        }
        if let Some(name) = self.try_ask("guest-get-host-name", deadline)? {
            self.known.hostname = answers::hostname(&name);
        }
        if let Some(zone) = self.try_ask("guest-get-timezone", deadline)? {
            self.known.timezone = answers::timezone(&zone);
        }
        Ok(())
    }

    /// Asks what may change at any time.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) fn refresh_interfaces(&mut self, deadline: Instant) -> Result<(), AgentError> {
        if let Some(interfaces) = self.try_ask("guest-network-get-interfaces", deadline)? {
            self.interfaces = answers::interfaces(&interfaces);
        }
        self.refresh_frozen(deadline)
    }

    fn refresh_frozen(&mut self, deadline: Instant) -> Result<(), AgentError> {
        if let Some(status) = self.try_ask("guest-fsfreeze-status", deadline)? {
            self.known.frozen = answers::is_frozen(&status).ok_or(AgentError::Shape("guest-fsfreeze-status"))?;
        }
        Ok(())
    }

    /// Asks all that is shown of a guest.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) fn info(&mut self, deadline: Instant) -> Result<GuestInfo, AgentError> {
        self.refresh_system(deadline)?;
        if let Some(users) = self.try_ask("guest-get-users", deadline)? {
            self.known.users = answers::users(&users);
        }
        if let Some(filesystems) = self.try_ask("guest-get-fsinfo", deadline)? {
            self.known.filesystems = answers::filesystems(&filesystems);
        }
        self.refresh_frozen(deadline)?;
        Ok(self.known.clone())
    }

    /// Freezes the file systems; a guest whose file systems are frozen stays so.
    ///
    /// # Errors
    /// It refuses or does not answer.
    pub(super) fn freeze(&mut self, deadline: Instant) -> Result<(), AgentError> {
        self.refresh_frozen(deadline)?;
        if !self.known.frozen {
            self.ask("guest-fsfreeze-freeze", deadline)?;
        }
        self.known.frozen = true;
        Ok(())
    }

    /// Thaws the file systems, also where none is frozen.
    ///
    /// # Errors
    /// It refuses or does not answer.
    pub(super) fn thaw(&mut self, deadline: Instant) -> Result<(), AgentError> {
        self.refresh_frozen(deadline)?;
        if self.known.frozen {
            self.ask("guest-fsfreeze-thaw", deadline)?;
        }
        self.known.frozen = false;
        Ok(())
    }

    /// Starts a program; returns its number in the guest.
    ///
    /// # Errors
    /// It refuses, for example because there is no such program, or does not answer.
    pub(super) fn execute(&mut self, execute: &Execute, deadline: Instant) -> Result<i64, AgentError> {
        const COMMAND: &str = "guest-exec";
        let (path, arguments) = execute.command.split_first().ok_or(AgentError::Shape(COMMAND))?;
        let arguments = json!({"path": path, "arg": arguments, "capture-output": true});
        let started = self.channel.execute(COMMAND, &arguments, deadline)?;
        answers::process(&started).ok_or(AgentError::Shape(COMMAND))
    }

    /// How a program has ended; `None` while it runs.
    ///
    /// # Errors
    /// It does not answer, or does not know the program.
    pub(super) fn executed(&mut self, process: i64, deadline: Instant) -> Result<Option<Executed>, AgentError> {
        const COMMAND: &str = "guest-exec-status";
        let status = self.channel.execute(COMMAND, &json!({"pid": process}), deadline)?;
        answers::executed(&status).ok_or(AgentError::Shape(COMMAND))
    }

    /// Reboots the guest, or powers it off.
    ///
    /// # Errors
    /// It refuses or does not answer.
    pub(super) fn shut_down(&mut self, reboot: bool, deadline: Instant) -> Result<(), AgentError> {
        let mode = if reboot { "reboot" } else { "powerdown" };
        self.channel.order("guest-shutdown", &json!({"mode": mode}), deadline)
    }

    /// Replaces a user's SSH keys.
    ///
    /// # Errors
    /// It refuses, for example because there is no such user, or does not answer.
    pub(super) fn set_keys(&mut self, user: &str, keys: &[String], deadline: Instant) -> Result<(), AgentError> {
        let arguments = json!({"username": user, "keys": keys, "reset": true});
        self.channel.execute(SSH_KEYS_COMMAND, &arguments, deadline).map(drop)
    }

    /// Sets a user's password.
    ///
    /// # Errors
    /// It refuses, for example because there is no such user, or does not answer.
    pub(super) fn set_password(&mut self, user: &str, password: &[u8], deadline: Instant) -> Result<(), AgentError> {
        let arguments = json!({"username": user, "password": base64::encode(password), "crypted": false});
        self.channel.execute(PASSWORD_COMMAND, &arguments, deadline).map(drop)
    }

    fn ask(&mut self, command: &'static str, deadline: Instant) -> Result<Value, AgentError> {
        self.channel.execute(command, &Value::Null, deadline)
    }

    /// The same; `None` when it refuses.
    fn try_ask(&mut self, command: &'static str, deadline: Instant) -> Result<Option<Value>, AgentError> {
        match self.ask(command, deadline) {
            Ok(value) => Ok(Some(value)),
            Err(AgentError::Refused { command, reason }) => {
                tracing::debug!(command, reason, "refused by the guest's agent");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
