//! A command line that can be pasted into a shell.

use std::ffi::OsStr;
use std::path::Path;

/// Words, each quoted if a shell would read it as something else. They are bytes and not text,
/// since a path may have any bytes.
pub struct CommandLine(Vec<u8>);

impl CommandLine {
    /// This program, as it was started.
    pub fn of_this_program() -> Self {
        let program = std::env::args_os().next().unwrap_or_default();
        Self(Vec::new()).word(&program)
    }

    /// A word.
    pub fn word(mut self, word: impl AsRef<OsStr>) -> Self {
        let bytes = word.as_ref().as_encoded_bytes();
        if !self.0.is_empty() {
            self.0.push(b' ');
        }
        // Only a NUL cannot be quoted, and no argument has one.
        let quoted = shlex::bytes::try_quote(bytes).unwrap_or_default();
        self.0.extend_from_slice(&quoted);
        self
    }

    /// `--name`, if it is given.
    pub fn flag(self, name: &str, given: bool) -> Self {
        if given { self.word(name) } else { self }
    }

    /// `--name value`, if there is a value.
    pub fn option(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.word(name).word(value.to_string()),
            None => self,
        }
    }

    /// `--name path`, if there is a path.
    pub fn path(self, name: &str, path: Option<&Path>) -> Self {
        let Some(path) = path else { return self };
        let line = self.word(name);
        // It would be read as an option.
        if path.as_os_str().as_encoded_bytes().starts_with(b"-") {
            line.word(Path::new(".").join(path))
        } else {
            line.word(path)
        }
    }

    /// The line, indented as it is printed.
    pub fn indented(self) -> Vec<u8> {
        [b"  ", self.0.as_slice()].concat()
    }
}
