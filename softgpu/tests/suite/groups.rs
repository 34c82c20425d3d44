//! Instructions that work across lanes, warps and blocks, in CUDA kernels whose results are computed here from the
//! definitions.

use crate::gpu::{Arg, Gpu};
use crate::nvrtc;
use proptest::prelude::*;
use softgpu::check::Kind;
use softgpu::num::{bf16_from_f32, bf16_to_f32, e4m3_to_f32, e5m2_to_f32, f16_from_f32, f16_to_f32};

fn gpu(arch: &str) -> Option<Gpu> {
    Some(Gpu::new(&nvrtc::compile("groups.cu", include_str!("../kernels/groups.cu"), arch)?))
}

/// Pseudo-random numbers that are the same in every run.
fn numbers(seed: u64, n: usize) -> Vec<u32> {
    (0..n as u64).map(|i| softgpu::exec::launch::mix(seed << 32 | i) as u32).collect()
}

/// Checks a kernel with random values many times; the compiler runs once.
fn for_random_seeds(check: impl Fn(&mut Gpu, u64)) {
    let Some(g) = gpu("compute_80") else { return };
    let g = std::cell::RefCell::new(g);
    proptest!(ProptestConfig::with_cases(12), |(seed in any::<u32>())| check(&mut g.borrow_mut(), seed as u64));
}

#[test]
fn shuffles() {
    for_random_seeds(shuffles_of);
}

fn shuffles_of(g: &mut Gpu, seed: u64) {
    let (blocks, n) = (12usize, 12 * 64);
    let (v, l) = (numbers(seed, n), numbers(seed + 1, n).iter().map(|x| x & 63).collect::<Vec<_>>());
    let (a, b, out) = (g.upload(&v), g.upload(&l), g.empty(n * 16));
    g.run("shuffles", blocks as u32, 64, 0, &[Arg::Ptr(a), Arg::Ptr(b), Arg::Ptr(out)]);
    let got = g.read::<u32>(out, n * 4);
    for i in 0..n {
        let width = 1usize << (i / 64 % 6);
        let (warp, lane) = (i / 32 * 32, i % 32);
        let segment = lane / width * width;
        let (at, delta) = (l[i] as usize, (l[i] & 31) as usize);
        let of = |k: usize| v[warp + k];
        assert_eq!(got[i * 4], of(segment + at % width), "idx {i}");
        assert_eq!(got[i * 4 + 1], if lane >= segment + delta { of(lane - delta) } else { v[i] }, "up {i}");
        assert_eq!(got[i * 4 + 2], if lane + delta < segment + width { of(lane + delta) } else { v[i] }, "down {i}");
        // CUDA lets xor reach into earlier groups, not into later ones.
        let x = lane ^ delta;
        assert_eq!(got[i * 4 + 3], if x < segment + width { of(x) } else { v[i] }, "xor {i}");
    }
}

#[test]
fn parts_of_a_warp_work_on_their_own() {
    for_random_seeds(parts_of);
}

fn parts_of(g: &mut Gpu, seed: u64) {
    let v = numbers(seed, 3 * 64);
    for n in [2usize, 4, 8, 16, 32] {
        let (a, out) = (g.upload(&v), g.empty(v.len() * 4));
        g.machine.settings.seed = seed;
        g.run("parts", 3, 64, 0, &[Arg::Ptr(a), Arg::Ptr(out), Arg::U32(n as u32)]);
        let got = g.read::<u32>(out, v.len());
        for i in 0..v.len() {
            let (lane, part) = (i % 32, i / n * n);
            // Bit masks have their bits where lanes are in the warp.
            let mask = |is: &dyn Fn(u32) -> bool| (part..part + n).fold(0, |m, j| m | u32::from(is(v[j])) << (j % 32));
            let mut sum = 0u32;
            for turn in 0..=(lane / n) as u32 {
                let matching = mask(&|x| x & 3 == v[i] & 3);
                let total = v[part..part + n].iter().fold(0u32, |a, b| a.wrapping_add(*b));
                for x in [v[i ^ (n / 2)].wrapping_add(turn), mask(&|x| x >> turn & 1 == 1), matching, total] {
                    sum = sum.wrapping_mul(3).wrapping_add(x);
                }
            }
            assert_eq!(got[i], sum, "parts of {n}, thread {i}");
        }
    }
}

