//! [`Secret`]: a value that is used and never shown.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A key or password. Every way to show it says only that it is set, and from which file.
///
/// Two are equal when their texts and files are. That comparison takes longer the more of the
/// texts agree, so it is not for what a peer sends.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    file: Option<PathBuf>,
}

impl Secret {
    /// A secret of this text, without the line breaks at its end.
    pub fn new(text: &str) -> Secret {
        Secret {
            text: text.trim_end_matches(LINE_BREAKS).to_owned(),
            file: None,
        }
    }

    /// The secret itself: not for a log, an error or a page.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The file that it was read from.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads a file, which may be nothing but the secret. The error says what is wrong with the
    /// file and the remedy, and nothing of what it holds.
    pub(super) fn read(path: &Path) -> Result<Secret, String> {
        let bytes = bytes_of(path).map_err(|error| {
            format!("cannot be read: {error}; give the path of a file that the server may read")
        })?;
        if bytes.len() > SECRET_BYTES_MAX {
            return Err("larger than 64KiB; give the path of a file with the secret alone".into());
        }
        let text = str::from_utf8(&bytes).map_err(
            |_| "not UTF-8; write the secret as text, or as the k of a JWK Set in base64url",
        )?;
        // Editors of some systems put a byte order mark in front.
        let text = text.trim_start_matches('\u{feff}');
        if text.trim().is_empty() {
            return Err(
                "the file is empty; write the secret into it, or unset the variable".into(),
            );
        }
        Ok(Secret {
            file: Some(path.to_owned()),
            ..Secret::new(text)
        })
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(path) => write!(f, "(set, from {})", path.display()),
            None => f.write_str("(set)"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The file's bytes, or one more than is allowed of them.
fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(SECRET_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A key of any kind is far smaller; a file that is not one may be endless.
pub(super) const SECRET_BYTES_MAX: usize = 64 << 10;

const LINE_BREAKS: [char; 2] = ['\r', '\n'];
