//! A terminal with a program at it: keys that are typed, Ctrl-C and Ctrl-] included, and what is shown.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::pty::{Winsize, openpty};

use crate::{World, wait_for};

/// A program with a terminal of its own, which is its controlling terminal, so Ctrl-C signals it.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    program: Child,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// The key that interrupts.
    pub const CTRL_C: &'static str = "\x03";
    /// The key that leaves a console.
    pub const CTRL_BRACKET: &'static str = "\x1d";

    /// Starts a command line in a world.
    ///
    /// # Panics
    /// When there is no terminal or no such program.
    #[must_use]
    pub fn run(world: &World, line: &[&str]) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).expect("the kernel has terminals left");
        let end = || Stdio::from(pair.slave.try_clone().expect("a descriptor can be copied"));
        // The tests may run with ignored signals, as under `nohup`; a program at a terminal does not.
        let mut command = world.command_without_limit("env");
        command
            .args(["--default-signal", "setsid", "--ctty", "--wait"])
            .args(line)
            .stdin(end())
            .stdout(end())
            .stderr(end());
        let program = command.spawn().expect("env (package coreutils) starts");
        let keyboard = File::from(pair.master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, on_screen) = (keyboard.try_clone().expect("a descriptor can be copied"), Arc::clone(&shown));
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The last program to leave the terminal ends it.
            while let Ok(length @ 1..) = screen.read(&mut bytes) {
                on_screen.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes.iter().take(length));
            }
        });
        Self { keyboard, program, shown, reader }
    }

    /// Types keys.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn keys(&self, keys: &str) {
        (&self.keyboard).write_all(keys.as_bytes()).expect("the terminal takes what is typed");
    }

    /// Everything that was shown so far.
    #[must_use]
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until `text` was shown.
    ///
    /// # Panics
    /// When it was not within three minutes.
    pub fn wait_shown(&self, text: &str) {
        let start = std::time::Instant::now();
        while !self.shown().contains(text) {
            assert!(start.elapsed() < Duration::from_secs(180), "{text:?} was never shown:\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the program's end; gives its exit code and all that was shown.
    ///
    /// # Panics
    /// When it does not end within two minutes.
    #[must_use]
    pub fn end(mut self) -> (Option<i32>, String) {
        let program = &mut self.program;
        let ended = || program.try_wait().expect("a child is waited for");
        let (status, _) = wait_for("the program at the terminal to end", Duration::from_secs(120), ended);
        // What it said last may not have been read yet; who else still has the terminal is not waited for long.
        for _ in 0..100 {
            if self.reader.is_finished() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        (status.code(), self.shown())
    }
}
