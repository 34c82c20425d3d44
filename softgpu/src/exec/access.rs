//! Loads and stores of all state spaces: addresses are checked and become places in the host's memory, then elements
//! move between these and registers.

use super::{Bits, Ctx, Flow, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, Stop, WINDOW};
use crate::check::Kind;
use crate::program::{Mem, MemSpace, Op, Width};

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Reads.
    pub reads: bool,
    /// Writes.
    pub writes: bool,
    /// Atomic, volatile, relaxed or stronger: two such do not race.
    pub strong: bool,
    /// A compare-and-swap: loops around it begin with a plain read, whose value it verifies, so that these two do not
    /// race either.
    pub swap: bool,
}

impl Access {
    /// A plain read.
    pub const READ: Access = Access { reads: true, writes: false, strong: false, swap: false };
    /// A plain write.
    pub const WRITE: Access = Access { reads: false, writes: true, strong: false, swap: false };
    /// An atomic.
    pub const ATOMIC: Access = Access { reads: true, writes: true, strong: true, swap: false };

    /// In words, for findings.
    pub fn told(self, bytes: u32) -> String {
        let what = match (self.reads, self.writes) {
            (true, true) => "atomic access",
            (false, true) => "write",
            _ => "read",
        };
        format!("{what} of {bytes} bytes")
    }
}

/// Where lanes found their bytes in the host's memory.
pub type Places = [*mut u8; 32];

impl Ctx<'_> {
    /// The addresses of an access: base register plus offset.
    #[inline(always)]
    pub fn addresses(&self, op: &Op, width: Width) -> [u64; 32] {
        let mut out = [0u64; 32];
        if width == Width::W32 {
            let base = self.lanes::<u32>(op.a);
            for l in 0..32 {
                out[l] = base[l].wrapping_add(op.imm as u32) as u64;
            }
        } else {
            let base = self.lanes::<u64>(op.a);
            for l in 0..32 {
                out[l] = base[l].wrapping_add(op.imm as u64);
            }
        }
        out
    }

    /// Checks an access and finds its places, in any state space.
    pub fn places(
        &mut self,
        space: MemSpace,
        at: &[u64; 32],
        mask: u32,
        bytes: u32,
        access: Access,
    ) -> Result<Places, Stop> {
        let mut out = [std::ptr::null_mut(); 32];
        match space {
            MemSpace::Global => self.global_places(at, mask, bytes, access, &mut out)?,
            MemSpace::Shared => self.shared_places(at, mask, bytes, access, &mut out)?,
            MemSpace::Local => self.local_places(at, mask, bytes, access, &mut out)?,
            MemSpace::Param => self.param_places(at, mask, bytes, access, &mut out)?,
            MemSpace::Generic => {
                let within =
                    |w: u64| Bits(mask).filter(|l| at[*l].wrapping_sub(w) < WINDOW).fold(0, |m, l| m | 1u32 << l);
                let minus = |w: u64| at.map(|a| a.wrapping_sub(w));
                let (s, l, p) = (within(SHARED_WINDOW), within(LOCAL_WINDOW), within(PARAM_WINDOW));
                if s != 0 {
                    self.shared_places(&minus(SHARED_WINDOW), s, bytes, access, &mut out)?;
                }
                if l != 0 {
                    self.local_places(&minus(LOCAL_WINDOW), l, bytes, access, &mut out)?;
                }
                if p != 0 {
                    self.param_places(&minus(PARAM_WINDOW), p, bytes, access, &mut out)?;
                }
                let g = mask & !(s | l | p);
                if g != 0 {
                    self.global_places(at, g, bytes, access, &mut out)?;
                }
            }
        }
        Ok(out)
    }

    fn global_places(
        &mut self,
        at: &[u64; 32],
        mask: u32,
        bytes: u32,
        access: Access,
        out: &mut Places,
    ) -> Result<(), Stop> {
        if let Err(stop) = self.global(at, mask, bytes, access) {
            return Err(match stop {
                Stop::Finding(f) => Stop::Finding(Box::new(super::global::with_writer(self, *f))),
                other => other,
            });
        }
        // Device addresses are addresses of the host.
        if mask == !0 {
            *out = at.map(|a| a as *mut u8);
        } else {
            Bits(mask).for_each(|l| out[l] = at[l] as *mut u8);
        }
        Ok(())
    }

    fn param_places(
        &mut self,
        at: &[u64; 32],
        mask: u32,
        bytes: u32,
        access: Access,
        out: &mut Places,
    ) -> Result<(), Stop> {
        let params = &self.env.job.params;
        for l in Bits(mask) {
            if access.writes {
                return self.stop(Kind::ReadOnly, Some(l), "write to a parameter of the kernel");
            }
            if at[l] > params.len() as u64 || bytes as u64 > params.len() as u64 - at[l] {
                let m = format!("read of {bytes} bytes at {} of {} bytes of parameters", at[l], params.len());
                return self.stop(Kind::OutOfBounds, Some(l), m);
            }
            // Never written through: refused above.
            out[l] = params[at[l] as usize..].as_ptr() as *mut u8;
        }
        Ok(())
    }

    /// Space and address under which synchronisation at an address is remembered, and whether other blocks see it.
    pub fn sync_key(&self, space: MemSpace, at: u64) -> (u64, bool) {
        match space {
            MemSpace::Shared => (SHARED_WINDOW + at, false),
            _ => (at, at.wrapping_sub(SHARED_WINDOW) >= WINDOW),
        }
    }
}

