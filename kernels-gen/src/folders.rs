//! Where files outside of the project are: <https://specifications.freedesktop.org/basedir-spec/latest/>.

use std::path::PathBuf;

/// The folder for what can be made again: `mngc` in `XDG_CACHE_HOME`, or else in `~/.cache`; none without a home.
pub fn cache() -> Option<PathBuf> {
    of_user("XDG_CACHE_HOME", ".cache")
}

/// The folder for what is fetched once: `mngc` in `XDG_DATA_HOME`, or else in `~/.local/share`; none without a home.
pub fn data() -> Option<PathBuf> {
    of_user("XDG_DATA_HOME", ".local/share")
}

fn of_user(variable: &str, in_home: &str) -> Option<PathBuf> {
    // Relative paths are to be ignored, the specification says.
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute(variable).or_else(|| Some(absolute("HOME")?.join(in_home)))?;
    Some(folder.join("mngc"))
}