#[test]
fn parts_of_a_warp_keep_to_themselves() {
    let Some(mut g) = gpu("compute_80") else { return };
    for n in [2, 4, 8, 16] {
        for kernel in ["parts_across", "parts_of_others"] {
            let (a, out) = (g.upload(&numbers(0, 32)), g.empty(32 * 4));
            let found = g.fails(kernel, 1, 32, 0, &[Arg::Ptr(a), Arg::Ptr(out), Arg::U32(n)]);
            assert_eq!(found.kind, Kind::BadOperand, "{kernel}, parts of {n}: {found}");
        }
    }
}

#[test]
fn votes_matches_and_reductions() {
    for_random_seeds(votes_of);
}

fn votes_of(g: &mut Gpu, seed: u64) {
    let mut v = numbers(seed, 6 * 32);
    v[..32].iter_mut().for_each(|x| *x |= 1 | 1 << 31);
    v[32..64].iter_mut().for_each(|x| *x &= !1 & 0x7fff_ffff);
    let (a, out) = (g.upload(&v), g.empty(v.len() * 32));
    g.run("votes", 3, 64, 0, &[Arg::Ptr(a), Arg::Ptr(out)]);
    let got = g.read::<u32>(out, v.len() * 8);
    for (w, warp) in v.chunks(32).enumerate() {
        let mask = |p: &dyn Fn(u32) -> bool| warp.iter().enumerate().fold(0u32, |m, (l, x)| m | (p(*x) as u32) << l);
        let ballot = mask(&|x| x & 1 == 1);
        for (l, x) in warp.iter().enumerate() {
            let same = warp.iter().all(|y| y >> 31 == warp[0] >> 31);
            let want = [
                (ballot == !0) as u32,
                (ballot != 0) as u32,
                ballot,
                mask(&|y| y & 3 == x & 3),
                if same { (!0u32).wrapping_add(1) } else { 0 },
                warp.iter().fold(0u32, |s, y| s.wrapping_add(*y)),
                warp.iter().map(|y| *y as i32).max().unwrap() as u32,
                warp.iter().fold(0, |s, y| s ^ y),
            ];
            assert_eq!(&got[(w * 32 + l) * 8..][..8], &want, "warp {w} lane {l}");
        }
    }
}

#[test]
fn lanes_that_remain_work_among_themselves() {
    let Some(mut g) = gpu("compute_80") else { return };
    let v = numbers(4, 128);
    let (a, out) = (g.upload(&v), g.empty(512));
    for seed in 0..8 {
        g.machine.settings.seed = seed;
        g.run("some_lanes", 1, 128, 0, &[Arg::Ptr(a), Arg::Ptr(out)]);
        let got = g.read::<u32>(out, 128);
        for (w, warp) in v.chunks(32).enumerate() {
            let sum: u32 = warp.iter().filter(|x| *x & 1 == 1).map(|x| x >> 8).sum();
            warp.iter().enumerate().for_each(|(l, x)| assert_eq!(got[w * 32 + l], if x & 1 == 1 { sum } else { 0 }));
        }
    }
}

#[test]
fn diverging_loops_and_switches() {
    let Some(mut g) = gpu("compute_80") else { return };
    let v = numbers(5, 512);
    let (a, out) = (g.upload(&v), g.empty(2048));
    for seed in 0..4 {
        g.machine.settings.seed = seed;
        g.run("loops", 4, 128, 0, &[Arg::Ptr(a), Arg::Ptr(out)]);
        for (x, got) in v.iter().zip(g.read::<u32>(out, 512)) {
            let mut s = 0u32;
            for i in 0..x & 63 {
                if i & 1 == 1 {
                    s = s.wrapping_add(i);
                } else if i % 3 == 0 {
                    s ^= i << 8;
                } else {
                    s = s.wrapping_mul(3).wrapping_add(1);
                    if s > 100_000 {
                        break;
                    }
                }
            }
            s = match x >> 8 & 7 {
                0 => s.wrapping_add(1),
                1 => s.wrapping_mul(7),
                2 => (s ^ 5).wrapping_add(9),
                3 => s.wrapping_add(9),
                4 => !s,
                5 => s << 3,
                6 => s.wrapping_sub(77),
                _ => 0,
            };
            assert_eq!(got, s, "{x:#x}");
        }
    }
}

#[test]
fn atomics_are_atomic_between_blocks() {
    for_random_seeds(atomics_of);
}

