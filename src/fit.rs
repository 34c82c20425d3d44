//! The nearest settings with which a run fits into the memory that is there.

use mngc_compiler::CompileOptions;
use mngc_compiler::Program;
use mngc_trainer::Error;

use crate::device::{Chosen, Need};

/// Compiles a model with other options.
pub type Again<'a> = &'a dyn Fn(&CompileOptions) -> Option<Program>;

/// What a run of a program needs, on top of what its schedule does.
pub type More<'a> = &'a dyn Fn(&Program, Need) -> Need;

/// In place of the error that a run needs more memory than there is: the same with what would fit.
pub fn advise(
    error: Error,
    device: &Chosen,
    program: &Program,
    options: &CompileOptions,
    again: Again,
    more: More,
) -> anyhow::Error {
    let Error::Memory { .. } = error else { return error.into() };
    let fits = |options: &CompileOptions| {
        let program = again(options)?;
        let schedule = device.schedule(&program).ok()?;
        let need = device.need(&program, &schedule).ok()?;
        device.check(more(&program, need)).ok()
    };
    let recipe = &program.recipe;
    let halves = |n: usize| std::iter::successors(Some(n / 2), |n| Some(n / 2)).take_while(|&n| n >= 1);
    let micro = halves(recipe.micro_sequences).filter(|&n| recipe.sequences().is_multiple_of(n)).find(|&n| {
        let micro_sequences = Some(n);
        fits(&CompileOptions { micro_sequences, ..options.clone() }).is_some()
    });
    if let Some(n) = micro {
        return anyhow::anyhow!("{error}: --micro {n} fits, for the same training");
    }
    let set = |name: &str, value: usize| {
        let mut options = CompileOptions { micro_sequences: Some(1), ..options.clone() };
        options.sets.retain(|(given, _)| given != name);
        options.sets.push((name.to_string(), value.to_string()));
        options
    };
    let sequence = halves(recipe.sequence).find(|&n| fits(&set("sequence", n)).is_some());
    let advice = match sequence {
        Some(n) => format!("--micro 1 --set sequence={n} fits: shorter sequences, another training"),
        None => "a smaller model or sequence needs less".to_string(),
    };
    anyhow::anyhow!("{error}: {advice}")
}
