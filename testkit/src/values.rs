//! Reproducible elements for tensors.

use mngc_compiler::ir::{DType, Dims, Type};
use mngc_runtime::{Data, Tensor};

/// A well-mixed number for every pair (SplitMix64 of both).
pub fn hash(seed: u64, index: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index.wrapping_mul(0xd1b5_4a32_d192_ed03));
    for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
        x = (x ^ (x >> 30)).wrapping_mul(factor);
    }
    x ^ (x >> 31)
}

/// A number on [0, 1).
pub fn unit(seed: u64, index: u64) -> f64 {
    (hash(seed, index) >> 11) as f64 / (1u64 << 53) as f64
}

/// A tensor of a type: floats of size ¼ to 2 with either sign, rounded to the dtype; integers from −1 to 4; truth values.
/// Unless `generic`, every fourth float is 0, −0, 1, −1 or 2, so that there are ties.
pub fn tensor(dims: &Dims, ty: &Type, seed: u64, generic: bool) -> Tensor {
    let sizes = dims.sizes(&ty.dims);
    let n = sizes.iter().product::<usize>() as u64;
    let float = |i: u64| {
        let x = 0.25 + 1.75 * unit(seed, 3 * i);
        match hash(seed, 3 * i + 1) {
            special if !generic && special.is_multiple_of(4) => [0.0, -0.0, 1.0, -1.0, 2.0][special as usize / 4 % 5],
            sign if sign & 8 == 0 => x,
            _ => -x,
        }
    };
    let data = match ty.dtype {
        DType::F32 | DType::BF16 | DType::F16 => Data::Float((0..n).map(float).collect()),
        DType::I32 => Data::Int((0..n).map(|i| (hash(seed, i) % 6) as i32 - 1).collect()),
        DType::Bool => Data::Bool((0..n).map(|i| hash(seed, i) & 1 == 1).collect()),
    };
    Tensor::new(sizes, data).expect("as many elements as the sizes say").rounded(ty.dtype)
}