/// A value that lies in memory.
trait Cell: Copy {
    /// As the low bits of a register.
    fn widen(self, signed: bool) -> u64;
    fn narrow(v: u64) -> Self;
}

macro_rules! cell {
    ($u:ty, $s:ty) => {
        impl Cell for $u {
            #[inline(always)]
            fn widen(self, signed: bool) -> u64 {
                if signed { self as $s as i64 as u64 } else { self as u64 }
            }
            #[inline(always)]
            fn narrow(v: u64) -> $u {
                v as $u
            }
        }
    };
}
cell!(u8, i8);
cell!(u16, i16);
cell!(u32, i32);
cell!(u64, i64);

trait Reg: Copy {
    fn of(v: u64) -> Self;
    fn bits(self) -> u64;
}
macro_rules! reg {
    ($t:ty) => {
        impl Reg for $t {
            #[inline(always)]
            fn of(v: u64) -> $t {
                v as $t
            }
            #[inline(always)]
            fn bits(self) -> u64 {
                self as u64
            }
        }
    };
}
reg!(u16);
reg!(u32);
reg!(u64);

#[inline(always)]
fn fetch<C: Cell, G: Reg>(d: &mut [G; 32], places: &Places, mask: u32, offset: usize, signed: bool) {
    if mask == !0 {
        for l in 0..32 {
            // SAFETY: the place was checked for the whole access.
            d[l] = G::of(unsafe { (places[l].add(offset) as *const C).read_unaligned() }.widen(signed));
        }
        return;
    }
    for l in Bits(mask) {
        // SAFETY: the place was checked for the whole access.
        d[l] = G::of(unsafe { (places[l].add(offset) as *const C).read_unaligned() }.widen(signed));
    }
}

#[inline(always)]
fn put<C: Cell, G: Reg>(s: &[G; 32], places: &Places, mask: u32, offset: usize) {
    if mask == !0 {
        for l in 0..32 {
            // SAFETY: the place was checked for the whole access.
            unsafe { (places[l].add(offset) as *mut C).write_unaligned(C::narrow(s[l].bits())) };
        }
        return;
    }
    for l in Bits(mask) {
        // SAFETY: the place was checked for the whole access.
        unsafe { (places[l].add(offset) as *mut C).write_unaligned(C::narrow(s[l].bits())) };
    }
}

