//! Memory that a run needs, against memory that is there: found before the run, where it would else be killed.

use std::fs;

use mngc_compiler::ir::Module;

use crate::error::{Error, Result};

/// Fails where `needed` bytes are more than this machine has left. What it has left is known on Linux only.
pub fn check_memory(needed: u64) -> Result<()> {
    match available() {
        Some(available) if needed > available => Err(Error::Memory { needed, available }),
        _ => Ok(()),
    }
}

/// Bytes that any way of running a program on the reference needs at least: 8 for each element of every slot and of the
/// largest tensor that an entry computes.
pub fn least(module: &Module) -> u64 {
    let elements = |dims: &[_]| {
        let sizes = module.dims.sizes(dims);
        sizes.iter().fold(1u64, |n, &size| n.saturating_mul(size as u64))
    };
    let slots = module.slots.values().fold(0u64, |n, slot| n.saturating_add(elements(&slot.ty.dims)));
    let values = module.funcs.values().flat_map(|g| g.values.values());
    let largest = values.map(|value| elements(&value.ty.dims)).max().unwrap_or(0);
    slots.saturating_add(largest).saturating_mul(8)
}

/// Bytes that new programs can get without making others wait for the disk; known on Linux only.
pub fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let free = kilobytes.checked_mul(1024)?;
    Some(limits().fold(free, u64::min))
}

/// What is left of the limits of a container: of control groups, version 2 and version 1.
fn limits() -> impl Iterator<Item = u64> {
    let files = [
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ];
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    files.into_iter().filter_map(move |(limit, used)| Some(number(limit)?.saturating_sub(number(used)?)))
}

/// Bytes as people write them.
pub fn shown(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memory_is_too_much_and_none_is_not() {
        assert!(check_memory(0).is_ok());
        if available().is_some() {
            let error = check_memory(u64::MAX).expect_err("no machine has that");
            assert!(error.to_string().contains("16.0 EiB"), "{error}");
        }
    }

    #[test]
    fn bytes_are_shown_in_units() {
        assert_eq!(shown(1536), "1.5 KiB");
        assert_eq!(shown(3 << 30), "3.0 GiB");
    }
}
