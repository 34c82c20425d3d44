//! Files that are whole or not there at all, whatever interrupts their writing.

use std::io::Write;
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// What the names of temporary files begin with.
pub const TEMPORARY: &str = ".mngc-";

/// Writes a file: to a temporary one beside it, which is synced to disk and then takes the name.
pub fn write_atomically(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = temporary(folder)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_folder(folder)
}

/// Temporary files are private by default; a finished file has the permissions that any new file gets.
#[cfg(unix)]
fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    Builder::new().prefix(TEMPORARY).permissions(std::fs::Permissions::from_mode(0o666)).tempfile_in(folder)
}

#[cfg(not(unix))]
fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    Builder::new().prefix(TEMPORARY).tempfile_in(folder)
}

/// Syncs a folder: a renamed file is only safe once its folder is on disk too.
#[cfg(unix)]
pub fn sync_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

/// Does nothing: folders cannot be synced here.
#[cfg(not(unix))]
pub fn sync_folder(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}
