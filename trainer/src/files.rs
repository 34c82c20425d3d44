//! Files that are whole or not there at all, with this package's errors.

use std::path::Path;

use mngc_runtime::files;
pub use mngc_runtime::files::TEMPORARY;
pub(crate) use mngc_runtime::files::sync_folder;

use crate::error::{Error, Result};

/// Writes a file: to a temporary one beside it, which is synced to disk and then takes the name.
pub fn write_atomically(path: &Path, contents: &[u8]) -> Result<()> {
    files::write_atomically(path, contents).map_err(Error::io("write", path))
}