fn atomics_of(g: &mut Gpu, seed: u64) {
    let n = 64 * 128;
    let v = numbers(seed, n);
    let a = g.upload(&v);
    for order in [0, seed] {
        g.machine.settings.seed = order;
        let c = g.upload(&[0u32, 0, !0, 0, 0, !0, 0, 0]);
        let (f, w, e) = (g.upload(&[0f32]), g.upload(&[0u64]), g.upload(&[i32::MIN]));
        g.run("atomics", 64, 128, 0, &[Arg::Ptr(c), Arg::Ptr(f), Arg::Ptr(w), Arg::Ptr(e), Arg::Ptr(a)]);
        let want = [
            v.iter().map(|x| x & 0xff).sum::<u32>(),
            *v.iter().max().unwrap(),
            *v.iter().min().unwrap(),
            v.iter().fold(0, |s, x| s ^ x),
            v.iter().fold(0, |s, x| s | 1 << (x & 31)),
            v.iter().fold(!0, |s, x| s & !(1u32 << (x & 31))),
            (0..n).fold(0u32, |s, _| if s >= 1000 { 0 } else { s + 1 }),
            3 * n as u32,
        ];
        assert_eq!(g.read::<u32>(c, 8), want);
        assert_eq!(g.read::<f32>(f, 1), [n as f32]);
        assert_eq!(g.read::<u64>(w, 1), [v.iter().map(|x| *x as u64).sum::<u64>()]);
        assert_eq!(g.read::<i32>(e, 1), [v.iter().map(|x| *x as i32).max().unwrap()]);
    }
}

#[test]
fn atomics_in_shared_memory() {
    for_random_seeds(shared_atomics_of);
}

fn shared_atomics_of(g: &mut Gpu, seed: u64) {
    let v = numbers(seed, 512);
    let (a, out) = (g.upload(&v), g.empty(4 * 17 * 4));
    g.run("shared_atomics", 4, 128, 0, &[Arg::Ptr(out), Arg::Ptr(a)]);
    let got = g.read::<u32>(out, 68);
    for (b, block) in v.chunks(128).enumerate() {
        for k in 0..16 {
            assert_eq!(got[b * 17 + k], block.iter().filter(|x| *x & 15 == k as u32).count() as u32);
        }
        assert_eq!(got[b * 17 + 16], 64);
    }
}

#[test]
fn barriers_with_ids_and_reductions() {
    let Some(mut g) = gpu("compute_80") else { return };
    for seed in 0..12 {
        g.machine.settings.seed = seed;
        let out = g.empty(1024);
        g.run("barriers", 1, 256, 0, &[Arg::Ptr(out)]);
        for (t, got) in g.read::<u32>(out, 256).into_iter().enumerate() {
            assert_eq!(got as usize, t + 1 + 10 + 86 * 100, "thread {t}");
        }
    }
}

#[test]
fn functions_are_called_and_return() {
    let Some(mut g) = gpu("compute_80") else { return };
    let out = g.empty(256);
    g.run("calls", 1, 64, 0, &[Arg::Ptr(out)]);
    for (t, got) in g.read::<u32>(out, 64).into_iter().enumerate() {
        let want = if t & 1 == 1 { t * 3 + t + 1 } else { (t + 100) * 3 + t * 2 };
        assert_eq!(got as usize, want);
    }
}

#[test]
fn local_memory_tables_and_parameters() {
    let Some(mut g) = gpu("compute_80") else { return };
    let v = numbers(8, 128);
    let (a, out) = (g.upload(&v), g.empty(512));
    g.run("locals", 1, 128, 0, &[Arg::Ptr(a), Arg::Ptr(out)]);
    for (i, got) in g.read::<u32>(out, 128).into_iter().enumerate() {
        let t: Vec<u32> = (0..16).map(|k| v[(i + k) & 127].wrapping_add(k as u32)).collect();
        let want =
            (0..16u32).fold(0u32, |s, k| s.wrapping_mul(31).wrapping_add(t[(v[i].wrapping_add(k) & 15) as usize]));
        assert_eq!(got, want);
    }
    g.run("tables", 1, 32, 0, &[Arg::Ptr(out)]);
    for (t, got) in g.read::<u32>(out, 32).into_iter().enumerate() {
        let k = t & 7;
        assert_eq!(got as usize, k * k + k * k * k * 1000 + 8_000_000);
    }
}

