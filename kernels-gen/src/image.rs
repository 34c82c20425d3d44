//! What a kernel is compiled for, and what comes of it: PTX, machine code, and what it needs of a multiprocessor.

use std::fmt;
use std::str::FromStr;

/// An architecture: `sm_80`, or `sm_90a` with what only that generation has (wgmma, setmaxnreg).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Compute capability as major · 10 + minor.
    pub capability: u32,
    /// Whether instructions are used that no other capability has, not even a newer one.
    pub specific: bool,
}

impl Target {
    /// The oldest generation that has bf16.
    pub const OLDEST: u32 = 80;
    /// The first that has instructions of its own.
    const SPECIFIC: u32 = 90;

    /// The target of a device of which all is to be used: `sm_90a` for 90.
    pub fn of_device(capability: u32) -> Target {
        Target { capability, specific: capability >= Target::SPECIFIC }
    }

    /// The name of its virtual architecture, whose images are PTX: `compute_90a`.
    pub fn compute(self) -> String {
        format!("compute_{}{}", self.capability, self.suffix())
    }

    fn suffix(self) -> &'static str {
        if self.specific { "a" } else { "" }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "sm_{}{}", self.capability, self.suffix())
    }
}

/// What is not the name of a target, with what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Another word.
    #[error("`{0}` is no architecture; sm_80, sm_90 and sm_90a are some")]
    Form(String),
    /// A GPU from before bf16.
    #[error("{0} is older than sm_80, the first architecture with bf16")]
    Old(String),
    /// An `a` where there is nothing specific.
    #[error("{0} has no instructions of its own: write it without the `a`")]
    Suffix(String),
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Target, BadTarget> {
        let form = || BadTarget::Form(text.to_string());
        let number = text.strip_prefix("sm_").ok_or_else(form)?;
        let (digits, specific) = number.strip_suffix('a').map_or((number, false), |digits| (digits, true));
        // Three digits are enough until major 99; a sign is not a digit.
        if !(2..=3).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) || digits.starts_with('0') {
            return Err(form());
        }
        let capability = digits.parse().map_err(|_| form())?;
        if capability < Target::OLDEST {
            return Err(BadTarget::Old(text.to_string()));
        }
        if specific && capability < Target::SPECIFIC {
            return Err(BadTarget::Suffix(text.to_string()));
        }
        Ok(Target { capability, specific })
    }
}

/// A compiled kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// For every device of the capability and newer ones, and for the soft device.
    pub ptx: String,
    /// Machine code; none where only PTX was asked for.
    pub cubin: Option<Vec<u8>>,
    /// What the machine code needs; none where there is none.
    pub usage: Option<Usage>,
    /// What else the compiler said: its warnings. Mostly empty.
    pub log: String,
}

/// What a kernel's machine code needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes that a thread stores because registers run out.
    pub spill_stores: u32,
    /// Bytes that a thread loads because registers ran out.
    pub spill_loads: u32,
    /// Bytes of local memory that a thread has for its stack: arrays that are indexed, and what is spilled.
    pub stack: u32,
    /// Bytes of static shared memory of a block.
    pub shared: u32,
}

impl Usage {
    /// Whether registers ran out.
    pub fn spills(&self) -> bool {
        self.spill_stores + self.spill_loads > 0
    }

    /// Takes the report of `ptxas -v` out of a compiler's log, and gives what is left of it: the warnings.
    ///
    /// The report has a few lines for the kernel and for each function that was not inlined. Spills are summed over
    /// them, of all else the largest counts.
    pub(crate) fn parse(log: &str) -> (Option<Usage>, String) {
        const REPORT: [&str; 5] = [
            " bytes gmem",
            " Compiling entry function ",
            " Function properties for ",
            " bytes stack frame",
            " Compile time = ",
        ];
        let (mut usage, mut seen, mut rest) = (Usage::default(), false, Vec::new());
        for line in log.lines() {
            let number = |what| before(line, what).unwrap_or(0);
            if line.contains(" Used ") && before(line, " registers").is_some() {
                seen = true;
                usage.registers = usage.registers.max(number(" registers"));
                usage.shared = usage.shared.max(number(" bytes smem"));
                usage.stack = usage.stack.max(number(" bytes cumulative stack size"));
            } else if REPORT.iter().any(|part| line.contains(part)) {
                usage.stack = usage.stack.max(number(" bytes stack frame"));
                usage.spill_stores += number(" bytes spill stores");
                usage.spill_loads += number(" bytes spill loads");
            } else {
                rest.push(line.trim_end());
            }
        }
        (seen.then_some(usage), rest.join("\n").trim_matches(['\n', '\0', ' ']).to_string())
    }
}

