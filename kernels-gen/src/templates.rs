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
    ("concat.cu", include_str!("../templates/concat.cu")),
    ("dot_fma.cu", include_str!("../templates/dot_fma.cu")),
    ("dot_head.cu", include_str!("../templates/dot_head.cu")),
    ("dot_mma.cu", include_str!("../templates/dot_mma.cu")),
    ("dot_tail.cu", include_str!("../templates/dot_tail.cu")),
    ("entropy.cu", include_str!("../templates/entropy.cu")),
    ("entropy_grad.cu", include_str!("../templates/entropy_grad.cu")),
    ("entropy_row.cu", include_str!("../templates/entropy_row.cu")),
    ("few.cu", include_str!("../templates/few.cu")),
    ("fill.cu", include_str!("../templates/fill.cu")),
    ("gather.cu", include_str!("../templates/gather.cu")),
    ("long.cu", include_str!("../templates/long.cu")),
    ("loss.cu", include_str!("../templates/loss.cu")),
    ("move.cu", include_str!("../templates/move.cu")),
    ("pointers.cu", include_str!("../templates/pointers.cu")),
    ("rank.cu", include_str!("../templates/rank.cu")),
    ("reduce.cu", include_str!("../templates/reduce.cu")),
    ("rows.cu", include_str!("../templates/rows.cu")),
    ("scan_blocks.cu", include_str!("../templates/scan_blocks.cu")),
    ("scan_lines.cu", include_str!("../templates/scan_lines.cu")),
    ("scatter_add.cu", include_str!("../templates/scatter_add.cu")),
    ("sort.cu", include_str!("../templates/sort.cu")),
    ("transpose.cu", include_str!("../templates/transpose.cu")),
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

/// What a text has beside what stands before every template of its kind.
pub fn own(text: &str) -> &str {
    let own = text.strip_prefix(&PRELUDE.join("\n")).unwrap_or(text).trim_start();
    own.strip_prefix(MMA).unwrap_or(own).trim_start()
}

/// A whole kernel that uses tensor cores.
pub fn render_mma(name: &str, context: &impl Serialize) -> Result<String, Refusal> {
    Ok(format!("{}\n{MMA}\n{}", PRELUDE.join("\n"), part(name, context)?))
}
