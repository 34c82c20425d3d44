//! The `softgpu` command: runs the launch that a folder describes, or says what the device can be.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use softgpu::case::{self, CaseError, Outcome};
use softgpu::check::{CHECKS, Checks};
use softgpu::device::part::PARTS;
use softgpu::error::LaunchError;
use softgpu::machine::Settings;

#[derive(Parser)]
#[command(name = "softgpu", version, about = "A CUDA device in software that checks what kernels do")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the launch that a folder describes (kernel.ptx, case.json, buffers) and compares its outputs
    Run {
        /// The folder
        case_dir: PathBuf,
        /// Which checks are on: `all`, `none`, names of those that are, or `-name` for all but these
        #[arg(long, value_name = "CHECKS", allow_hyphen_values = true, value_parser = Checks::parse)]
        check: Option<Checks>,
        /// Counts instructions, memory requests and conflicts
        #[arg(long)]
        stats: bool,
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
        /// Chooses the order of blocks and warps
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Threads of the host; 0 for one a core
        #[arg(long, default_value_t = 0)]
        threads: u32,
    },
    /// Says which parts, checks and instructions there are
    Info {
        /// Prints one JSON object
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { case_dir, check, stats, json, seed, threads } => {
            let settings = Settings { checks: check.unwrap_or(Checks::ALL), seed, workers: threads, counting: stats };
            match case::run(&case_dir, settings) {
                Ok(outcome) => report(&outcome, stats, json),
                Err(e) => failed(&e, json),
            }
        }
        Command::Info { json } => {
            info(json);
            ExitCode::SUCCESS
        }
    }
}

fn failed(e: &CaseError, json: bool) -> ExitCode {
    if json {
        let finding = match e {
            CaseError::Launch(LaunchError::Finding(f)) => serde_json::to_value(f).unwrap_or_default(),
            _ => serde_json::Value::Null,
        };
        println!("{}", serde_json::json!({ "ok": false, "error": e.to_string(), "finding": finding }));
    } else {
        eprintln!("softgpu: {e}");
    }
    ExitCode::FAILURE
}

fn report(o: &Outcome, stats: bool, json: bool) -> ExitCode {
    let right = o.outputs.iter().all(|x| x.right);
    let kernel = o.program.kernel(&o.entry);
    let classes = kernel.map(|k| o.counters.by_class(k)).unwrap_or_default();
    let c = &o.counters;
    if json {
        let mut v = serde_json::json!({
            "ok": right, "kernel": o.entry, "part": o.part.id, "milliseconds": o.milliseconds, "outputs": o.outputs,
        });
        if stats {
            let by_kind: serde_json::Map<String, serde_json::Value> = classes
                .iter()
                .map(|(k, lanes, warps)| (kind_name(*k), serde_json::json!({ "lanes": lanes, "warps": warps })))
                .collect();
            v["stats"] = serde_json::json!({
                "instructions": by_kind, "global_requests": c.global_requests, "global_sectors": c.global_sectors,
                "global_bytes": c.global_bytes, "shared_requests": c.shared_requests,
                "bank_conflicts": c.bank_conflicts, "tensor_flops": c.tensor_flops,
            });
        }
        println!("{v}");
    } else {
        for x in &o.outputs {
            let verdict = if x.right { "ok" } else { "WRONG" };
            println!("{}: relative error {:.3e} of {:.1e}: {verdict}", x.name, x.relative_error, x.allowed);
        }
        if stats {
            for (k, lanes, warps) in &classes {
                println!("{:<12} {lanes:>12} lanes {warps:>10} warps", kind_name(*k));
            }
            println!(
                "global       {:>12} bytes {:>10} requests {:>8.2} sectors a request",
                c.global_bytes,
                c.global_requests,
                c.global_sectors as f64 / c.global_requests.max(1) as f64
            );
            println!("shared       {:>12} requests {:>10} bank conflicts", c.shared_requests, c.bank_conflicts);
            println!("tensor       {:>12} FLOPs", c.tensor_flops);
        }
        println!("{} on {}: {:.1} ms", o.entry, o.part.name, o.milliseconds);
    }
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn kind_name(k: softgpu::program::Class) -> String {
    serde_json::to_value(k).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default()
}

fn info(json: bool) {
    let instructions: usize = softgpu::decode::table::TABLE.len();
    if json {
        let parts: Vec<_> = PARTS
            .iter()
            .map(|p| serde_json::json!({ "id": p.id, "name": p.name, "sm": p.number(), "memory": p.memory, "sms": p.sms }))
            .collect();
        let checks: Vec<_> = CHECKS.iter().map(|(_, n)| n).collect();
        println!("{}", serde_json::json!({ "parts": parts, "checks": checks, "instructions": instructions }));
        return;
    }
    println!("parts:");
    for p in PARTS {
        println!("  {:<10} sm_{:<4} {:>4} SMs {:>4} GiB  {}", p.id, p.number(), p.sms, p.memory >> 30, p.name);
    }
    println!("checks: {}", CHECKS.map(|(_, n)| n).join(", "));
    println!("{instructions} instructions: see docs/softgpu.md");
}
