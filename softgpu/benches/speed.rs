//! How fast the machine is on one core: lane-instructions of arithmetic and of memory access, FLOPs of tensor
//! instructions, and the shared cases. Prints one line each; `--json` prints one object.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use softgpu::check::Checks;
use softgpu::device::memory::Purpose;
use softgpu::device::part;
use softgpu::machine::{Launch, Machine, Settings};

/// A kernel of a loop with `body` in it, 256 threads a block, and how often the loop runs.
fn kernel(body: &str, loops: u32) -> String {
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {{\n\
         .reg .b32 %r<40>;\n.reg .f32 %f<40>;\n.reg .pred %p<4>;\n.reg .b64 %d<8>;\n\
         .shared .align 16 .b8 s[4096];\n\
         ld.param.u64 %d0, [p];\nmov.u32 %r0, %tid.x;\nmov.u32 %r30, %ctaid.x;\nmad.lo.u32 %r31, %r30, 256, %r0;\n\
         mad.wide.u32 %d1, %r31, 4, %d0;\nmov.u32 %r1, 0;\nmov.u32 %r2, %r0;\nmov.u32 %r3, 7;\ncvt.rn.f32.u32 %f1, %r0;\nmov.f32 %f2, 0f3F000000;\nmov.f32 %f3, 0f3F800000;\n\
         mov.b32 %r10, 0x3f803f80;\nmov.f32 %f10, 0f00000000;\nmov.f32 %f11, %f10;\nmov.f32 %f12, %f10;\nmov.f32 %f13, %f10;\n\
         shl.b32 %r20, %r0, 2;\nst.shared.b32 [%r20], %r0;\nbar.sync 0;\n\
         L:\n{body}\nadd.u32 %r1, %r1, 1;\nsetp.lt.u32 %p0, %r1, {loops};\n@%p0 bra L;\n\
         add.u32 %r2, %r2, %r3;\ncvt.rzi.u32.f32 %r4, %f1;\nadd.u32 %r2, %r2, %r4;\nst.global.u32 [%d1], %r2;\nret;\n}}\n"
    )
}

const ALU: &str = "add.s32 %r2, %r2, %r3;\nfma.rn.f32 %f1, %f1, %f2, %f3;\nxor.b32 %r3, %r3, %r2;\nmul.f32 %f4, %f1, %f2;\nand.b32 %r5, %r2, 1023;\n\
    add.f32 %f1, %f1, %f4;\nshl.b32 %r6, %r5, 3;\nmad.lo.s32 %r2, %r5, 3, %r6;\nsetp.gt.s32 %p1, %r2, %r3;\nselp.b32 %r3, %r5, %r6, %p1;\nmax.f32 %f1, %f1, %f2;\nsub.s32 %r2, %r2, %r5;\n";
const MMA: &str = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f10,%f11,%f12,%f13}, {%r10,%r10,%r10,%r10}, {%r10,%r10}, {%f10,%f11,%f12,%f13};\n";
const GLOBAL: &str = "ld.global.u32 %r5, [%d1];\nadd.u32 %r2, %r2, %r5;\n";
const SHARED: &str = "ld.shared.u32 %r5, [%r20];\nadd.u32 %r2, %r2, %r5;\n";

struct Line {
    name: String,
    lanes: f64,
    flops: f64,
    seconds: f64,
}

/// Runs a kernel on one thread of the host: lane-instructions (counted in a run of its own), FLOPs and seconds.
fn measure(name: &str, body: &str, copies: usize, loops: u32, checks: Checks) -> Line {
    let program = Arc::new(softgpu::load(&kernel(&body.repeat(copies), loops)).expect("it is PTX"));
    let part = part::for_capability(80).expect("a part");
    let mut seconds = f64::MAX;
    let (mut lanes, mut flops) = (0.0, 0.0);
    for counting in [true, false, false, false] {
        let mut m = Machine::new(Settings { checks, seed: 0, workers: 1, counting }).expect("addresses");
        let module = m.load(0, part.memory, program.clone()).expect("room");
        let at = m.memory.allocate(0, 4 * 256 * 4, part.memory, Purpose::Device, None).expect("room");
        m.write(at, &[1; 4096]);
        let launch = Launch {
            grid: [4, 1, 1],
            block: [256, 1, 1],
            shared: 0,
            allowed: 0,
            params: at.to_le_bytes().to_vec(),
            stream: 0,
            clock: 0,
            unordered: Vec::new(),
        };
        let start = Instant::now();
        let c = m.launch(part, &module, 0, &launch).expect("it runs");
        if counting {
            lanes = c.lanes.iter().sum::<u64>() as f64;
            flops = c.tensor_flops as f64;
        } else {
            seconds = seconds.min(start.elapsed().as_secs_f64());
        }
    }
    Line { name: name.to_string(), lanes, flops, seconds }
}

fn main() {
    let json = std::env::args().any(|a| a == "--json");
    let mut lines = Vec::new();
    for (what, checks) in [("checks on", Checks::ALL), ("checks off", Checks::NONE)] {
        lines.push(measure(&format!("alu, {what}"), ALU, 8, 2000, checks));
        lines.push(measure(&format!("global loads, {what}"), GLOBAL, 8, 500, checks));
        lines.push(measure(&format!("shared loads, {what}"), SHARED, 8, 500, checks));
        lines.push(measure(&format!("mma bf16, {what}"), MMA, 8, 500, checks));
    }
    let mut cases = Vec::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    for name in ["matmul_sm80", "attention_sm80", "rms_rows", "cumsum_rows", "scatter_add"] {
        let run = || softgpu::case::run(&dir.join(name), Settings::default()).expect("it runs").milliseconds;
        cases.push((name, (0..3).map(|_| run()).fold(f64::MAX, f64::min)));
    }
    if json {
        let l: serde_json::Map<_, _> = lines
            .iter()
            .map(|l| (l.name.clone(), serde_json::json!({ "lane_instructions_a_second": l.lanes / l.seconds, "tensor_flops_a_second": l.flops / l.seconds })))
            .collect();
        let c: serde_json::Map<_, _> = cases.iter().map(|(n, ms)| (n.to_string(), serde_json::json!(ms))).collect();
        println!("{}", serde_json::json!({ "one_core": l, "cases_milliseconds": c }));
        return;
    }
    for l in &lines {
        if l.flops > 0.0 {
            println!("{:<26} {:>8.2} GFLOP/s", l.name, l.flops / l.seconds / 1e9);
        } else {
            println!("{:<26} {:>8.2} G lane-instructions/s", l.name, l.lanes / l.seconds / 1e9);
        }
    }
    for (name, ms) in &cases {
        println!("{name:<26} {ms:>8.1} ms, all checks");
    }
}
