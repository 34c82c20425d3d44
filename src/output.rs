//! What the program says: results on standard output, everything else on standard error, neither ever a panic.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::ColorChoice;
use mngc_dsl::{Diagnostic, Severity, Sources};
use serde_json::{Value, json};

/// Mistakes in a model file.
#[derive(Debug)]
pub struct Mistakes {
    /// The texts that they are in.
    pub sources: Sources,
    /// What is wrong, never empty.
    pub diagnostics: Vec<Diagnostic>,
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
        let file = self.diagnostics.first().and_then(|d| d.labels.first()).map(|(span, _)| span.file);
        let name = file.map_or(String::new(), |file| format!(" in {}", self.sources.name(file)));
        write!(f, "{errors} error{}{name}", if errors == 1 { "" } else { "s" })
    }
}

/// The command was called in a way that it cannot be: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::error::Error for Usage {}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether messages on standard error are coloured.
pub fn color(choice: ColorChoice) -> bool {
    let unwanted = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => io::stderr().is_terminal() && !unwanted("NO_COLOR") && !dumb,
    }
}

/// Writes a result to standard output.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes one JSON object to standard output.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    Ok(print(&(serde_json::to_string_pretty(value)? + "\n"))?)
}

/// Writes a message to standard error. Where that is closed nobody wants it.
pub fn note(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Draws mistakes on standard error.
pub fn note_mistakes(mistakes: &Mistakes, color: bool) {
    for diagnostic in &mistakes.diagnostics {
        note(&diagnostic.render(&mistakes.sources, color));
        note("\n");
    }
}

/// Says why a command failed and gives the exit code. With `json` the reason is an object on standard output as well.
pub fn fail(error: &anyhow::Error, color: bool, json: bool) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let mistakes = error.downcast_ref::<Mistakes>();
    if json {
        let diagnostics: Vec<Value> = mistakes.into_iter().flat_map(Mistakes::to_json).collect();
        let _ = print_json(&json!({ "error": format!("{error:#}"), "diagnostics": diagnostics }));
    }
    if let Some(mistakes) = mistakes {
        note_mistakes(mistakes, color);
    }
    let label = if color { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    note(&format!("{label} {error:#}\n"));
    ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
}

/// Whoever read our output has seen enough (`mngc compile | head`): no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

impl Mistakes {
    fn to_json(&self) -> Vec<Value> {
        let place = |diagnostic: &Diagnostic| {
            let (span, label) = diagnostic.labels.first()?;
            let (line, column) = self.sources.line_column(*span);
            Some(json!({ "file": self.sources.name(span.file), "line": line, "column": column, "label": label }))
        };
        let object = |d: &Diagnostic| {
            let severity = match d.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            json!({
                "severity": severity, "code": d.code, "message": d.message,
                "place": place(d), "help": d.help, "notes": d.notes,
            })
        };
        self.diagnostics.iter().map(object).collect()
    }
}
