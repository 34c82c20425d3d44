//! What the machine checks while it runs, and how a finding is told.

use std::fmt;

/// One check; each can be switched by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Accesses stay within live allocations, the declared shared and local memory and the parameters.
    Bounds,
    /// Accesses are aligned to their size.
    Alignment,
    /// No read of a byte that nothing wrote.
    Uninitialised,
    /// No race in shared memory between barriers.
    SharedRaces,
    /// No race in global memory between blocks that nothing orders.
    GlobalRaces,
    /// No race between streams, or between a stream and the host.
    StreamRaces,
    /// No barrier or warp-wide instruction in divergent code.
    Barriers,
    /// No use of data that an asynchronous copy has yet to bring.
    AsyncCopies,
    /// Registers, threads and shared memory within the limits of the device.
    Limits,
}

/// All checks with their names.
pub const CHECKS: [(Check, &str); 9] = [
    (Check::Bounds, "bounds"),
    (Check::Alignment, "alignment"),
    (Check::Uninitialised, "uninitialised"),
    (Check::SharedRaces, "shared-races"),
    (Check::GlobalRaces, "global-races"),
    (Check::StreamRaces, "stream-races"),
    (Check::Barriers, "barriers"),
    (Check::AsyncCopies, "async-copies"),
    (Check::Limits, "limits"),
];

impl Check {
    /// The name that switches it.
    pub fn name(self) -> &'static str {
        CHECKS.iter().find(|(c, _)| *c == self).map_or("", |(_, n)| n)
    }
}

/// The set of checks that are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks(u16);

impl Checks {
    /// Every check.
    pub const ALL: Checks = Checks(0x1ff);
    /// No check; accesses that would harm the host are still refused.
    pub const NONE: Checks = Checks(0);

    /// Whether `c` is on.
    #[inline(always)]
    pub fn has(self, c: Check) -> bool {
        self.0 >> c as u16 & 1 == 1
    }

    /// The set with `c` on or off.
    pub fn with(self, c: Check, on: bool) -> Checks {
        if on { Checks(self.0 | 1 << c as u16) } else { Checks(self.0 & !(1 << c as u16)) }
    }

    /// Reads `all`, `none`, or a list of names: `bounds,alignment` turns on only these, `-bounds` takes one from all.
    ///
    /// # Errors
    /// The name that is none of a check.
    pub fn parse(text: &str) -> Result<Checks, String> {
        let words: Vec<&str> = text.split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
        let mut set = if words.first().is_none_or(|w| w.starts_with('-')) { Checks::ALL } else { Checks::NONE };
        for w in words {
            let (name, on) = w.strip_prefix('-').map_or((w, true), |n| (n, false));
            match name {
                "all" => set = if on { Checks::ALL } else { Checks::NONE },
                "none" => set = Checks::NONE,
                _ => match CHECKS.iter().find(|(_, n)| *n == name) {
                    Some((c, _)) => set = set.with(*c, on),
                    None => return Err(format!("unknown check {name:?}")),
                },
            }
        }
        Ok(set)
    }
}

impl Default for Checks {
    fn default() -> Checks {
        Checks::ALL
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Outside of every allocation, or of the declared memory.
    OutOfBounds,
    /// In memory that was freed.
    UseAfterFree,
    /// Not aligned to its size.
    Misaligned,
    /// Reads what nothing wrote.
    Uninitialised,
    /// Two accesses to shared memory that nothing orders.
    SharedRace,
    /// Two accesses to global memory that nothing orders.
    GlobalRace,
    /// Two operations of streams or the host that nothing orders.
    StreamRace,
    /// A barrier or warp-wide instruction that not all its threads reach together.
    Divergent,
    /// Data of an asynchronous copy used before its wait.
    AsyncCopy,
    /// Nothing can go on.
    Deadlock,
    /// The kernel stopped itself.
    Trap,
    /// An operand value that the instruction does not allow.
    BadOperand,
    /// A write to constant memory or parameters.
    ReadOnly,
}

/// Something wrong that a kernel did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Finding {
    /// What it is about.
    pub kind: Kind,
    /// What happened, in words.
    pub message: String,
    /// The kernel.
    pub kernel: String,
    /// PTX line; 0 where it is not about one instruction.
    pub line: u32,
    /// CUDA file and line, where `-lineinfo` gave one.
    pub source: Option<(String, u32)>,
    /// The block.
    pub block: Option<[u32; 3]>,
    /// The thread within it.
    pub thread: Option<[u32; 3]>,
    /// The address.
    pub address: Option<u64>,
    /// The allocation near the address.
    pub near: Option<String>,
    /// Who wrote or read there last.
    pub last: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  in kernel {}", self.message, self.kernel)?;
        if self.line != 0 {
            write!(f, ", PTX line {}", self.line)?;
        }
        if let Some((file, line)) = &self.source {
            write!(f, ", {file}:{line}")?;
        }
        if let Some([x, y, z]) = self.block {
            write!(f, "\n  block ({x}, {y}, {z})")?;
        }
        if let Some([x, y, z]) = self.thread {
            write!(f, ", thread ({x}, {y}, {z})")?;
        }
        if let Some(a) = self.address {
            write!(f, ", address 0x{a:x}")?;
        }
        if let Some(n) = &self.near {
            write!(f, "\n  {n}")?;
        }
        if let Some(l) = &self.last {
            write!(f, "\n  {l}")?;
        }
        Ok(())
    }
}