impl Ctx<'_> {
    /// Moves element `i` from memory to register `d`.
    pub fn fetch_element(&mut self, m: &Mem, d: i32, places: &Places, mask: u32, offset: usize) {
        match (m.size, m.width) {
            (1, Width::W16) => fetch::<u8, u16>(self.lanes_mut(d), places, mask, offset, m.signed),
            (1, Width::W32) => fetch::<u8, u32>(self.lanes_mut(d), places, mask, offset, m.signed),
            (1, _) => fetch::<u8, u64>(self.lanes_mut(d), places, mask, offset, m.signed),
            (2, Width::W16) => fetch::<u16, u16>(self.lanes_mut(d), places, mask, offset, m.signed),
            (2, Width::W32) => fetch::<u16, u32>(self.lanes_mut(d), places, mask, offset, m.signed),
            (2, _) => fetch::<u16, u64>(self.lanes_mut(d), places, mask, offset, m.signed),
            (4, Width::W32) => fetch::<u32, u32>(self.lanes_mut(d), places, mask, offset, m.signed),
            (4, _) => fetch::<u32, u64>(self.lanes_mut(d), places, mask, offset, m.signed),
            (8, _) => fetch::<u64, u64>(self.lanes_mut(d), places, mask, offset, m.signed),
            _ => {
                for l in Bits(mask) {
                    // SAFETY: the place was checked for 16 bytes.
                    self.lanes_mut::<u128>(d)[l] = unsafe { (places[l].add(offset) as *const u128).read_unaligned() };
                }
            }
        }
    }

    fn put_element(&mut self, m: &Mem, s: i32, places: &Places, mask: u32, offset: usize) {
        match (m.size, m.width) {
            (1, Width::W16) => put::<u8, u16>(self.lanes(s), places, mask, offset),
            (1, Width::W32) => put::<u8, u32>(self.lanes(s), places, mask, offset),
            (1, _) => put::<u8, u64>(self.lanes(s), places, mask, offset),
            (2, Width::W16) => put::<u16, u16>(self.lanes(s), places, mask, offset),
            (2, Width::W32) => put::<u16, u32>(self.lanes(s), places, mask, offset),
            (2, _) => put::<u16, u64>(self.lanes(s), places, mask, offset),
            (4, Width::W32) => put::<u32, u32>(self.lanes(s), places, mask, offset),
            (4, _) => put::<u32, u64>(self.lanes(s), places, mask, offset),
            (8, _) => put::<u64, u64>(self.lanes(s), places, mask, offset),
            _ => {
                for l in Bits(mask) {
                    // SAFETY: the place was checked for 16 bytes.
                    unsafe { (places[l].add(offset) as *mut u128).write_unaligned(self.lanes::<u128>(s)[l]) };
                }
            }
        }
    }
}

/// A load: `mems[x]`, address `a + imm`, results in the list.
pub fn load(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    let m = ctx.env.kernel.mems[op.x as usize];
    let at = ctx.addresses(op, m.address);
    let access = Access { strong: m.order.strong, ..Access::READ };
    let places = ctx.places(m.space, &at, mask, m.size * m.count, access)?;
    for i in 0..m.count as usize {
        let d = ctx.listed(op, i);
        ctx.fetch_element(&m, d, &places, mask, i * m.size as usize);
    }
    if m.order.strong {
        for l in Bits(mask) {
            let (key, beyond) = ctx.sync_key(m.space, at[l]);
            ctx.observe(key, m.order, beyond);
        }
        return Ok(ctx.poll());
    }
    Ok(Flow::Next)
}

/// A load of parameters at a constant offset: the same value in all lanes.
pub fn load_param(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    let m = ctx.env.kernel.mems[op.x as usize];
    let at = [op.imm as u64; 32];
    let places = ctx.places(MemSpace::Param, &at, mask, m.size * m.count, Access::READ)?;
    for i in 0..m.count as usize {
        let d = ctx.listed(op, i);
        ctx.fetch_element(&m, d, &places, mask, i * m.size as usize);
    }
    Ok(Flow::Next)
}

/// A store: `mems[x]`, address `a + imm`, values in the list.
pub fn store(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    let m = ctx.env.kernel.mems[op.x as usize];
    let at = ctx.addresses(op, m.address);
    let access = Access { strong: m.order.strong, ..Access::WRITE };
    let places = ctx.places(m.space, &at, mask, m.size * m.count, access)?;
    if m.order.strong {
        for l in Bits(mask) {
            let (key, beyond) = ctx.sync_key(m.space, at[l]);
            ctx.publish(key, m.order, beyond);
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }
    for i in 0..m.count as usize {
        let s = ctx.listed(op, i);
        ctx.put_element(&m, s, &places, mask, i * m.size as usize);
    }
    ctx.block.progress += 1;
    Ok(Flow::Next)
}