/// The number that stands directly before some words of a line.
fn before(line: &str, words: &str) -> Option<u32> {
    line[..line.find(words)?].rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for name in ["sm_80", "sm_86", "sm_90", "sm_90a", "sm_100a", "sm_120"] {
            assert_eq!(name.parse::<Target>().map(|target| target.to_string()), Ok(name.to_string()));
        }
        assert_eq!(Target::of_device(90).to_string(), "sm_90a");
        assert_eq!(Target::of_device(89).to_string(), "sm_89");
        assert_eq!(Target::of_device(90).compute(), "compute_90a");
    }

    #[test]
    fn other_words_are_no_targets() {
        for word in
            ["", "90", "sm_", "sm_a", "sm_+90", "sm_9", "sm_090", "sm_1000", "sm_90b", "sm_90aa", "SM_90", "sm_9é"]
        {
            assert_eq!(word.parse::<Target>(), Err(BadTarget::Form(word.to_string())));
        }
        assert!(matches!("sm_75".parse::<Target>(), Err(BadTarget::Old(_))));
        assert!(matches!("sm_80a".parse::<Target>(), Err(BadTarget::Suffix(_))));
    }

    #[test]
    fn a_report_is_read() {
        let log = "ptxas info    : 0 bytes gmem\n\
                   ptxas info    : Compiling entry function 'k' for 'sm_80'\n\
                   ptxas info    : Function properties for k\n\
                   ptxas         .     416 bytes stack frame, 812 bytes spill stores, 836 bytes spill loads\n\
                   ptxas info    : Used 64 registers, used 1 barriers, 416 bytes cumulative stack size, 512 bytes smem, 364 bytes cmem[0]\n\
                   ptxas info    : Compile time = 35.259 ms\n  \n";
        let usage = Usage { registers: 64, spill_stores: 812, spill_loads: 836, stack: 416, shared: 512 };
        assert_eq!(Usage::parse(log), (Some(usage), String::new()));
        assert!(usage.spills());
    }

    #[test]
    fn functions_that_are_not_inlined_count() {
        let log = "ptxas info    : 0 bytes gmem\n\
                   ptxas info    : Compiling entry function 'k' for 'sm_80'\n\
                   ptxas info    : Function properties for k\n    \
                   256 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
                   ptxas info    : Used 31 registers, used 0 barriers, 256 bytes cumulative stack size, 364 bytes cmem[0]\n\
                   ptxas info    : Compile time = 5.070 ms\n\
                   ptxas info    : Function properties for _Z1fPii\n    \
                   8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n";
        let usage = Usage { registers: 31, spill_stores: 4, spill_loads: 12, stack: 256, shared: 0 };
        assert_eq!(Usage::parse(log), (Some(usage), String::new()));
    }

    #[test]
    fn warnings_are_kept() {
        let warning = "/kernels/k.cu(3): warning #177-D: variable \"i\" was declared but never referenced\n    \
                       int i;\n        ^\n\n\
                       ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized";
        let log = format!("{warning}\nptxas info    : Used 10 registers, used 1 barriers, 512 bytes smem\n \0");
        let (usage, rest) = Usage::parse(&log);
        assert_eq!((usage.map(|usage| usage.shared), rest.as_str()), (Some(512), warning));
        assert_eq!(Usage::parse(" \n"), (None, String::new()));
    }
}
