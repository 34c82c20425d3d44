//! Draws tokens from a model's logits.

use std::collections::BTreeMap;

use mngc_compiler::Program;
use mngc_compiler::ir::{EntryKind, Input};
use mngc_runtime::{Backend, Tensor};

use crate::error::{Error, Result};
use crate::tokenizer::VOCABULARY;

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Only the most likely `top_k` tokens; none takes all.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that together have this probability (Holtzman et al. 2020); 1 takes all.
    pub top_p: f64,
    /// Of the random numbers: the same seed draws the same text.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { temperature: 1.0, top_k: None, top_p: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// The token that a number `u` of [0, 1) draws. Of equally likely tokens the lower one counts as the likelier, and
    /// a logit that is not a number as no choice at all.
    pub fn choose(&self, logits: &[f64], u: f64) -> Option<usize> {
        let mut order: Vec<usize> = (0..logits.len()).filter(|&i| !logits[i].is_nan()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let &best = order.first()?;
        if self.temperature == 0.0 {
            return Some(best);
        }
        order.truncate(self.top_k.unwrap_or(usize::MAX).max(1));
        let weights: Vec<f64> = order.iter().map(|&i| ((logits[i] - logits[best]) / self.temperature).exp()).collect();
        let all: f64 = weights.iter().sum();
        let mut kept = 0.0;
        let count = weights.iter().take_while(|&&w| {
            let more = kept < self.top_p * all;
            kept += if more { w } else { 0.0 };
            more
        });
        let count = count.count().max(1);
        let sum: f64 = weights[..count].iter().sum();
        let mut left = u * sum;
        let drawn = weights[..count].iter().position(|w| {
            left -= w;
            left < 0.0
        });
        Some(order[drawn.unwrap_or(count - 1)])
    }

    /// The number of [0, 1) that position `index` is drawn with (SplitMix64 of seed and position, 53 bits).
    pub fn uniform(&self, index: u64) -> f64 {
        let mut z = self.seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A model that goes on with a text.
pub struct Generator<'a> {
    backend: &'a mut dyn Backend,
    /// Tokens that the model sees at once.
    context: usize,
    /// Tokens that may be drawn: those below.
    vocabulary: usize,
    /// Updates that the parameters have had, for models that depend on it.
    step: u64,
    tokens: Vec<i32>,
}

impl<'a> Generator<'a> {
    /// Begins with some tokens, at least one, on a backend that has the program's parameters after `step` updates. Tokens that stand for no
    /// text, which models have rows for, are never drawn.
    ///
    /// Fails where the model returns no logits, and on tokens that it has no row for.
    pub fn new(backend: &'a mut dyn Backend, program: &Program, step: u64, tokens: Vec<i32>) -> Result<Generator<'a>> {
        let module = &program.module;
        let entry = module.entries.get(&EntryKind::Decode.into()).ok_or(Error::NoLogits)?;
        let input = entry.inputs.iter().position(|input| *input == Input::Batch("tokens".into()));
        let g = &module.funcs[entry.func];
        let context = input.map_or(0, |input| module.dims.elements(&g.ty(g.params[input]).dims));
        let rows = program.recipe.vocab.unwrap_or(VOCABULARY);
        if tokens.is_empty() || context == 0 {
            return Err(Error::Option("sampling needs a token to begin with".into()));
        }
        if let Some(token) = tokens.iter().find(|&&token| token < 0 || token as usize >= rows) {
            return Err(Error::Option(format!(
                "the prompt has token {token}, but the model's vocabulary ends at {}",
                rows.saturating_sub(1)
            )));
        }
        Ok(Generator { backend, context, vocabulary: rows.min(VOCABULARY), step, tokens })
    }

    /// The text so far.
    pub fn tokens(&self) -> &[i32] {
        &self.tokens
    }

    /// The logits of the next token: of a full forward pass over the last `context` tokens.
    pub fn logits(&mut self) -> Result<Vec<f64>> {
        let seen = &self.tokens[self.tokens.len().saturating_sub(self.context)..];
        let last = seen.len() - 1;
        let mut input = seen.to_vec();
        // Where no text is yet any token will do: nothing before depends on it.
        input.resize(self.context, seen[0]);
        let input = Tensor::ints([self.context], input)?;
        let inputs = BTreeMap::from([("tokens".to_string(), input)]);
        let entry = EntryKind::Decode;
        let outputs =
            self.backend.run(entry.into(), &inputs, self.step).map_err(|source| Error::Backend { entry, source })?;
        let logits = outputs.get("logits").filter(|logits| logits.rank() == 2 && logits.sizes()[0] == self.context);
        let logits = logits.and_then(Tensor::as_floats).ok_or(Error::NoOutput { entry, name: "logits" })?;
        let classes = logits.len() / self.context;
        let row = &logits[last * classes..(last + 1) * classes];
        Ok(row[..classes.min(self.vocabulary)].to_vec())
    }

    /// Draws the next token and adds it.
    pub fn draw(&mut self, sampling: &Sampling) -> Result<i32> {
        let logits = self.logits()?;
        let index = self.tokens.len() as u64;
        let token = sampling.choose(&logits, sampling.uniform(index));
        let token = token.ok_or_else(|| Error::NotFinite {
            what: "every logit".into(),
            step: index,
            value: f64::NAN,
            checkpoint: None,
        })? as i32;
        self.tokens.push(token);
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::Sampling;

    const LOGITS: [f64; 4] = [0.0, 2.0, 1.0, 2.0];

    #[test]
    fn temperature_zero_takes_the_first_of_the_most_likely() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(greedy.choose(&LOGITS, 0.999), Some(1));
        assert_eq!(greedy.choose(&[f64::NAN, 1.0], 0.0), Some(1));
        assert_eq!(greedy.choose(&[f64::NAN], 0.0), None);
        assert_eq!(greedy.choose(&[], 0.0), None);
    }

    #[test]
    fn numbers_draw_in_proportion() {
        let all = Sampling::default();
        let n = 100_000;
        let mut counts = [0.0f64; 4];
        for i in 0..n {
            counts[all.choose(&LOGITS, i as f64 / n as f64).expect("a token")] += 1.0;
        }
        let sum: f64 = LOGITS.iter().map(|x| x.exp()).sum();
        for (count, logit) in counts.iter().zip(LOGITS) {
            assert!((count / n as f64 - logit.exp() / sum).abs() < 2.0 / n as f64);
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let k = Sampling { top_k: Some(2), ..Sampling::default() };
        assert_eq!([0.0, 0.49, 0.51, 0.999].map(|u| k.choose(&LOGITS, u)), [Some(1), Some(1), Some(3), Some(3)]);
        assert_eq!(Sampling { top_k: Some(0), ..k }.choose(&LOGITS, 0.9), Some(1));
        // 1 and 3 have 0.39 each, 2 has 0.14.
        let p = Sampling { top_p: 0.5, ..Sampling::default() };
        assert_eq!(p.choose(&LOGITS, 0.999), Some(3));
        assert_eq!(Sampling { top_p: 0.3, ..p }.choose(&LOGITS, 0.999), Some(1));
        assert_eq!(Sampling { top_p: 0.0, ..p }.choose(&LOGITS, 0.999), Some(1));
        assert_eq!(Sampling { top_p: 0.85, ..p }.choose(&LOGITS, 0.999), Some(2));
    }

    #[test]
    fn uniform_numbers_fill_the_interval() {
        let s = Sampling { seed: 7, ..Sampling::default() };
        let mean = (0..10_000).map(|i| s.uniform(i)).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.02);
        assert!((0..10_000).all(|i| (0.0..1.0).contains(&s.uniform(i))));
        assert_ne!(s.uniform(0), Sampling { seed: 8, ..s }.uniform(0));
    }
}
