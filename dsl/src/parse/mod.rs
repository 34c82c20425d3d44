//! Text to syntax tree: looks at the text's words, runs the grammar, and builds the tree from its pairs.

mod build;
mod explain;
mod expr;
pub(crate) mod scan;
mod words;

use pest::Parser;
use pest::iterators::Pair;

use crate::ast::File;
use crate::diagnostic::{Diagnostic, Sources};
use crate::span::FileId;

/// The pest parser that `mng.pest` describes. In a module of its own because the derived rule names have no docs.
#[allow(missing_docs)]
pub(crate) mod grammar {
    #[derive(pest_derive::Parser)]
    #[grammar = "mng.pest"]
    pub struct Grammar;
}

use grammar::{Grammar, Rule};

/// Parses one file. The error is never empty; its diagnostics stand in the order of their places.
pub fn parse(sources: &Sources, file: FileId) -> Result<File, Vec<Diagnostic>> {
    tree(sources, file, pairs(sources, file)?)
}

/// The syntax tree that the pairs of one file make; some mistakes are found only here.
pub(crate) fn tree(sources: &Sources, file: FileId, root: Pair<'_, Rule>) -> Result<File, Vec<Diagnostic>> {
    build::Builder::new(file, sources.text(file)).file(root)
}

/// The pairs of one file: everything that the grammar says of it, comments included.
pub(crate) fn pairs(sources: &Sources, file: FileId) -> Result<Pair<'_, Rule>, Vec<Diagnostic>> {
    let text = sources.text(file);
    let tokens = scan::tokens(text);
    let errors = scan::check(file, &tokens);
    if !errors.is_empty() {
        return Err(errors);
    }
    let root = Grammar::parse(Rule::file, text).map(|mut pairs| pairs.next());
    match root {
        Ok(Some(root)) => Ok(root),
        Ok(None) => unreachable!("a rule that matches makes a pair"),
        Err(error) => Err(vec![explain::explain(file, text, &tokens, &error)]),
    }
}
