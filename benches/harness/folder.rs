//! A folder for the files of one run.

use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// A folder that nobody else may look into. It goes with what is in it when it is dropped.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// # Errors
    /// The folder for temporary files takes none.
    pub fn new() -> io::Result<Self> {
        // Randomly keyed by the standard library, so that nobody can have made it before.
        let unique = RandomState::new().build_hasher().finish();
        let name = format!("tidemill-benches-{}-{unique:016x}", std::process::id());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    /// Where a file of that name belongs.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = fs::remove_dir_all(&self.path);
    }
}
