//! Why a case could not be carried out: a defect of the suite or its environment, never the plugin's.

/// What the suite tried and how it failed.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A system call of the suite's own.
    #[error("{what}")]
    System {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// A program of the suite's own (`ip`, `nft`, a main plugin that prepares the pod) failed.
    #[error("{program}: {output}")]
    Program {
        /// The program with its arguments.
        program: String,
        /// What it said.
        output: String,
    },
    /// Output that is not what the program is documented to print.
    #[error("{what} printed something else than JSON")]
    Json {
        /// Whose output.
        what: String,
        /// Where it went wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Anything else, in words.
    #[error("{0}")]
    Words(String),
}

impl Trouble {
    /// For `map_err` after a system call.
    pub(crate) fn system<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::System { what, source: source.into() }
    }

    /// The chain of causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