#[test]
fn structures_are_parameters() {
    let Some(mut g) = gpu("compute_80") else { return };
    let out = g.empty(128);
    let index = g.module.program.kernels.iter().position(|k| k.name == "parameters").unwrap();
    let k = &g.module.program.kernels[index];
    let mut params = vec![0u8; k.param_bytes as usize];
    let mut put =
        |p: usize, o: usize, b: &[u8]| params[k.params[p].offset as usize + o..][..b.len()].copy_from_slice(b);
    put(0, 0, &out.to_le_bytes());
    (0..6u32).for_each(|i| put(1, i as usize * 4, &(i * 100).to_le_bytes()));
    put(1, 32 + 8, &7f32.to_le_bytes());
    put(1, 48, &[9]);
    put(2, 0, &1000u16.to_le_bytes());
    put(3, 0, &20000f64.to_le_bytes());
    let l = softgpu::machine::Launch {
        grid: [1, 1, 1],
        block: [32, 1, 1],
        shared: 0,
        allowed: 0,
        params,
        stream: 0,
        clock: 0,
        unordered: Vec::new(),
    };
    g.machine.launch(g.part, &g.module, index, &l).unwrap();
    for (t, got) in g.read::<u32>(out, 32).into_iter().enumerate() {
        assert_eq!(got as usize, t % 6 * 100 + 7 + 9 + 1000 + 20000);
    }
}

