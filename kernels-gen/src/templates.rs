//! The templates: CUDA files with places for constants and for generated statements.

use std::sync::OnceLock;

use serde::Serialize;
use tera::{Context, Tera};

use crate::spec::Refusal;

/// Every template by name. `prelude.cu` stands before each.
const TEMPLATES: &[(&str, &str)] = &[("rows.cu", include_str!("../templates/rows.cu"))];

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

/// The text that a template gives for a context, the prelude before it.
pub fn render(name: &str, context: &impl Serialize) -> Result<String, Refusal> {
    let context = Context::from_serialize(context).map_err(|e| Refusal(format!("{name}: {e}")))?;
    let body = engine()?.render(name, &context).map_err(|e| Refusal(format!("{name}: {e:?}")))?;
    Ok(format!("{}\n{body}", PRELUDE.join("\n")))
}
