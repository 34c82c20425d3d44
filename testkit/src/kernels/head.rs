//! Heads with cross-entropy and the gradient of both.

use mngc_compiler::ir::{Func, Module, read};
use mngc_runtime::Tensor;

use super::{Sums, numbers};

/// A head with its loss.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Tokens.
    pub rows: usize,
    /// Classes.
    pub n: usize,
    /// Features.
    pub k: usize,
    /// Of activations and weights.
    pub dtype: &'static str,
    /// Whether logits are capped.
    pub softcap: bool,
    /// Whether gradients are results too.
    pub gradient: bool,
    /// Whether w is [k, n] and not [n, k].
    pub turned: bool,
    /// Whether dw is added to an operand.
    pub accumulate: bool,
}

impl Head {
    /// A function that is one loss.
    pub fn module(&self) -> (Module, Func) {
        let Head { rows, n, k, dtype, softcap, gradient, turned, accumulate } = *self;
        let (x, z, row) = (format!("{dtype}[{rows}, {k}]"), format!("{dtype}[{rows}, {n}]"), format!("f32[{rows}]"));
        let w = if turned { format!("{dtype}[{k}, {n}]") } else { format!("{dtype}[{n}, {k}]") };
        let axis = usize::from(!turned);
        // dw is [n, k], as the product of dzᵀ and x has it.
        let dw = format!("f32[{n}, {k}]");
        let params = format!("v0: {x}, v1: {w}, v2: i32[{rows}], v3: {row}, v4: {dw}");
        let mut body = format!(
            "v5: {z} = dot v0, v1 {{batch = [], contract = [1:{axis}]}}\n  v6: f32[] = const {{value = 3.0}}\n  "
        );
        let logits = if softcap {
            body += &format!("v7: {z} = div v5, v6\n  v8: {z} = tanh v7\n  v9: {z} = mul v6, v8\n  ");
            "v9"
        } else {
            body += "v7: f32[] = const {value = 1.0}\n  v8: f32[] = const {value = 2.0}\n  v9: f32[] = const {value = 2.0}\n  ";
            "v5"
        };
        body += &format!("v10: {row} = cross_entropy {logits}, v2\n  ");
        let mut results = vec![row.clone()];
        if gradient {
            body += &format!("v11: {z} = cross_entropy_grad {logits}, v2, v3\n  ");
            let dz = if softcap {
                body += &format!(
                    "v12: {z} = square v8\n  v13: f32[] = const {{value = 1.0}}\n  v14: {z} = sub v13, v12\n  v15: {z} = mul v11, v14\n  "
                );
                "v15"
            } else {
                body += "v12: f32[] = const {value = 1.0}\n  v13: f32[] = const {value = 1.0}\n  v14: f32[] = const {value = 1.0}\n  v15: f32[] = const {value = 1.0}\n  ";
                "v11"
            };
            body += &format!(
                "v16: {x} = dot {dz}, v1 {{batch = [], contract = [1:{}]}}\n  v17: {dw} = dot {dz}, v0 {{batch = [], contract = [0:0]}}\n  ",
                1 - axis
            );
            results.extend([x.clone(), dw.clone()]);
            body += &if accumulate {
                format!("v18: {dw} = add v4, v17\n  return v10, v16, v18")
            } else {
                "return v10, v16, v17".into()
            };
        } else {
            body += "return v10";
        }
        let made: Vec<String> = results.iter().enumerate().map(|(i, ty)| format!("v{}: {ty}", 5 + i)).collect();
        let names: Vec<String> = (0..results.len()).map(|i| format!("v{}", 5 + i)).collect();
        let text = format!(
            "module \"m\"\nfunc f0 \"f\" ({params}) {{\n  {body}\n}}\nfunc f1 \"g\" ({params}) {{\n  {} = call v0, v1, v2, v3, v4 \
             {{func = f0, kind = loss}}\n  return {}\n}}\n",
            made.join(", "),
            names.join(", ")
        );
        (read::module(&text).unwrap_or_else(|e| panic!("{e}\n{text}")), Func::from_u32(1))
    }

    /// Its operands.
    pub fn args(&self) -> Vec<Tensor> {
        let (m, f) = self.module();
        let g = &m.funcs[f];
        let mut args: Vec<Tensor> = (0..5).map(|i| numbers(&m, g.ty(g.params[i]), i as u64 + 1)).collect();
        // Every fifth target is out of range, on either side.
        let target = |i: usize| match i % 10 {
            4 => -1,
            9 => self.n as i32,
            _ => (i * 7 % self.n) as i32,
        };
        args[2] = Tensor::ints([self.rows], (0..self.rows).map(target).collect()).expect("as many as rows");
        args
    }

    /// The sums behind its results. `rounds_heads`: the product is kept in the dtype of its operands.
    pub fn sums(&self, rounds_heads: bool) -> Sums {
        // Scores of k terms stand in an exponent; gradients sum rows or classes.
        let mut sums = Sums { terms: self.rows + self.n + self.k + 16, magnitude: Some(4.0 + self.k as f64) };
        if rounds_heads && self.dtype == "bf16" {
            // The product of k terms, rounded as its graph says, is as much further off as bf16 is coarser than f32.
            sums.terms += 1 << 16;
        }
        sums
    }
}
