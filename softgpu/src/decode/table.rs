//! The instructions that are known: the decoder of each, and the forms in which it may be written.
//!
//! A form is the opcode with its modifiers, `{…}` for a choice (an empty alternative for what may be left out), then its
//! operands: `r` is a register of the width of the last type, `r:b32` of another, `p` a predicate, `[g]` an address of 64
//! bits, `[s]` one of 32 bits in shared memory, `(r r)` a vector, `r|p` two results, a number itself.

use super::builder::{Builder, Mods, R};
use super::{arith, asynchronous, control, convert, float, logic, memory, tensor, warp};
use crate::ptx::ast::Instr;

/// The decoder of an instruction.
pub(crate) type Decoder = fn(&mut Builder, &Instr, &mut Mods) -> R<()>;

/// An instruction.
pub struct Entry {
    /// Its first word.
    pub name: &'static str,
    pub(crate) decode: Decoder,
    /// The forms in which it may be written, by example of their operands.
    pub forms: &'static [&'static str],
}

/// The entry of an instruction.
pub(crate) fn entry(name: &str) -> Option<&'static Entry> {
    TABLE.binary_search_by_key(&name, |e| e.name).ok().map(|i| &TABLE[i])
}

macro_rules! table {
    ($($name:literal $decode:path: $($form:literal)+;)+) => {
        /// All instructions, by name.
        pub static TABLE: &[Entry] = &[$(Entry { name: $name, decode: $decode, forms: &[$($form),+] }),+];
    };
}

