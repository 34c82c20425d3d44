//! Settings of a run, checked against each other.

use std::sync::Arc;

use indexmap::IndexMap;
use mngc_dsl::{Span, ast};

use super::value::Value;
use super::{Elab, Res, fail, fail_help};
use crate::ir::HostExpr;

/// Settings of a run, checked.
#[derive(Debug, Default)]
pub(crate) struct Recipes {
    pub model: String,
    pub steps: u64,
    pub batch: usize,
    pub sequence: usize,
    pub data: Option<String>,
    /// Data, tokens, every, sequence.
    pub validate: Option<(Option<String>, usize, u64, usize)>,
    pub logged: Vec<(String, Arc<HostExpr>)>,
}

/// A setting as evaluated, with its place.
pub(crate) type Settings = IndexMap<String, (Value, Span)>;

impl Elab {
    /// The recipe of a `train` block.
    pub fn recipe(&mut self, model: &ast::Model, settings: &Settings, size: &Value, span: Span) -> Res<Recipes> {
        let sequence = self.whole(size, "the length of a sequence", span)? as usize;
        let steps = self.count(settings, "steps", span)?;
        let batch = self.count(settings, "batch", span)? as usize;
        if !batch.is_multiple_of(sequence) {
            let at = settings["batch"].1;
            let near = (batch / sequence).max(1) * sequence;
            return fail_help(
                "divisibility",
                at,
                format!("a batch of {batch} tokens is no whole number of sequences of {sequence}"),
                format!("batch = {batch}, T = {sequence}"),
                format!(
                    "the batch is counted in tokens: {near} would be {} sequence{}",
                    near / sequence,
                    if near == sequence { "" } else { "s" }
                ),
            );
        }
        if batch / sequence > 1 << 20 {
            return fail(
                "absurd-size",
                settings["batch"].1,
                format!("a batch of {batch} tokens cannot be meant"),
                "too large",
            );
        }
        let data = self.text(settings, "data")?;
        let validate = match settings.get("validate.") {
            None => None,
            Some((_, at)) => {
                let tokens = self.count(settings, "validate.tokens", *at)? as usize;
                let every = self.count(settings, "validate.every", *at)?;
                let length = match settings.contains_key("validate.sequence") {
                    true => self.count(settings, "validate.sequence", *at)? as usize,
                    false => sequence,
                };
                if !tokens.is_multiple_of(length) {
                    let near = (tokens / length).max(1) * length;
                    return fail_help(
                        "divisibility",
                        settings["validate.tokens"].1,
                        format!("{tokens} validation tokens are no whole number of sequences of {length}"),
                        format!("tokens = {tokens}, sequence = {length}"),
                        format!("{near} would be"),
                    );
                }
                Some((self.text(settings, "validate.data")?, tokens, every, length))
            }
        };
        Ok(Recipes { model: model.name.text.clone(), steps, batch, sequence, data, validate, logged: Vec::new() })
    }

    fn count(&mut self, settings: &Settings, key: &str, span: Span) -> Res<u64> {
        let Some((value, at)) = settings.get(key) else {
            return fail_help(
                "missing-setting",
                span,
                format!("`{key}` is not set"),
                "missing here",
                format!("add `{} = …`", key.trim_start_matches("validate.")),
            );
        };
        let n = self.whole(&value.clone(), &format!("`{key}`"), *at)?;
        if n < 1 {
            return fail("bad-setting", *at, format!("`{key}` must be at least 1"), format!("this is {n}"));
        }
        if n > 1 << 50 {
            return fail("absurd-size", *at, format!("`{key}` = {n} cannot be meant"), "too large");
        }
        Ok(n as u64)
    }

    fn text(&mut self, settings: &Settings, key: &str) -> Res<Option<String>> {
        match settings.get(key) {
            None => Ok(None),
            Some((Value::Str(text), _)) => Ok(Some(text.to_string())),
            Some((other, at)) => fail_help(
                "bad-setting",
                *at,
                format!("`{key}` is a string, not {}", other.kind()),
                other.kind(),
                "write a glob of token shards: \"data/train_*.bin\"",
            ),
        }
    }
}
