//! The templates: CUDA files with places for constants and for generated statements.

use std::sync::OnceLock;

use serde::Serialize;
use tera::{Context, Tera};

use crate::spec::Refusal;

/// Every template by name. `prelude.cu` stands before each.
const TEMPLATES: &[(&str, &str)] = &[
    ("attention.cu", include_str!("../templates/attention.cu")),
    ("attention_backward_fma.cu", include_str!("../templates/attention_backward_fma.cu")),
    ("attention_backward_mma.cu", include_str!("../templates/attention_backward_mma.cu")),
    ("attention_fma.cu", include_str!("../templates/attention_fma.cu")),
    ("attention_forward_fma.cu", include_str!("../templates/attention_forward_fma.cu")),
    ("attention_forward_mma.cu", include_str!("../templates/attention_forward_mma.cu")),
    ("attention_mma.cu", include_str!("../templates/attention_mma.cu")),
    ("dot_fma.cu", include_str!("../templates/dot_fma.cu")),
    ("dot_head.cu", include_str!("../templates/dot_head.cu")),
    ("dot_mma.cu", include_str!("../templates/dot_mma.cu")),
    ("dot_tail.cu", include_str!("../templates/dot_tail.cu")),
    ("loss.cu", include_str!("../templates/loss.cu")),
    ("rows.cu", include_str!("../templates/rows.cu")),
];

/// What stands before templates that use tensor cores.
const MMA: &str = include_str!("../templates/mma.cu");

/// What stands before every template: types, functions of elements, folds over threads.
const PRELUDE: [&str; 3] = [
    include_str!("../templates/prelude.cu"),
    include_str!("../templates/math.cu"),
    include_str!("../templates/team.cu"),
];

fn engine() -> Result<&'static Tera, Refusal> {
    static ENGINE: OnceLock<Result<Tera, String>> = OnceLock::new();
    ENGINE
        .get_or_init(|| {
            let mut tera = Tera::default();
            tera.autoescape_on(Vec::<String>::new());
            tera.add_raw_templates(TEMPLATES.to_vec()).map_err(|e| format!("{e:?}"))?;
            Ok(tera)
        })
        .as_ref()
        .map_err(|fault| Refusal(fault.clone()))
}

/// The text that a template gives for a context.
pub fn part(name: &str, context: &impl Serialize) -> Result<String, Refusal> {
    let context = Context::from_serialize(context).map_err(|e| Refusal(format!("{name}: {e}")))?;
    engine()?.render(name, &context).map_err(|e| Refusal(format!("{name}: {e:?}")))
}

/// A whole kernel: the prelude, then the text that a template gives.
pub fn render(name: &str, context: &impl Serialize) -> Result<String, Refusal> {
    Ok(format!("{}\n{}", PRELUDE.join("\n"), part(name, context)?))
}

/// A whole kernel that uses tensor cores.
pub fn render_mma(name: &str, context: &impl Serialize) -> Result<String, Refusal> {
    Ok(format!("{}\n{MMA}\n{}", PRELUDE.join("\n"), part(name, context)?))
}
