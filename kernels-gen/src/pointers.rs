//! The pointers of a kernel: a struct by value, or one in device memory for each instance.

use mngc_compiler::ir::DType;
use mngc_compiler::schedule::rows::{Instr, RowProgram};

use crate::call::{Address, Param};
use crate::program::{self, Sizes};
use crate::spec::{Operand, Spec};

/// The fields of a kernel's `Pointers`, and what each holds in each instance.
#[derive(Clone, Debug)]
pub struct Pointers {
    fields: Vec<String>,
    of: Vec<Vec<Address>>,
}

impl Pointers {
    /// Those of operands (`a0`, …; numbers have none) and results (`r0`, …).
    pub fn new(spec: &Spec) -> Pointers {
        let mut pointers = Pointers::none(spec);
        for (i, arg) in spec.args.iter().enumerate() {
            if arg.constant.is_none() {
                pointers.arg(&format!("const {}* a{i}", program::element(arg.dtype)), spec, i);
            }
        }
        for (i, result) in spec.results.iter().enumerate() {
            pointers.result(&format!("{}* r{i}", program::element(result.dtype)), spec, i);
        }
        pointers
    }

    /// No fields yet.
    pub fn none(spec: &Spec) -> Pointers {
        Pointers { fields: Vec::new(), of: vec![Vec::new(); spec.instances] }
    }

    /// An operand.
    pub fn arg(&mut self, field: &str, spec: &Spec, i: usize) {
        self.push(field, |instance| Address::Arg(instance * spec.args.len() + i));
    }

    /// A result.
    pub fn result(&mut self, field: &str, spec: &Spec, i: usize) {
        self.push(field, |instance| Address::Result(instance * spec.results.len() + i));
    }

    fn push(&mut self, field: &str, address: impl Fn(usize) -> Address) {
        self.fields.push(field.to_string());
        self.of.iter_mut().enumerate().for_each(|(instance, of)| of.push(address(instance)));
    }

    /// A part of the workspace: from `start` on, `bytes` for each instance.
    pub fn work(&mut self, field: &str, start: usize, bytes: usize) {
        self.push(field, |instance| Address::Work(start + instance * bytes));
    }

    /// Counters: from `start` on, `bytes` for each instance.
    pub fn counters(&mut self, field: &str, start: usize, bytes: usize) {
        self.push(field, |instance| Address::Counter(start + bytes * instance));
    }

    /// How many instances there are.
    pub fn instances(&self) -> usize {
        self.of.len()
    }

    /// The fields.
    pub fn fields(&self) -> Vec<String> {
        self.fields.clone()
    }

    /// The parameter of a kernel that takes one instance.
    pub fn parameter(&self) -> String {
        "const Pointers p".into()
    }

    /// What is handed over for it.
    pub fn param(&self) -> Param {
        Param::Pointers(self.of.first().cloned().unwrap_or_default())
    }

    /// The parameters of a kernel that takes one instance or several, which is the same text: pointers by value, or a table
    /// of them where there is one.
    pub fn parameters(&self) -> String {
        "const Pointers one, const Pointers* __restrict__ table".into()
    }

    /// What is handed over for them.
    pub fn params(self) -> Vec<Param> {
        let one = self.param();
        let table = if self.of.len() > 1 { Param::Table(self.of) } else { Param::U64(0) };
        vec![one, table]
    }
}

/// A parameter with its type and name.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// Its type in the text.
    pub ty: &'static str,
    /// Its name there.
    pub name: String,
    /// What is handed over.
    pub param: Param,
}

/// What programs ask of a kernel beside pointers: operands that are numbers (`c0` and so on, by operand), then sizes
/// (`d0` and so on).
pub fn numbers(programs: &[&RowProgram], spec: &Spec, sizes: &Sizes) -> Vec<Named> {
    let loads = |operand: usize| {
        let is_load = |i: &Instr| matches!(i, Instr::Load { operand: o, .. } if *o == operand);
        programs.iter().any(|program| program.instrs.iter().any(is_load))
    };
    let numbers = spec.args.iter().enumerate().filter(|(i, arg)| arg.constant.is_some() && loads(*i));
    let numbers = numbers.map(|(i, arg)| number(format!("c{i}"), arg));
    let size = |(i, &size): (usize, &u32)| Named { ty: "u32", name: format!("d{i}"), param: Param::U32(size) };
    numbers.chain(sizes.values.iter().enumerate().map(size)).collect()
}

/// A number as a parameter of a name.
pub fn number(name: String, arg: &Operand) -> Named {
    let value = rounded(arg.dtype, arg.constant.unwrap_or(0.0));
    if arg.dtype.is_float() {
        Named { ty: "float", name, param: Param::F32(value as f32) }
    } else {
        Named { ty: "int", name, param: Param::I32(value as i32) }
    }
}

/// A number as its dtype holds it.
pub fn rounded(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F32 => f64::from(value as f32),
        DType::BF16 => half::bf16::from_f64(value).to_f64(),
        DType::F16 => half::f16::from_f64(value).to_f64(),
        DType::I32 | DType::Bool => value,
    }
}
