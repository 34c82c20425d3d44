//! What a kernel is asked to do: a launch of a plan, without its places.

use mngc_compiler::ir::{DType, Module};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_compiler::schedule::plan::{ALIGNMENT, Launch, Operand as Planned, View};

/// A tensor, row-major, or a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// Its dtype.
    pub dtype: DType,
    /// Its sizes.
    pub sizes: Vec<usize>,
    /// A power of two that divides its address, in bytes.
    pub alignment: usize,
    /// The number that it is; then it has no address.
    pub constant: Option<f64>,
}

impl Operand {
    /// A tensor at the start of a buffer.
    pub fn new(dtype: DType, sizes: &[usize]) -> Operand {
        Operand { dtype, sizes: sizes.to_vec(), alignment: ALIGNMENT, constant: None }
    }

    /// A number.
    pub fn number(dtype: DType, value: f64) -> Operand {
        Operand { constant: Some(value), ..Operand::new(dtype, &[]) }
    }

    fn of(m: &Module, view: &View) -> Operand {
        let alignment = if view.offset == 0 { ALIGNMENT } else { ALIGNMENT.min(1 << view.offset.trailing_zeros()) };
        Operand { dtype: view.ty.dtype, sizes: m.dims.sizes(&view.ty.dims), alignment, constant: None }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.bytes()
    }
}

/// What a launch asks for. With several instances, `args` and `results` are those of one; the others' are equal in all
/// but their addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// What runs.
    pub kernel: Kernel,
    /// Operands.
    pub args: Vec<Operand>,
    /// Results. One may lie in the place of an operand where [`mngc_compiler::schedule::alias`] allows it.
    pub results: Vec<Operand>,
    /// How often, on other tensors each time. Operand i of instance j is operand j · args.len() + i of the launch, and
    /// so are results.
    pub instances: usize,
}

impl Spec {
    /// What a launch of a plan asks for.
    pub fn of(m: &Module, launch: &Launch) -> Spec {
        let (args, results) = launch.each().next().unwrap_or_default();
        let operand = |arg: &Planned| match arg {
            Planned::View(view) => Operand::of(m, view),
            Planned::Const(value, dtype) => Operand::number(*dtype, *value),
        };
        Spec {
            kernel: launch.kernel.clone(),
            args: args.iter().map(operand).collect(),
            results: results.iter().map(|view| Operand::of(m, view)).collect(),
            instances: launch.instances,
        }
    }
}

/// Why there is no kernel: names the op, the size and the limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);
