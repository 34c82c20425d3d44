//! Row programs: fused clusters of elementwise ops and folds.

use mngc_compiler::ir::{Func, Module, read};

/// A function that is one fused cluster: parameters from v0 on, a body, what it returns, and the types of that.
pub fn cluster(params: &[&str], body: &str, returned: &str, results: &[&str]) -> (Module, Func) {
    let n = params.len();
    let listed: Vec<String> = params.iter().enumerate().map(|(i, ty)| format!("v{i}: {ty}")).collect();
    let names: Vec<String> = (0..n).map(|i| format!("v{i}")).collect();
    let made: Vec<String> = results.iter().enumerate().map(|(i, ty)| format!("v{}: {ty}", n + i)).collect();
    let last: Vec<String> = (0..results.len()).map(|i| format!("v{}", n + i)).collect();
    let text = format!(
        "module \"m\"\nfunc f0 \"f\" ({}) {{\n  {body}\n  return {returned}\n}}\nfunc f1 \"g\" ({}) {{\n  {} = call {} {{func = f0, \
         kind = rows}}\n  return {}\n}}\n",
        listed.join(", "),
        listed.join(", "),
        made.join(", "),
        names.join(", "),
        last.join(", ")
    );
    (read::module(&text).unwrap_or_else(|e| panic!("{e}\n{text}")), Func::from_u32(1))
}
