//! Counter-based random numbers; the recipe stands in the header of [`super`].

use std::f64::consts::TAU;

use mngc_compiler::ir::Distribution;

use super::parallel;

/// The numbers that a `random` op draws in one step of a run.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    distribution: Distribution,
    key: u64,
    step: u64,
}

impl Stream {
    /// Those of the op called `name`.
    pub fn new(distribution: Distribution, seed: u64, name: &str, step: u64) -> Stream {
        Stream { distribution, key: stream_key(seed, name), step }
    }

    /// Number `index`, not yet rounded.
    pub fn number(&self, index: usize) -> f64 {
        let [w0, w1, ..] = philox(halves(self.key), [halves(index as u64), halves(self.step)]);
        match self.distribution {
            Distribution::Uniform(low, high) => low.0 + (high.0 - low.0) * (f64::from(w0 >> 8) / f64::from(1 << 24)),
            Distribution::Normal(mean, deviation) => {
                let whole = 4_294_967_296.0;
                let (u, v) = ((f64::from(w0) + 1.0) / whole, f64::from(w1) / whole);
                mean.0 + deviation.0 * ((-2.0 * u.ln()).sqrt() * (TAU * v).cos())
            }
        }
    }
}

/// `n` numbers of the stream `name`.
pub fn draw(distribution: Distribution, seed: u64, name: &str, step: u64, n: usize) -> Vec<f64> {
    let stream = Stream::new(distribution, seed, name, step);
    parallel::indices(n, 1, |index| stream.number(index))
}

/// FNV-1a of the seed and the name.
fn stream_key(seed: u64, name: &str) -> u64 {
    let bytes = seed.to_le_bytes();
    bytes
        .iter()
        .chain(name.as_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn halves(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

/// Philox 4×32 with 10 rounds.
fn philox(key: [u32; 2], counter: [[u32; 2]; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
    const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
    let [[mut c0, mut c1], [mut c2, mut c3]] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let [low0, high0] = halves(u64::from(MULTIPLIERS[0]) * u64::from(c0));
        let [low1, high1] = halves(u64::from(MULTIPLIERS[1]) * u64::from(c2));
        (c0, c1, c2, c3) = (high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' Random123 library, `philox4x32 10`.
    #[test]
    fn philox_known_answers() {
        let table = [
            ([0; 2], [[0; 2]; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([u32::MAX; 2], [[u32::MAX; 2]; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0xa4093822, 0x299f31d0],
                [[0x243f6a88, 0x85a308d3], [0x13198a2e, 0x03707344]],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (key, counter, expected) in table {
            assert_eq!(philox(key, counter), expected, "key {key:x?}, counter {counter:x?}");
        }
    }

    #[test]
    fn streams_depend_on_seed_name_step_and_index() {
        let uniform = Distribution::Uniform(mngc_compiler::ir::F64(0.0), mngc_compiler::ir::F64(1.0));
        let base = draw(uniform, 1, "a", 2, 8);
        assert_eq!(base[..4], draw(uniform, 1, "a", 2, 4), "a longer tensor starts with the same numbers");
        assert_ne!(base, draw(uniform, 2, "a", 2, 8));
        assert_ne!(base, draw(uniform, 1, "b", 2, 8));
        assert_ne!(base, draw(uniform, 1, "a", 3, 8));
        assert!(base.windows(2).all(|w| w[0] != w[1]));
    }
}