/// A tensor instruction: kernel, k, bits of an element, and the value of an element.
type Mma = (&'static str, usize, u32, fn(u32) -> f32);

/// Packs row-major A (16×k), B (k×8) and C (16×8) as the lanes hold them; the inverse of D's layout reads the result.
fn product(g: &mut Gpu, (name, k, bits, value): Mma, a: &[u32], b: &[u32], c: &[f32]) {
    let per = 32 / bits as usize;
    let (na, nb) = (16 * k / 32 / per, 8 * k / 32 / per);
    let pack = |f: &dyn Fn(usize) -> u32| (0..per).fold(0u32, |r, e| r | f(e) << (bits as usize * e));
    let (mut ra, mut rb, mut rc) = (vec![0u32; 32 * na], vec![0u32; 32 * nb], vec![0f32; 128]);
    for l in 0..32 {
        let (row, t) = (l / 4, l % 4);
        for r in 0..na {
            let (i, p) = (row + 8 * (r % 2), (r / 2) * 4 * per + t * per);
            ra[l * na + r] = pack(&|e| a[i * k + p + e]);
        }
        for r in 0..nb {
            rb[l * nb + r] = pack(&|e| b[(r * 4 * per + t * per + e) * 8 + row]);
        }
        for r in 0..4 {
            rc[l * 4 + r] = c[(row + 8 * (r / 2)) * 8 + t * 2 + r % 2];
        }
    }
    let (pa, pb, pc, pd) = (g.upload(&ra), g.upload(&rb), g.upload(&rc), g.empty(512));
    g.run(name, 1, 32, 0, &[Arg::Ptr(pa), Arg::Ptr(pb), Arg::Ptr(pc), Arg::Ptr(pd)]);
    let d = g.read::<f32>(pd, 128);
    for (l, lane) in d.chunks(4).enumerate() {
        for (r, got) in lane.iter().enumerate() {
            let (i, j) = (l / 4 + 8 * (r / 2), l % 4 * 2 + r % 2);
            let terms = (0..k).map(|p| value(a[i * k + p]) as f64 * value(b[p * 8 + j]) as f64);
            let (sum, size) =
                terms.fold((c[i * 8 + j] as f64, (c[i * 8 + j] as f64).abs()), |(s, m), x| (s + x, m + x.abs()));
            // Products are exact; each of k sums in f32 rounds once.
            let bound = size * (k as f64 + 1.0) * 2f64.powi(-24) + 1e-44;
            assert!((*got as f64 - sum).abs() <= bound, "{name} [{i}][{j}]: {got} against {sum}");
        }
    }
    for at in [pa, pb, pc, pd] {
        g.machine.memory.free(at, &[softgpu::device::memory::Purpose::Device]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn tensor_products_of_random_matrices(seed in any::<u32>(), scale in -8i32..8) {
        thread_local!(static GPU: std::cell::RefCell<Option<Gpu>> = std::cell::RefCell::new(gpu("compute_89")));
        GPU.with(|g| {
            let mut g = g.borrow_mut();
            let Some(g) = g.as_mut() else { return };
            let real = |x: u32| (x as i32 as f32 / 2f32.powi(31)) * 2f32.powi(scale);
            let c: Vec<f32> = numbers(seed as u64 + 3, 128).into_iter().map(real).collect();
            let bf16 = |x| bf16_from_f32(real(x)) as u32;
            let f16 = |x| f16_from_f32(real(x)) as u32;
            // Any finite pattern of 8 bits.
            let fp8 = |x: u32| if x & 0x7c == 0x7c { x & 0x83 } else { x & 0xff };
            let kernels: [(Mma, &dyn Fn(u32) -> u32); 6] = [
                (("mma_bf16", 16, 16, |x| bf16_to_f32(x as u16)), &bf16),
                (("mma_f16", 16, 16, |x| f16_to_f32(x as u16)), &f16),
                (("mma_bf16_k8", 8, 16, |x| bf16_to_f32(x as u16)), &bf16),
                (("mma_f16_k8", 8, 16, |x| f16_to_f32(x as u16)), &f16),
                (("mma_e4m3", 32, 8, |x| e4m3_to_f32(x as u8)), &fp8),
                (("mma_e5m2", 32, 8, |x| e5m2_to_f32(x as u8)), &fp8),
            ];
            for (m, make) in kernels {
                let a: Vec<u32> = numbers(seed as u64, 16 * m.1).into_iter().map(make).collect();
                let b: Vec<u32> = numbers(seed as u64 + 7, 8 * m.1).into_iter().map(make).collect();
                product(g, m, &a, &b, &c);
            }
        });
    }
}

#[test]
fn matrices_are_loaded_in_both_directions() {
    let Some(mut g) = gpu("compute_80") else { return };
    let v: Vec<u16> = (0..512).map(|i| i as u16 * 3).collect();
    let (a, out) = (g.upload(&v), g.empty(32 * 32));
    g.run("matrices", 1, 32, 0, &[Arg::Ptr(a), Arg::Ptr(out)]);
    let got = g.read::<u32>(out, 256);
    let row = |t: usize| t * 16 % 512 + if t >= 16 { 8 } else { 0 };
    for t in 0..32 {
        for i in 0..4 {
            let (r, c) = (t / 4, t % 4 * 2);
            let at = |row_of: usize, col: usize| v[row(i * 8 + row_of) + col] as u32;
            assert_eq!(got[t * 8 + i], at(r, c) | at(r, c + 1) << 16);
            assert_eq!(got[t * 8 + 4 + i], at(c, r) | at(c + 1, r) << 16);
        }
    }
}

#[test]
fn asynchronous_copies_arrive_by_group() {
    let Some(mut g) = gpu("compute_80") else { return };
    let v: Vec<f32> = (0..512).map(|i| i as f32 + 1.0).collect();
    for seed in 0..8 {
        g.machine.settings.seed = seed;
        let (a, out) = (g.upload(&v), g.empty(4096));
        g.run("copies", 1, 128, 0, &[Arg::Ptr(a), Arg::Ptr(out), Arg::U32(100)]);
        let got = g.read::<f32>(out, 1024);
        for t in 0..128 {
            let first: Vec<f32> = (0..4).map(|k| if 127 - t < 100 { v[(127 - t) * 4 + k] } else { 0.0 }).collect();
            assert_eq!(got[t * 4..][..4], first);
            let source = 127 - ((t + 64) & 127);
            assert_eq!(got[512 + t * 4..][..4], v[source * 4..][..4]);
        }
    }
}

#[test]
fn approximations_are_within_their_documented_error() {
    let Some(mut g) = gpu("compute_80") else { return };
    let x: Vec<f32> = (0..4096).map(|i| (i as f32 - 2048.0) / 128.0 + 0.003).collect();
    let (a, out) = (g.upload(&x), g.empty(4096 * 32));
    g.run("approximations", 32, 128, 0, &[Arg::Ptr(a), Arg::Ptr(out), Arg::U32(4096)]);
    let got = g.read::<f32>(out, 4096 * 8);
    for (x, r) in x.iter().zip(got.chunks(8)) {
        let x = *x as f64;
        let relative = |got: f32, want: f64| ((got as f64 - want) / want).abs();
        assert!(relative(r[0], x.exp2()) <= 2f64.powf(-22.5), "ex2 {x}");
        assert!(
            (r[1] as f64 - x.abs().log2()).abs() <= 2f64.powf(-22.0).max(2f64.powf(-22.0) * x.abs().log2().abs()),
            "lg2 {x}"
        );
        assert!(relative(r[2], 1.0 / x.abs().sqrt()) <= 2f64.powf(-22.9), "rsqrt {x}");
        assert!(relative(r[3], 1.0 / x) <= 2f64.powf(-23.0), "rcp {x}");
        assert!(relative(r[4], x.tanh()) <= 2f64.powf(-10.9), "tanh {x}");
        assert!(relative(r[5], x.abs().sqrt()) <= 2f64.powf(-23.0), "sqrt {x}");
        assert!(x.abs() > 3.1 || (r[6] as f64 - x.sin()).abs() <= 2f64.powf(-20.5), "sin {x}");
        assert!(relative(r[7], x / 3.0) <= 2f64.powf(-22.0), "div {x}");
    }
}

#[test]
fn the_compilers_own_library_runs() {
    let Some(mut g) = gpu("compute_80") else { return };
    let x: Vec<f32> = (0..2048).map(|i| (i as f32 - 1024.0) / 100.0 + 0.0017).collect();
    let (a, out) = (g.upload(&x), g.empty(2048 * 24));
    g.run("library", 16, 128, 0, &[Arg::Ptr(a), Arg::Ptr(out), Arg::U32(2048)]);
    let got = g.read::<f32>(out, 2048 * 6);
    for (x, r) in x.iter().zip(got.chunks(6)) {
        let y = *x as f64;
        let want = [
            y.exp(),
            ((x * 1000.0) as f64).sin(),
            ((x.abs() + 1e-3) as f64).ln(),
            y.abs().powf(1.7),
            1.0 / y,
            y.tanh(),
        ];
        for (k, (got, want)) in r.iter().zip(want).enumerate() {
            assert!((*got as f64 - want).abs() <= 4e-6 * want.abs() + 2e-7, "{k} of {x}: {got} against {want}");
        }
    }
    let y: Vec<f64> = (0..256).map(|i| (i as f64 - 128.0) / 10.0 + 0.01).collect();
    let (a, out) = (g.upload(&y), g.empty(256 * 24));
    g.run("library64", 2, 128, 0, &[Arg::Ptr(a), Arg::Ptr(out), Arg::U32(256)]);
    for (y, r) in y.iter().zip(g.read::<f64>(out, 768).chunks(3)) {
        for (got, want) in r.iter().zip([y.exp(), y / 3.7, y.abs().sqrt()]) {
            assert!((got - want).abs() <= 4e-16 * want.abs(), "{y}: {got} against {want}");
        }
    }
}

#[test]
fn kernels_for_every_target_load() {
    for target in ["compute_80", "compute_86", "compute_89", "compute_90", "compute_90a", "compute_100", "compute_120"]
    {
        for (name, source) in
            [("groups.cu", include_str!("../kernels/groups.cu")), ("faults.cu", include_str!("../kernels/faults.cu"))]
        {
            let Some(ptx) = nvrtc::compile(name, source, target) else { return };
            let program = softgpu::load(&ptx).unwrap_or_else(|e| panic!("{name} for {target}: {e}"));
            assert_eq!(program.target, target.replace("compute", "sm"));
        }
    }
}

/// Results may be the registers of operands in another order.
#[test]
fn operands_are_read_before_results_are_written() {
    let mut g = Gpu::new(
        ".version 8.1\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 p) {\n.reg .b32 %r<5>;\n.reg .f32 %f<5>;\n\
         .reg .b64 %d<2>;\nld.param.u64 %d0, [p];\nmov.u32 %r0, 0;\nmov.u32 %r1, 1;\nmov.u32 %r2, 2;\nmov.u32 %r3, 3;\nmov.u32 %r4, 4;\n\
         mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%r1,%r2,%r3,%r4}, {%r0,%r0}, {%r0}, {%r4,%r3,%r2,%r1};\n\
         st.global.v4.b32 [%d0], {%r1,%r2,%r3,%r4};\nmov.b32 %f1, 0f3F800000;\nmov.b32 %f2, 0f40000000;\n\
         atom.global.add.v2.f32 {%f1,%f2}, [%d0+16], {%f2,%f1};\nst.global.v2.f32 [%d0+24], {%f1,%f2};\nret;\n}\n",
    );
    let a = g.upload(&[0u32; 8]);
    g.run("k", 1, 32, 0, &[Arg::Ptr(a)]);
    assert_eq!(g.read::<u32>(a, 4), [4, 3, 2, 1]);
    // 32 lanes add (2, 1); the last to do it found the sums of the others.
    assert_eq!(g.read::<f32>(a + 16, 4), [64.0, 32.0, 62.0, 31.0]);
}
