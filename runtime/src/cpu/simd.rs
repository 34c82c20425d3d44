//! The choice of an instruction set at run time.
//!
//! A function written with `vectorised!` is compiled for each level; which one runs is decided by the processor. The
//! body sees the level as a constant that says whether a fused multiply-add is one instruction. Results may differ from
//! one level to the other in their last bits, never from one run to the other.

use std::sync::OnceLock;

/// A level of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What every processor of the target has.
    Base,
    /// x86-64-v3: AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    V3,
    /// x86-64-v4: AVX-512.
    #[cfg(target_arch = "x86_64")]
    V4,
}

impl Level {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "aarch64")]
            Level::Base => "NEON",
            #[cfg(target_arch = "x86_64")]
            Level::Base => "SSE2",
            #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
            Level::Base => "none",
            #[cfg(target_arch = "x86_64")]
            Level::V3 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Level::V4 => "AVX-512",
        }
    }
}

/// The level of this processor.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let v3 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi2");
    let v4 = v3
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (v4, v3) {
        (true, _) => Level::V4,
        (_, true) => Level::V3,
        _ => Level::Base,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Base
}

/// a·b + c: fused where that is one instruction.
#[inline(always)]
pub fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Defines a function that is compiled for every level; `FMA` is a constant in its body.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$fma:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters)]
            fn body<const $fma: bool>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c,bmi2")]
                fn v3($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl")]
                fn v4($($arg: $ty),*) $(-> $ret)? {
                    body::<true>($($arg),*)
                }
                match $crate::cpu::simd::level() {
                    // SAFETY: the processor has these instructions.
                    $crate::cpu::simd::Level::V4 => unsafe { v4($($arg),*) },
                    // SAFETY: the processor has these instructions.
                    $crate::cpu::simd::Level::V3 => unsafe { v3($($arg),*) },
                    $crate::cpu::simd::Level::Base => body::<false>($($arg),*),
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            {
                body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
            }
        }
    };
}
pub(super) use vectorised;
