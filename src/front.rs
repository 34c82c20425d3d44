//! Stands in for the compiler's front door until that is there: knows the same signature.

use mngc_compiler::Program;
use mngc_dsl::{Diagnostic, FileId, Sources, Span, parse};

#[derive(Default)]
pub struct CompileOptions {
    pub sets: Vec<(String, String)>,
    pub micro_sequences: Option<usize>,
}

pub fn compile(
    sources: &mut Sources,
    main: FileId,
    _load: &mut dyn FnMut(&str, FileId, &mut Sources) -> Result<FileId, String>,
    options: &CompileOptions,
) -> Result<Program, Vec<Diagnostic>> {
    parse(sources, main)?;
    let message = format!(
        "models cannot be compiled yet ({} settings, {:?} sequences)",
        options.sets.len(),
        options.micro_sequences
    );
    Err(vec![Diagnostic::error("not-yet", Span::new(main, 0, 0), message, "here")])
}
