//! Files for tests.

use std::fs;
use std::path::PathBuf;

/// A file that is removed at the end of the test.
pub(super) struct TemporaryFile(pub PathBuf);

impl TemporaryFile {
    pub fn new(name: &str, text: &str) -> TemporaryFile {
        let name = format!("tidemill-{}-{name}.env", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("the folder for temporary files is writable");
        TemporaryFile(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("its name is ASCII")
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
