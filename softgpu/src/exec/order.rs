//! What orders accesses of different blocks: fences, and strong accesses that release and acquire.
//!
//! A block's time is its epoch, which goes on at every release. A [`Clock`] says for other blocks up to which epoch
//! their accesses come before this block's. Order within a warp's or block's threads is taken for granted here: what one
//! thread acquires counts for its whole block, so that a missing fence of one thread may go unseen, but never a false race.

use std::collections::HashMap;
use std::sync::Mutex;

use super::Ctx;
use crate::program::Order;

/// Knowledge of other blocks.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// This block's own epoch.
    pub epoch: u32,
    /// Serial number of a block → the epoch up to which it is seen.
    pub seen: HashMap<u32, u32>,
    fenced: Option<HashMap<u32, u32>>,
    heard: HashMap<u32, u32>,
}

fn join(a: &mut HashMap<u32, u32>, b: &HashMap<u32, u32>) {
    for (k, v) in b {
        let e = a.entry(*k).or_insert(0);
        *e = (*e).max(*v);
    }
}

impl Clock {
    /// Whether an access of block `serial` in `epoch` comes before what this block does now.
    pub fn ordered(&self, serial: u32, epoch: u32) -> bool {
        self.seen.get(&serial).is_some_and(|e| *e >= epoch.min(63))
    }

    fn snapshot(&mut self, serial: u32) -> HashMap<u32, u32> {
        let mut s = self.seen.clone();
        s.insert(serial, self.epoch.min(63));
        self.epoch += 1;
        s
    }
}

/// What was released at each address.
pub type Releases = Mutex<HashMap<u64, HashMap<u32, u32>>>;

impl Ctx<'_> {
    /// A fence of this warp.
    pub fn fence(&mut self, beyond_block: bool) {
        let w = self.w;
        if beyond_block {
            let serial = self.block.serial;
            let c = &mut self.block.clock;
            let heard = std::mem::take(&mut c.heard);
            join(&mut c.seen, &heard);
            c.fenced = Some(c.snapshot(serial));
        }
        let now = self.block.now;
        self.block.now += 1;
        let warp = &mut self.block.warps[w];
        if let Some(h) = warp.heard.take() {
            max_into(&mut warp.seen, &h);
        }
        let mut s = warp.seen;
        s[w] = now;
        warp.fenced = Some(Box::new(s));
    }

    /// Before a strong write to a (generic) address: what a release makes known to who reads it.
    pub fn publish(&mut self, address: u64, order: Order, beyond_block: bool) {
        if !self.env.kernel.synchronises {
            return;
        }
        let (w, serial) = (self.w, self.block.serial);
        if order.release {
            let now = self.block.now;
            self.block.now += 1;
            let warp = &mut self.block.warps[w];
            let mut s = warp.seen;
            s[w] = now;
            warp.fenced = Some(Box::new(s));
        }
        if let Some(f) = self.block.warps[w].fenced.as_ref().map(|f| **f) {
            max_into(self.block.releases.entry(address).or_insert_with(|| Box::new([0; 32])), &f);
        }
        if beyond_block {
            let c = &mut self.block.clock;
            if order.release {
                c.fenced = Some(c.snapshot(serial));
            }
            if let Some(f) = &c.fenced
                && let Ok(mut all) = self.env.releases.lock()
            {
                join(all.entry(address).or_default(), f);
            }
        }
    }

    /// After a strong read of a (generic) address: what was released there is known, at once or at the next fence.
    pub fn observe(&mut self, address: u64, order: Order, beyond_block: bool) {
        if !self.env.kernel.synchronises {
            return;
        }
        let w = self.w;
        if let Some(r) = self.block.releases.get(&address) {
            let r = **r;
            let warp = &mut self.block.warps[w];
            if order.acquire {
                max_into(&mut warp.seen, &r);
            } else {
                max_into(warp.heard.get_or_insert_with(Default::default), &r);
            }
        }
        if beyond_block
            && let Ok(all) = self.env.releases.lock()
            && let Some(r) = all.get(&address)
        {
            let c = &mut self.block.clock;
            join(if order.acquire { &mut c.seen } else { &mut c.heard }, r);
        }
    }
}

fn max_into(a: &mut [u32; 32], b: &[u32; 32]) {
    for (x, y) in a.iter_mut().zip(b) {
        *x = (*x).max(*y);
    }
}
