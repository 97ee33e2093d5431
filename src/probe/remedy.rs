//! The remedy of a reason: advice in words, or a command that a test carries out.
//!
//! A command stands alone: it needs no hand to fill anything in, names only what was seen, keeps
//! what it does not have to change, and fails without harm where its condition no longer holds.
//! `pmem-tests/tests/guest_remedies` makes each situation, runs the command that the probe prints,
//! and looks again. Whatever cannot be tested so is advice.

use std::fmt;
use std::path::Path;

/// What to do about a [`Reason`](super::Reason): words, and a command where one was tested.
///
/// It displays as one line: `ERASES DATA: ` if it does, the words, and the command after a colon.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remedy {
    /// What to do and what it gives, in words.
    pub text: String,
    /// The same for `sh`, run as root in the mount namespace of the probe; `None` where there is no
    /// command that a test carries out. Relative paths start where the probed path does.
    pub command: Option<String>,
    /// True if following it loses data that is there now. Copy the data elsewhere first.
    pub erases_data: bool,
}

impl Remedy {
    /// Advice in words.
    pub(super) fn advice(text: impl Into<String>) -> Self {
        Self { text: text.into(), command: None, erases_data: false }
    }

    /// A command, with what it gives in words; advice alone if the command could not be built.
    pub(super) fn command(text: impl Into<String>, command: impl Into<Option<String>>) -> Self {
        Self { text: text.into(), command: command.into(), erases_data: false }
    }

    /// The same, said to erase data.
    pub(super) fn erasing(self) -> Self {
        Self { erases_data: true, ..self }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.erases_data {
            f.write_str("ERASES DATA: ")?;
        }
        f.write_str(&self.text)?;
        if let Some(command) = &self.command {
            write!(f, ": {command}")?;
        }
        Ok(())
    }
}

/// Text as one word of a shell that is no option of a program; `None` if it holds bytes that a
/// terminal, a log or a copy by hand may change: control characters, whatever is not text, and
/// characters that look like others or like nothing.
pub(super) fn word(text: &Path) -> Option<String> {
    let text = text.to_str()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    let visible = |c: char| c.is_alphanumeric() || c == ' ' || c.is_ascii_graphic();
    if text.is_empty() || !text.chars().all(visible) {
        return None;
    }
    let at = if text.starts_with('-') { "./" } else { "" };
    if text.chars().all(plain) {
        Some(format!("{at}{text}"))
    } else {
        Some(format!("'{at}{}'", text.replace('\'', r"'\''")))
    }
}
