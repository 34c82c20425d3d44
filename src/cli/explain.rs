//! `mngc explain`: what each kernel of a step computes, what it costs, and why it is a kernel of its own.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use mngc_compiler::ir::EntryKind;
use mngc_kernels_gen::Device;
use mngc_kernels_gen::image::Target;

use super::ModelArgs;
use crate::explain::Explanation;
use crate::load::Schedule;
use crate::output;

/// Options of the command.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Explain {
    #[command(flatten)]
    model: ModelArgs,

    /// Only launches with this text in their ops, kernels, results or source lines
    #[arg(value_name = "TEXT")]
    filter: Option<String>,

    /// The architecture whose kernels and whose card's figures are told
    #[arg(long, value_name = "ARCH", default_value = "sm_90a")]
    arch: Target,

    /// Only this entry [default: micro_step and update]
    #[arg(long, value_name = "ENTRY", value_parser = entries())]
    entry: Option<String>,

    /// Print all as one JSON object
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "\
Examples:
  mngc explain demo                           every launch of a step
  mngc explain gpt2 attention                 those with attention
  mngc explain gpt2 gpt2.mng:120              those with an op of that line
  mngc explain gpt2 --entry update --arch sm_80

Nothing is compiled, so neither GPU nor NVRTC is needed. Launches that are alike are told once. Bytes are those of operands
and results, each moved once; the time is the longer of what the card needs for bytes and for operations. A result that one
other launch reads could be fused with it: the reason why it is not stands below.";

fn entries() -> PossibleValuesParser {
    // What draws the first values runs on the host.
    PossibleValuesParser::new(EntryKind::ALL.into_iter().filter(|kind| *kind != EntryKind::Init).map(EntryKind::name))
}

impl Explain {
    /// Does it.
    pub fn run(&self) -> Result<ExitCode> {
        let device = Device::of(self.arch.capability);
        let device = device.with_context(|| format!("{} is no architecture that kernels are made for", self.arch))?;
        let model = self.model.compile()?;
        let schedule = Schedule::grouped(&model.program)?;
        let named = |kind: &EntryKind| match &self.entry {
            Some(entry) => kind.name() == entry,
            None => matches!(kind, EntryKind::MicroStep | EntryKind::Update),
        };
        let kinds: Vec<EntryKind> = EntryKind::ALL.into_iter().filter(named).collect();
        let explanation = Explanation::new(&model, &schedule, &device, &kinds, self.filter.as_deref())?;
        if let (true, Some(filter)) = (explanation.is_empty(), &self.filter) {
            bail!("no launch has `{filter}` in its ops, kernels, results or source lines");
        }
        if self.json {
            output::print_json(&explanation)?;
        } else {
            output::print(&explanation.text())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
