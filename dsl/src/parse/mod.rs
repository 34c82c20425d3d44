//! Text to syntax tree: checks the text's words and brackets, runs the grammar, and builds the tree from its pairs.

mod build;
mod expr;

use pest::Parser;

use crate::ast::File;
use crate::diagnostic::{Diagnostic, Sources};
use crate::span::{FileId, Span};

/// The pest parser that `mng.pest` describes. In a module of its own because the derived rule names have no docs.
#[allow(missing_docs)]
mod grammar {
    #[derive(pest_derive::Parser)]
    #[grammar = "mng.pest"]
    pub struct Grammar;
}

use grammar::{Grammar, Rule};

/// Parses one file. The error is never empty; its diagnostics stand in the order of their places.
pub fn parse(sources: &Sources, file: FileId) -> Result<File, Vec<Diagnostic>> {
    let text = sources.text(file);
    let root = match Grammar::parse(Rule::file, text) {
        Ok(mut pairs) => pairs.next(),
        Err(error) => {
            let at = match error.location {
                pest::error::InputLocation::Pos(at) => at,
                pest::error::InputLocation::Span((at, _)) => at,
            };
            return Err(vec![Diagnostic::error("syntax", Span::new(file, at, at), error.variant.message(), "")]);
        }
    };
    build::Builder::new(file, text).file(root)
}
