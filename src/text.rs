//! Text that a trained model writes, as it comes.

use anyhow::Result;
use mngc_compiler::Program;
use mngc_runtime::Backend;
use mngc_trainer::sample::{Generator, Sampling};
use mngc_trainer::tokenizer::{Decoder, END_OF_TEXT, gpt2};

use crate::output;

/// Prints each part of a text as it comes, unless the text is told in another way.
pub fn printer(silent: bool) -> impl FnMut(&str) -> Result<()> {
    move |part| {
        if !silent {
            output::print(part)?;
        }
        Ok(())
    }
}

/// Writes up to `tokens` tokens after a prompt, which begins a document, with parameters after `step` updates, and gives
/// the text without the prompt. It ends where the model ends the document. `show` gets each part of the text.
pub fn write(
    backend: &mut dyn Backend,
    program: &Program,
    step: u64,
    prompt: &str,
    tokens: usize,
    sampling: &Sampling,
    show: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<String> {
    let mut start = vec![END_OF_TEXT];
    gpt2().encode(prompt, &mut start);
    // A model of fewer tokens, for tests, has no end of text.
    let known = program.recipe.vocab.is_none_or(|rows| usize::from(END_OF_TEXT) < rows);
    let start = start.into_iter().map(i32::from).filter(|&token| known || token != i32::from(END_OF_TEXT));
    let mut start: Vec<i32> = start.collect();
    if start.is_empty() {
        start.push(0);
    }
    let mut generator = Generator::new(backend, program, step, start)?;
    let mut decoder = Decoder::new(gpt2());
    let mut text = String::new();
    let mut add = |part: String| {
        text.push_str(&part);
        show(&part)
    };
    for _ in 0..tokens {
        let token = generator.draw(sampling)?;
        if token == i32::from(END_OF_TEXT) {
            break;
        }
        // Tokens of GPT-2's vocabulary have 16 bits; none beyond it is drawn.
        add(decoder.push(token as u16))?;
    }
    add(decoder.finish())?;
    Ok(text)
}