table! {
    "abs" arith::abs_neg: "abs.{s16,s32,s64,f64,f16,f16x2,bf16,bf16x2} r r" "abs{,.ftz}.f32 r r";
    "activemask" warp::active: "activemask.b32 r";
    "add" arith::add_sub: "add.{u16,u32,u64,s16,s32,s64,u16x2,s16x2} r r r" "add.sat.s32 r r r" "add.cc.{u32,s32,u64,s64} r r r"
        "add{,.rn,.rz,.rm,.rp}{,.ftz}{,.sat}.f32 r r r" "add{,.rn,.rz,.rm,.rp}.f64 r r r" "add{,.rn}{,.sat}.{f16,f16x2,bf16,bf16x2} r r r"
        "add{,.rn}.ftz{,.sat}.{f16,f16x2} r r r";
    "addc" arith::add_sub_carry: "addc{,.cc}.{u32,s32,u64,s64} r r r";
    "and" logic::and_or: "and.{b16,b32,b64} r r r" "and.pred p p p";
    "applypriority" memory::hint: "applypriority.global.L2::evict_normal [g] 128";
    "atom" memory::atom: "atom{,.relaxed,.acquire,.release,.acq_rel}{,.cta,.gpu,.sys}{,.global}.{exch,and,or,xor}.{b32,b64} r [g] r"
        "atom{,.relaxed.gpu,.acq_rel.gpu}{,.global}.cas.{b16,b32,b64} r [g] r r" "atom.shared{,::cta}.cas.{b32,b64} r [s] r r"
        "atom{,.relaxed.gpu,.acq_rel.gpu}{,.global}.{add,min,max}.{u32,s32,u64,s64} r [g] r" "atom{,.global}.add.{f32,f64} r [g] r"
        "atom{,.global}.add.noftz.{f16,f16x2,bf16,bf16x2} r [g] r" "atom{,.global}.{inc,dec}.u32 r [g] r"
        "atom{,.global}.{min,max}.noftz.{f16,bf16} r [g] r" "atom.global.add.{v2,v4}.f32 (v) [g] (v)"
        "atom.shared.{add,min,max}.{u32,s32} r [s] r" "atom.shared.{exch,and,or,xor}.b32 r [s] r" "atom.shared.add.f32 r [s] r";
    "bar" warp::barrier: "bar.sync 0" "bar.sync 1 64" "bar.sync r:b32" "bar.arrive 1 64" "bar.red.{and,or}.pred p 0 p" "bar.red.popc.u32 r 0 p" "bar.warp.sync r:b32"
        "bar.cta.sync 0";
    "barrier" warp::barrier: "barrier{,.cta}.sync{,.aligned} 0" "barrier.sync{,.aligned} 1 64" "barrier.arrive{,.aligned} 1 64" "barrier.red{,.aligned}.{and,or}.pred p 0 p"
        "barrier.red{,.aligned}.popc.u32 r 0 p";
    "bfe" arith::field: "bfe.{u32,s32,u64,s64} r r r:b32 r:b32";
    "bfi" arith::field: "bfi.{b32,b64} r r r r:b32 r:b32";
    "bfind" arith::bits: "bfind{,.shiftamt}.{u32,s32,u64,s64} r:b32 r";
    "bra" control::branch: "bra{,.uni} L";
    "brev" arith::bits: "brev.{b32,b64} r r";
    "brkpt" control::trap: "brkpt";
    "brx" control::branch_indexed: "brx.idx{,.uni} r:b32 T";
    "clz" arith::bits: "clz.{b32,b64} r:b32 r";
    "cnot" logic::not: "cnot.{b16,b32,b64} r r";
    "copysign" arith::copysign: "copysign.{f32,f64} r r r";
    "cos" arith::function: "cos.approx{,.ftz}.f32 r r";
    "cp" asynchronous::copy: "cp.async.ca.shared{,::cta}.global{,.L2::128B} [s] [g] 4" "cp.async.ca.shared.global [s] [g] 8 r:b32"
        "cp.async.cg.shared{,::cta}.global{,.L2::64B,.L2::128B,.L2::256B} [s] [g] 16" "cp.async.cg.shared.global [s] [g] 16 r:b32"
        "cp.async.cg.shared.global [s] [g] 16 p" "cp.async.cg.shared.global.L2::cache_hint [s] [g] 16 r:b64"
        "cp.async.commit_group" "cp.async.wait_group 2" "cp.async.wait_all";
    "createpolicy" memory::policy: "createpolicy.fractional.L2::{evict_last,evict_first,evict_normal,evict_unchanged}.b64 r";
    "cvt" convert::cvt: "cvt{,.sat}.{u8,s8}.{u16,s16,u32,s32} r:b16 r" "cvt{,.sat}.{u16,s16}.{u8,s8,u32,s32,u64,s64} r:b16 r"
        "cvt{,.sat}.{u32,s32}.{u8,s8,u16,s16,u64,s64} r:b32 r" "cvt{,.sat}.{u64,s64}.{u8,s8,u16,s16,u32,s32} r:b64 r"
        "cvt.{rni,rzi,rmi,rpi}{,.ftz}.{u32,s32}.f32 r:b32 r" "cvt.{rni,rzi,rmi,rpi}.{u64,s64}.{f16,bf16,f32,f64} r:b64 r"
        "cvt.{rni,rzi,rmi,rpi}.{u16,s16}.{f16,bf16,f32,f64} r:b16 r" "cvt.{rni,rzi,rmi,rpi}.{u8,s8}.{f16,f32} r:b16 r" "cvt.{rni,rzi,rmi,rpi}.{u32,s32}.{f16,bf16,f64} r:b32 r"
        "cvt.{rn,rz,rm,rp}{,.sat}.f32.{u8,s8,u16,s16,u32,s32,u64,s64} r:b32 r" "cvt.rn.f64.{u8,s8,u16,s16,u32,s32,u64,s64} r:b64 r"
        "cvt.rn.{f16,bf16}.{u8,s8,u16,s16,u32,s32,u64,s64} r:b16 r"
        "cvt.{rn,rz}{,.relu}.{f16,bf16}.f32 r:b16 r" "cvt.{rn,rz}.{f16,bf16}.f64 r:b16 r" "cvt.{rn,rz,rm,rp}{,.ftz}{,.sat}.f32.f64 r:b32 r" "cvt{,.ftz}{,.sat}.f32.f16 r:b32 r" "cvt.f32.bf16 r:b32 r"
        "cvt.f64.{f16,bf16,f32} r:b64 r" "cvt.{rni,rzi,rmi,rpi}.f16.f16 r r" "cvt.{rni,rzi,rmi,rpi}{,.ftz}{,.sat}.f32.f32 r r" "cvt.{rni,rzi,rmi,rpi}.f64.f64 r r" "cvt{,.ftz}{,.sat}.f32.f32 r r"
        "cvt.{rn,rz}{,.relu}.{f16x2,bf16x2}.f32 r:b32 r r" "cvt.rn.satfinite{,.relu}.{e4m3x2,e5m2x2}.f32 r:b16 r r"
        "cvt.rn.satfinite{,.relu}.{e4m3x2,e5m2x2}.f16x2 r:b16 r" "cvt.rn{,.relu}.f16x2.{e4m3x2,e5m2x2} r:b32 r" "cvt.rna.tf32.f32 r r" "cvt.{rn,rz}{,.relu}.tf32.f32 r r";
    "cvta" logic::cvta: "cvta{,.to}.{global,shared,shared::cta,local,const,param}.u64 r r";
    "discard" memory::hint: "discard.global.L2 [g] 128";
    "div" arith::div: "div.{u16,u32,u64,s16,s32,s64} r r r" "div.{approx,full,rn,rz,rm,rp}{,.ftz}.f32 r r r" "div.rn.f64 r r r";
    "dp2a" arith::dot: "dp2a.{lo,hi}.u32.u32 r r r r" "dp2a.{lo,hi}.s32.s32 r r r r";
    "dp4a" arith::dot: "dp4a.{u32,s32}.{u32,s32} r r r r";
    "elect" warp::elect: "elect.sync r:b32|p r:b32";
    "ex2" arith::function: "ex2.approx{,.ftz}.f32 r r" "ex2.approx.{f16,f16x2} r r" "ex2.approx.ftz.{bf16,bf16x2} r r";
    "exit" control::exit: "exit";
    "fence" memory::fence: "fence{,.acq_rel,.sc}.{cta,cluster,gpu,sys}";
    "fma" float::fma_entry: "fma.{rn,rz,rm,rp}{,.ftz}{,.sat}.f32 r r r r" "fma.rn.f64 r r r r" "fma.rn{,.sat,.relu}.{f16,f16x2,bf16,bf16x2} r r r r"
        "fma.rn.ftz{,.sat,.relu}.{f16,f16x2} r r r r";
    "griddepcontrol" control::nothing: "griddepcontrol.{wait,launch_dependents}";
    "isspacep" logic::isspacep: "isspacep.{global,shared,shared::cta,local,const,param} p r:b64";
    "ld" memory::load: "ld{,.global,.const}.{b8,u8,s8,b16,u16,s16,b32,u32,s32,b64,u64,s64,f32,f64} r [g]" "ld.global{,.ca,.cg,.cs,.lu,.cv,.nc}.{v2,v4}.{b32,u32,f32} (v) [g]"
        "ld.global{,.nc}.{v2,v4}.b16 (v) [g]" "ld.global{,.nc}.v2.b64 (v) [g]" "ld.global.nc.L1::no_allocate{,.L2::128B}.b32 r [g]" "ld.global.L2::cache_hint.b32 r [g] r:b64"
        "ld.{weak,volatile}{,.global}.b32 r [g]" "ld.{relaxed,acquire}.{cta,gpu,sys}{,.global}.{b32,b64} r [g]" "ld.shared{,::cta}.{b8,b16,b32,b64,f32} r [s]" "ld.shared.{v2,v4}.{b32,f32} (v) [s]"
        "ld.volatile.shared.b32 r [s]" "ld.local.{b8,b16,b32,b64} r [g]" "ld.param.{b8,b16,b32,b64,f32,u64} r [P]" "ld.param.{v2,v4}.b32 (v) [P]";
    "ldmatrix" tensor::matrix: "ldmatrix.sync.aligned.m8n8.x1{,.trans}{,.shared,.shared::cta}.b16 (r:b32) [s]" "ldmatrix.sync.aligned.m8n8.x2{,.trans}.shared.b16 (r:b32 r:b32) [s]"
        "ldmatrix.sync.aligned.m8n8.x4{,.trans}.shared.b16 (r:b32 r:b32 r:b32 r:b32) [s]";
    "lg2" arith::function: "lg2.approx{,.ftz}.f32 r r";
    "lop3" logic::lop3: "lop3.b32 r r r r 150";
    "mad" arith::mad: "mad.lo.{u16,s16,u32,s32,u64,s64} r r r r" "mad.hi.{u16,s16,u32,s32,u64,s64} r r r r" "mad.hi.sat.s32 r r r r" "mad.{lo,hi}.cc.{u32,s32,u64,s64} r r r r"
        "mad.wide.{u16,s16} r:b32 r r r:b32" "mad.wide.{u32,s32} r:b64 r r r:b64" "mad.{rn,rz,rm,rp}{,.ftz}{,.sat}.f32 r r r r" "mad.rn.f64 r r r r";
    "mad24" arith::mul24: "mad24.lo.{u32,s32} r r r r";
    "madc" arith::mad_carry: "madc.{lo,hi}{,.cc}.{u32,s32,u64,s64} r r r r";
    "match" warp::matching: "match.any.sync.{b32,b64} r:b32 r r:b32" "match.all.sync.{b32,b64} r:b32|p r r:b32";
    "max" arith::min_max: "max.{u16,u32,u64,s16,s32,s64,u16x2,s16x2} r r r" "max.relu.s32 r r r" "max{,.ftz}{,.NaN}{,.xorsign.abs}.f32 r r r" "max.f64 r r r" "max{,.NaN}{,.xorsign.abs}.{f16,f16x2,bf16,bf16x2} r r r";
    "membar" memory::fence: "membar.{cta,gl,sys}";
    "min" arith::min_max: "min.{u16,u32,u64,s16,s32,s64,u16x2,s16x2} r r r" "min.relu.s32 r r r" "min{,.ftz}{,.NaN}{,.xorsign.abs}.f32 r r r" "min.f64 r r r" "min{,.NaN}{,.xorsign.abs}.{f16,f16x2,bf16,bf16x2} r r r";
    "mma" tensor::mma: "mma.sync.aligned.m16n8k16.row.col.f32.{bf16.bf16,f16.f16}.f32 (q) (q) (d) (q)" "mma.sync.aligned.m16n8k8.row.col.f32.{bf16.bf16,f16.f16}.f32 (q) (d) (r:b32) (q)"
        "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 (d) (q) (d) (d)" "mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 (d) (d) (r:b32) (d)"
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 (q) (q) (d) (q)" "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 (q) (d) (r:b32) (q)"
        "mma.sync.aligned.m16n8k32.row.col.f32.{e4m3,e5m2}.{e4m3,e5m2}.f32 (q) (q) (d) (q)" "mma.sync.aligned.m16n8k16.row.col.f32.{e4m3,e5m2}.{e4m3,e5m2}.f32 (q) (d) (r:b32) (q)"
        "mma.sync.aligned.m16n8k32.row.col{,.satfinite}.s32.{s8,u8}.{s8,u8}.s32 (q) (q) (d) (q)" "mma.sync.aligned.m16n8k16.row.col{,.satfinite}.s32.{s8,u8}.{s8,u8}.s32 (q) (d) (r:b32) (q)";
    "mov" logic::mov: "mov.{b16,b32,b64,u16,u32,u64,s16,s32,s64,f32,f64} r r" "mov.pred p p" "mov.b32 r (r:b16 r:b16)" "mov.b64 r (d)" "mov.b32 (r:b16 r:b16) r" "mov.b64 (d) r"
        "mov.b64 r (r:b16 r:b16 r:b16 r:b16)" "mov.b64 (r:b16 r:b16 r:b16 r:b16) r";
    "movmatrix" tensor::move_matrix: "movmatrix.sync.aligned.m8n8.trans.b16 r:b32 r:b32";
    "mul" arith::mul: "mul.{lo,hi}.{u16,s16,u32,s32,u64,s64} r r r" "mul.wide.{u16,s16} r:b32 r r" "mul.wide.{u32,s32} r:b64 r r"
        "mul{,.rn,.rz,.rm,.rp}{,.ftz}{,.sat}.f32 r r r" "mul{,.rn,.rz,.rm,.rp}.f64 r r r" "mul{,.rn}{,.sat}.{f16,f16x2,bf16,bf16x2} r r r" "mul{,.rn}.ftz{,.sat}.{f16,f16x2} r r r";
    "mul24" arith::mul24: "mul24.lo.{u32,s32} r r r";
    "nanosleep" control::sleep: "nanosleep.u32 r";
    "neg" arith::abs_neg: "neg.{s16,s32,s64,f64,f16,f16x2,bf16,bf16x2} r r" "neg{,.ftz}.f32 r r";
    "not" logic::not: "not.{b16,b32,b64} r r" "not.pred p p";
    "or" logic::and_or: "or.{b16,b32,b64} r r r" "or.pred p p p";
    "pmevent" control::nothing: "pmevent 1";
    "popc" arith::bits: "popc.{b32,b64} r:b32 r";
    "prefetch" memory::hint: "prefetch.global.{L1,L2,L2::evict_last} [g]" "prefetch.{L1,L2} [g]";
    "prefetchu" memory::hint: "prefetchu.L1 [g]";
    "prmt" logic::permute: "prmt.b32{,.f4e,.b4e,.rc8,.ecl,.ecr,.rc16} r r r r";
    "rcp" float::rcp_sqrt: "rcp.{approx,rn,rz,rm,rp}{,.ftz}.f32 r r" "rcp.rn.f64 r r" "rcp.approx.ftz.f64 r r";
    "red" memory::atom: "red{,.relaxed.gpu,.release.gpu}{,.global}.{add,min,max}.{u32,s32,u64,s64} [g] r" "red{,.global}.{and,or,xor}.{b32,b64} [g] r" "red{,.global}.{inc,dec}.u32 [g] r"
        "red{,.relaxed.gpu}{,.global}.add.{f32,f64} [g] r" "red{,.global}.add.noftz.{f16,f16x2,bf16,bf16x2} [g] r" "red.global.add.{v2,v4}.f32 [g] (v)"
        "red.global.add.noftz.{v2,v4}.{f16x2,bf16x2} [g] (v)" "red.shared.add.{u32,f32} [s] r";
    "redux" warp::reduce: "redux.sync.{add,min,max}.{u32,s32} r r r:b32" "redux.sync.{and,or,xor}.b32 r r r:b32";
    "rem" arith::div: "rem.{u16,u32,u64,s16,s32,s64} r r r";
    "ret" control::ret: "ret{,.uni}";
    "rsqrt" arith::function: "rsqrt.approx{,.ftz}.{f32,f64} r r";
    "sad" arith::sad: "sad.{u16,u32,u64,s16,s32,s64} r r r r";
    "selp" logic::selp: "selp.{b16,b32,b64,u16,u32,u64,s16,s32,s64,f32,f64} r r r p";
    "set" logic::set: "set.{eq,ne,lt,le,gt,ge}.{u32,s32,f32}.{u32,s32,f32} r:b32 r r" "set.lt.and.u32.s32 r r r p";
    "setp" logic::setp: "setp.{eq,ne}.{b16,b32,b64} p r r" "setp.{eq,ne,lt,le,gt,ge}.{u16,u32,u64,s16,s32,s64} p r r" "setp.{lo,ls,hi,hs}.{u16,u32,u64} p r r"
        "setp.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}{,.ftz}.f32 p r r" "setp.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}.{f64,f16,bf16} p r r"
        "setp.lt.{and,or,xor}.{s32,f32} p r r p" "setp.lt.and.s32 p|p r r p" "setp.lt.s32 p|p r r" "setp.lt.{f16x2,bf16x2} p|p r r";
    "shf" logic::funnel: "shf.{l,r}.{clamp,wrap}.b32 r r r r";
    "shfl" warp::shuffle: "shfl.sync.{idx,up,down,bfly}.b32 r r r r r" "shfl.sync.{idx,up,down,bfly}.b32 r|p r r 31 -1";
    "shl" logic::shift: "shl.{b16,b32,b64} r r r:b32";
    "shr" logic::shift: "shr.{b16,b32,b64,u16,u32,u64,s16,s32,s64} r r r:b32";
    "sin" arith::function: "sin.approx{,.ftz}.f32 r r";
    "slct" logic::slct: "slct.{b16,b32,b64,u32,s32,f32}.s32 r:first r:first r:first r:b32" "slct{,.ftz}.{b32,f32}.f32 r r r r";
    "sqrt" float::rcp_sqrt: "sqrt.{approx,rn,rz,rm,rp}{,.ftz}.f32 r r" "sqrt.rn.f64 r r";
    "st" memory::store: "st{,.global}.{b8,u8,s8,b16,u16,s16,b32,u32,s32,b64,u64,s64,f32,f64} [g] r" "st.global{,.wb,.cg,.cs,.wt}.{v2,v4}.{b32,f32} [g] (v)" "st.global.v2.b64 [g] (v)" "st.global.{v2,v4}.b16 [g] (v)"
        "st.{weak,volatile}{,.global}.b32 [g] r" "st.{relaxed,release}.{cta,gpu,sys}{,.global}.{b32,b64} [g] r" "st.shared{,::cta}.{b8,b16,b32,b64,f32} [s] r" "st.shared.{v2,v4}.{b16,b32,f32} [s] (v)"
        "st.volatile.shared.b32 [s] r" "st.local.{b8,b16,b32,b64} [g] r";
    "stmatrix" tensor::matrix: "stmatrix.sync.aligned.m8n8.x1{,.trans}.shared.b16 [s] (r:b32)" "stmatrix.sync.aligned.m8n8.x4{,.trans}.shared.b16 [s] (q)";
    "sub" arith::add_sub: "sub.{u16,u32,u64,s16,s32,s64} r r r" "sub.sat.s32 r r r" "sub.cc.{u32,s32,u64,s64} r r r"
        "sub{,.rn,.rz,.rm,.rp}{,.ftz}{,.sat}.f32 r r r" "sub{,.rn,.rz,.rm,.rp}.f64 r r r" "sub{,.rn}{,.sat}.{f16,f16x2,bf16,bf16x2} r r r";
    "subc" arith::add_sub_carry: "subc{,.cc}.{u32,s32,u64,s64} r r r";
    "tanh" arith::function: "tanh.approx.{f32,f16,f16x2,bf16,bf16x2} r r";
    "testp" arith::testp: "testp.{finite,infinite,number,notanumber,normal,subnormal}.{f32,f64} p r";
    "trap" control::trap: "trap";
    "vote" warp::vote: "vote.sync.{all,any,uni}.pred p p r:b32" "vote.sync.ballot.b32 r p r:b32";
    "xor" logic::and_or: "xor.{b16,b32,b64} r r r" "xor.pred p p p";
}
