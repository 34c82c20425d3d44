//! What a person sees before the first step: model, size, data, memory, device, time.

use mngc_compiler::ir::{EntryKey, EntryKind};
use mngc_compiler::schedule::cost;
use mngc_runtime::Backend;
use mngc_runtime::cuda::Kind;
use mngc_trainer::event::Start;
use mngc_trainer::{Plan, memory};

use crate::device::{Chosen, Need};
use crate::load::Schedule;
use crate::progress::{count, wait};

/// What is known of a run beside its first event.
#[derive(Clone, Debug)]
pub struct Screen {
    /// What the run needs.
    need: Need,
    /// Bytes that are free where its values lie, where that is known.
    free: Option<u64>,
    threads: usize,
    /// Why no GPU was taken, where one was looked for.
    instead: Option<String>,
    /// Floating-point operations that are left to do.
    flops: f64,
    /// Floating-point operations a second, where the device can measure them.
    peak: Option<f64>,
    /// Steps that were made before.
    done: u64,
}

/// Of the peak of matrix products, what whole steps reach: between 53 % (demo, where the head is almost all) and 85 %
/// (gpt2) were measured, see docs/performance.md.
const REACHED: f64 = 0.65;

impl Screen {
    /// Of a plan, on a backend that is still to be opened.
    pub fn new(plan: &Plan, schedule: &Schedule, need: Need, device: &Chosen) -> Screen {
        let flops = |kind: EntryKind| {
            let entry = schedule.plan.entries.get(&EntryKey::from(kind));
            let launches = entry.into_iter().flat_map(|entry| &entry.launches);
            launches.map(|launch| cost::of(&schedule.module, launch).flops as f64).sum::<f64>()
        };
        let done = plan.resume.as_ref().map_or(0, |resume| resume.manifest.step);
        let recipe = &plan.program.recipe;
        let step = flops(EntryKind::MicroStep) * recipe.micro_steps() as f64 + flops(EntryKind::Update);
        let validation = plan.val.as_ref().map_or(0.0, |(validation, _)| {
            let runs = validation.tokens / validation.sequence / validation.micro_sequences;
            let times = (done..=plan.steps).filter(|&updates| plan.validates_after(updates)).count();
            flops(EntryKind::Evaluate) * (runs * times) as f64
        });
        let flops = step * plan.steps.saturating_sub(done) as f64 + validation;
        // The soft GPU's memory is the machine's own.
        let beside = match device {
            Chosen::Gpu(Kind::Soft, _) => need.host.saturating_sub(need.gpu),
            _ => need.host,
        };
        Screen {
            need: Need { host: beside, ..need },
            free: device.free(),
            threads: 1,
            instead: device.instead().map(ToString::to_string),
            flops,
            peak: None,
            done,
        }
    }

    /// With what is known of the backend. Measures its peak, which takes a moment.
    pub fn on(self, backend: &dyn Backend) -> Screen {
        Screen { threads: backend.threads(), peak: backend.peak_flops(), ..self }
    }

    /// The lines.
    pub fn text(&self, start: &Start) -> String {
        let mut out = String::new();
        let mut row = |name: &str, text: String| out += &format!("  {name:<11} {text}\n");
        let file = start.source.first().map_or("", |source| &source.name);
        row("model", format!("{} from {file}", start.model));
        let (total, active) = (count(start.parameters), count(start.active_parameters));
        let embedding = count(start.embedding_parameters);
        row("parameters", format!("{total}: {active} active for each token, {embedding} in embedding tables"));
        let from = if self.done > 0 { format!("{} to ", self.done) } else { String::new() };
        let (tokens, sequence) = (start.batch, start.sequence);
        row("steps", format!("{from}{} of {tokens} tokens, in sequences of {sequence}", start.steps));
        let (needed, found) = (count(start.tokens_needed), count(start.tokens_found));
        row("data", format!("{needed} tokens needed, {found} there"));
        let free = self.free.map(|free| format!(", {} free", memory::shown(free))).unwrap_or_default();
        let Need { gpu, host } = self.need;
        match gpu {
            0 => row("memory", format!("{} needed{free}", memory::shown(host))),
            _ => row(
                "memory",
                format!("{} needed on the GPU{free}, {} beside it", memory::shown(gpu), memory::shown(host)),
            ),
        }
        let threads = if self.threads == 1 { "1 thread".into() } else { format!("{} threads", self.threads) };
        let peak = self.peak.map(|peak| format!(", {:.0} GFLOP/s", peak / 1e9)).unwrap_or_default();
        let backend = |name: &str| start.backend.get(name);
        match backend("device") {
            None => row("device", format!("{}, {threads}{peak}", start.device)),
            Some(name) => {
                let version = |of, name| backend(name).map(|found| format!(", {of} {found}")).unwrap_or_default();
                let like = if start.device == "soft" { "as " } else { "" };
                let (driver, nvrtc) = (version("driver", "driver"), version("NVRTC", "nvrtc"));
                row("device", format!("{}: {like}{name}{driver}{nvrtc}", start.device));
            }
        }
        if let Some(instead) = &self.instead {
            row("GPU", format!("not used: {instead}"));
        }
        if let (Some(kernels), Some(compiled)) = (backend("kernels"), backend("compiled")) {
            row("kernels", format!("{kernels}, {compiled} of them compiled now"));
        }
        if let Some(fault) = backend("cache_fault") {
            row("cache", fault.clone());
        }
        row("precision", start.precision.clone());
        if let Some(seconds) = self.peak.map(|peak| self.flops / (peak * REACHED)) {
            let time = if seconds < 1.0 { "under a second".into() } else { format!("about {}", wait(seconds)) };
            row("time", time);
        }
        row("folder", start.folder.display().to_string());
        out
    }
}
