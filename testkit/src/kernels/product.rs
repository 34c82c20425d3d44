//! Matrix products with what follows them.

use mngc_compiler::ir::{Func, Module, read};
use mngc_runtime::Tensor;

use super::{Sums, numbers};
use crate::close::largest;

/// A product with what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Products, each of matrices of its own.
    pub batch: usize,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Terms of a sum.
    pub k: usize,
    /// Whether each operand has its contracted axis first.
    pub turned: [bool; 2],
    /// Of operands and, without an epilogue that says otherwise, results.
    pub dtype: &'static str,
    /// Which of [`EPILOGUES`].
    pub epilogue: usize,
}

/// What may follow a product z: with operands c of its sizes, r one for each column, h one for each row, and numbers.
pub const EPILOGUES: [&str; 6] = [
    "",
    "v5: f32[Z] = add v2, v4\n  return v5",
    "v5: D[Z] = relu v4\n  v6: D[Z] = square v5\n  return v6",
    "v5: f32[] = const {value = 0.5}\n  v6: D[Z] = mul v5, v4\n  v7: D[Z] = add v6, v2\n  v8: D[Z] = sub v7, v4\n  \
     return v8, v7",
    "v5: D[Z] = broadcast v3 {axes = [LAST]}\n  v6: D[Z] = add v4, v5\n  v7: bool[Z] = gt v6, v5\n  return v6, v7",
    "v5: i32[Z] = iota {axis = LAST}\n  v6: f32[Z] = cast v5\n  v7: f32[Z] = add v6, v4\n  return v7",
];

impl Product {
    /// A function that is one fused product.
    pub fn module(&self) -> (Module, Func) {
        let Product { batch, m, n, k, turned, dtype, epilogue } = *self;
        let side = |free: usize, turned: bool| match (batch, turned) {
            (1, true) => format!("{k}, {free}"),
            (1, false) => format!("{free}, {k}"),
            (_, true) => format!("{batch}, {k}, {free}"),
            (_, false) => format!("{batch}, {free}, {k}"),
        };
        let first = usize::from(batch > 1);
        let axis = |turned: bool| first + usize::from(!turned);
        let z = if batch > 1 { format!("{batch}, {m}, {n}") } else { format!("{m}, {n}") };
        let pairs = if batch > 1 { "0:0" } else { "" };
        // What is added to is f32, whatever the operands are.
        let c = if epilogue == 1 { "f32" } else { dtype };
        let body = if epilogue == 0 { "return v4" } else { EPILOGUES[epilogue] };
        let body = body.replace('Z', &z).replace('D', dtype).replace("LAST", &(first + 1).to_string());
        let result = |ty: &str| format!("{ty}[{z}]");
        let results = match epilogue {
            1 | 5 => vec![result("f32")],
            3 => vec![result(dtype), result(dtype)],
            4 => vec![result(dtype), result("bool")],
            _ => vec![result(dtype)],
        };
        let params = format!(
            "v0: {dtype}[{}], v1: {dtype}[{}], v2: {c}[{z}], v3: {dtype}[{n}]",
            side(m, turned[0]),
            side(n, turned[1])
        );
        let made: Vec<String> = results.iter().enumerate().map(|(i, ty)| format!("v{}: {ty}", 4 + i)).collect();
        let names: Vec<String> = (0..results.len()).map(|i| format!("v{}", 4 + i)).collect();
        let z_dtype = if epilogue == 1 { "f32" } else { dtype };
        let text = format!(
            "module \"m\"\nfunc f0 \"f\" ({params}) {{\n  v4: {z_dtype}[{z}] = dot v0, v1 {{batch = [{pairs}], contract = \
             [{}:{}]}}\n  {body}\n}}\nfunc f1 \"g\" ({params}) {{\n  {} = call v0, v1, v2, v3 {{func = f0, kind = \
             dot}}\n  return {}\n}}\n",
            axis(turned[0]),
            axis(turned[1]),
            made.join(", "),
            names.join(", ")
        );
        let module = read::module(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        (module, Func::from_u32(1))
    }

    /// Its operands.
    pub fn args(&self) -> Vec<Tensor> {
        let (m, f) = self.module();
        let g = &m.funcs[f];
        g.params.iter().zip(1..).map(|(&p, seed)| numbers(&m, g.ty(p), seed + self.k as u64)).collect()
    }

    /// The sums behind its results.
    pub fn sums(&self, args: &[Tensor]) -> Sums {
        // The epilogue's own values are below 1, but for positions, and squares double what they get.
        let size = largest(&args[0]) * largest(&args[1]) * self.k as f64;
        Sums { terms: self.k + 8, magnitude: Some((size + 1.0) * if self.epilogue == 2 { 2.0 * size } else { 1.0 }) }
    }
}

/// x·xᵀ of x [m, k], as a product of which half is enough; scaled and with a matrix added, or as it is.
pub fn symmetric(m: usize, k: usize, with_epilogue: bool, dtype: &str) -> (Module, Func) {
    let x = format!("{dtype}[{m}, {k}]");
    let z = format!("{dtype}[{m}, {m}]");
    let tail = match with_epilogue {
        true => {
            format!("v3: f32[] = const {{value = -0.5}}\n  v4: {z} = mul v3, v2\n  v5: {z} = add v4, v1\n  return v5")
        }
        false => "return v2".to_string(),
    };
    let text = format!(
        "module \"m\"\nfunc f0 \"f\" (v0: {x}, v1: {z}) {{\n  v2: {z} = dot v0, v0 {{batch = [], contract = [1:1]}}\n  \
         {tail}\n}}\nfunc f1 \"g\" (v0: {x}, v1: {z}) {{\n  v2: {z} = call v0, v1 {{func = f0, kind = symmetric_dot}}\n  \
         return v2\n}}\n"
    );
    (read::module(&text).unwrap_or_else(|e| panic!("{e}\n{text}")), Func::from_u32(1))
}
