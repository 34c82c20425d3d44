//! Dtypes, dims with identity, tensor types.

use std::collections::HashMap;
use std::fmt;

use cranelift_entity::PrimaryMap;

use super::entities::Dim;

/// Element types. The oracle holds every float type as f64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// bfloat16.
    BF16,
    /// IEEE binary16.
    F16,
    /// 32-bit signed integer, two's complement, wrapping.
    I32,
    /// `false` or `true`; one byte.
    Bool,
}

impl DType {
    /// All of them.
    pub const ALL: [DType; 5] = [DType::F32, DType::BF16, DType::F16, DType::I32, DType::Bool];

    /// The name in model files and in the text form.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
            DType::I32 => "i32",
            DType::Bool => "bool",
        }
    }

    /// The dtype of that name.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Whether it holds real numbers.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::BF16 | DType::F16)
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::BF16 | DType::F16 => 2,
            DType::Bool => 1,
        }
    }

    /// The dtype of an elementwise result on two float dtypes: the wider one, f32 for bf16 with f16.
    pub fn wider(self, other: DType) -> DType {
        if self == other { self } else { DType::F32 }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an axis means, where that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DimRole {
    /// An axis of features: compatible with any other feature axis of its size.
    Feature,
    /// Positions along one sequence: causality is asked along it. Compatible with itself only.
    Token,
    /// The sequences of a micro-step, added by the compiler. Compatible with itself only.
    Sequence,
}

impl DimRole {
    /// The word in the text form; nothing for features.
    pub fn name(self) -> &'static str {
        match self {
            DimRole::Feature => "feature",
            DimRole::Token => "token",
            DimRole::Sequence => "sequence",
        }
    }
}

/// Name, size and role of an axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DimData {
    /// Unique in the module. Decimal digits for a feature axis that no name of the file fits.
    pub name: String,
    /// Number of positions.
    pub size: usize,
    /// What it means.
    pub role: DimRole,
}

/// The interned axes of a module.
#[derive(Clone, Debug, Default)]
pub struct Dims {
    data: PrimaryMap<Dim, DimData>,
    /// By the name asked for, size and role; the stored name may carry a suffix.
    interned: HashMap<(String, usize, DimRole), Dim>,
    names: HashMap<String, Dim>,
}

impl Dims {
    /// The axis of that name, size and role. A name taken by another size or role gets a suffix.
    pub fn intern(&mut self, name: &str, size: usize, role: DimRole) -> Dim {
        let key = (name.to_string(), size, role);
        if let Some(&dim) = self.interned.get(&key) {
            return dim;
        }
        let mut unique = name.to_string();
        let mut n = 2;
        while self.names.contains_key(&unique) {
            unique = format!("{name}.{n}");
            n += 1;
        }
        let dim = self.data.push(DimData { name: unique.clone(), size, role });
        self.names.insert(unique, dim);
        self.interned.insert(key, dim);
        dim
    }

    /// A feature axis without a name of its own: printed as its size.
    pub fn anonymous(&mut self, size: usize) -> Dim {
        self.intern(&size.to_string(), size, DimRole::Feature)
    }

    /// The axis that prints under `name`.
    pub fn by_name(&self, name: &str) -> Option<Dim> {
        self.names.get(name).copied()
    }

    /// Number of positions along `dim`.
    pub fn size(&self, dim: Dim) -> usize {
        self.data[dim].size
    }

    /// What `dim` means.
    pub fn role(&self, dim: Dim) -> DimRole {
        self.data[dim].role
    }

    /// The unique name of `dim`.
    pub fn name(&self, dim: Dim) -> &str {
        &self.data[dim].name
    }

    /// Every axis, in the order in which it was made.
    pub fn iter(&self) -> impl Iterator<Item = (Dim, &DimData)> {
        self.data.iter()
    }

    /// Whether two axes may stand in the same place of an operation: the same axis, or features of one size.
    pub fn compatible(&self, a: Dim, b: Dim) -> bool {
        if a == b {
            return true;
        }
        let (a, b) = (&self.data[a], &self.data[b]);
        a.role == DimRole::Feature && b.role == DimRole::Feature && a.size == b.size
    }

    /// Whether two shapes have the same rank and compatible axes throughout.
    pub fn same_shape(&self, a: &[Dim], b: &[Dim]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| self.compatible(a, b))
    }

    /// Sizes of a shape.
    pub fn sizes(&self, dims: &[Dim]) -> Vec<usize> {
        dims.iter().map(|&d| self.size(d)).collect()
    }

    /// Number of elements of a shape.
    pub fn elements(&self, dims: &[Dim]) -> usize {
        dims.iter().map(|&d| self.size(d)).product()
    }
}

/// Dtype and axes of a tensor, outermost axis first, row-major.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Axes; none for a scalar.
    pub dims: Vec<Dim>,
}

impl Type {
    /// A tensor type.
    pub fn new(dtype: DType, dims: impl Into<Vec<Dim>>) -> Type {
        Type { dtype, dims: dims.into() }
    }

    /// A scalar type.
    pub fn scalar(dtype: DType) -> Type {
        Type { dtype, dims: Vec::new() }
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The same shape with another dtype.
    pub fn with_dtype(&self, dtype: DType) -> Type {
        Type { dtype, dims: self.dims.clone() }
    }
}
