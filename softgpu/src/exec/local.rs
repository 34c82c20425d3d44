//! Local memory: each thread's own.

use super::access::{Access, Places};
use super::{Bits, Ctx, Stop};
use crate::check::{Check, Kind};

impl Ctx<'_> {
    /// Checks an access to local memory and finds its places.
    pub fn local_places(
        &mut self,
        at: &[u64; 32],
        mask: u32,
        bytes: u32,
        access: Access,
        out: &mut Places,
    ) -> Result<(), Stop> {
        let size = self.env.kernel.local_bytes as u64;
        for l in Bits(mask) {
            if at[l] > size || bytes as u64 > size - at[l] {
                let m = format!("{} at {} of {size} bytes of local memory", access.told(bytes), at[l]);
                return self.stop(Kind::OutOfBounds, Some(l), m);
            }
            if at[l] & (bytes as u64 - 1) != 0 && bytes.is_power_of_two() && self.checks(Check::Alignment) {
                let m = format!("{} at {} of local memory, not aligned", access.told(bytes), at[l]);
                return self.stop(Kind::Misaligned, Some(l), m);
            }
            let from = (self.w * 32 + l) as u64 * size + at[l];
            if self.checks(Check::Uninitialised) {
                for b in from..from + bytes as u64 {
                    let (word, bit) = ((b >> 6) as usize, 1u64 << (b & 63));
                    if access.reads && self.block.local_written[word] & bit == 0 {
                        let m = format!("read of {bytes} bytes at {} of local memory, which nothing wrote", at[l]);
                        return self.stop(Kind::Uninitialised, Some(l), m);
                    }
                    if access.writes {
                        self.block.local_written[word] |= bit;
                    }
                }
            }
            // SAFETY: within the block's local memory, by the bounds above.
            out[l] = unsafe { (self.block.local.as_mut_ptr() as *mut u8).add(from as usize) };
        }
        Ok(())
    }
}
