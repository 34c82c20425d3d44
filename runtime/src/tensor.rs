//! Tensors on the host: sizes and elements, row-major. What dtype the elements stand for is the graph's matter: every
//! float tensor holds f64, already rounded to the dtype of its place where that place is narrower.

use std::sync::Arc;

use mngc_compiler::ir::DType;

use crate::error::{Error, Result};
use crate::round;

/// The elements of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Floats of any dtype.
    Float(Vec<f64>),
    /// i32.
    Int(Vec<i32>),
    /// bool.
    Bool(Vec<bool>),
}

impl Data {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::Float(v) => v.len(),
            Data::Int(v) => v.len(),
            Data::Bool(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Data::Float(_) => "floats",
            Data::Int(_) => "i32",
            Data::Bool(_) => "bool",
        }
    }

    /// Whether a value of this dtype may hold these elements.
    pub fn fits(&self, dtype: DType) -> bool {
        match self {
            Data::Float(_) => dtype.is_float(),
            Data::Int(_) => dtype == DType::I32,
            Data::Bool(_) => dtype == DType::Bool,
        }
    }
}

/// How an element is written in a file or in device memory, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE binary64; only in files.
    F64,
    /// IEEE binary32.
    F32,
    /// bfloat16.
    BF16,
    /// IEEE binary16.
    F16,
    /// 32-bit signed integer.
    I32,
    /// One byte, 0 or 1; any byte but 0 reads as true.
    Bool,
}

impl Format {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Format::F64 => 8,
            Format::F32 | Format::I32 => 4,
            Format::BF16 | Format::F16 => 2,
            Format::Bool => 1,
        }
    }

    /// The name, as in model files.
    pub fn name(self) -> &'static str {
        match self {
            Format::F64 => "f64",
            Format::F32 => "f32",
            Format::BF16 => "bf16",
            Format::F16 => "f16",
            Format::I32 => "i32",
            Format::Bool => "bool",
        }
    }
}

impl From<DType> for Format {
    fn from(dtype: DType) -> Format {
        match dtype {
            DType::F32 => Format::F32,
            DType::BF16 => Format::BF16,
            DType::F16 => Format::F16,
            DType::I32 => Format::I32,
            DType::Bool => Format::Bool,
        }
    }
}

/// A tensor on the host. Cloning shares the elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    sizes: Vec<usize>,
    data: Arc<Data>,
}

impl Tensor {
    /// From elements in row-major order.
    pub fn new(sizes: impl Into<Vec<usize>>, data: Data) -> Result<Tensor> {
        let sizes = sizes.into();
        if count(&sizes) != Some(data.len()) {
            return Err(Error::Elements { sizes, found: data.len() });
        }
        Ok(Tensor { sizes, data: Arc::new(data) })
    }

    /// From floats in row-major order.
    pub fn floats(sizes: impl Into<Vec<usize>>, values: Vec<f64>) -> Result<Tensor> {
        Tensor::new(sizes, Data::Float(values))
    }

    /// From integers in row-major order.
    pub fn ints(sizes: impl Into<Vec<usize>>, values: Vec<i32>) -> Result<Tensor> {
        Tensor::new(sizes, Data::Int(values))
    }

    /// From truth values in row-major order.
    pub fn bools(sizes: impl Into<Vec<usize>>, values: Vec<bool>) -> Result<Tensor> {
        Tensor::new(sizes, Data::Bool(values))
    }

    /// A float of rank 0.
    pub fn scalar(value: f64) -> Tensor {
        Tensor { sizes: Vec::new(), data: Arc::new(Data::Float(vec![value])) }
    }

    /// Zeros (`false`) of a dtype.
    pub fn zeros(dtype: DType, sizes: impl Into<Vec<usize>>) -> Result<Tensor> {
        let sizes = sizes.into();
        let n = count(&sizes).ok_or_else(|| Error::Elements { sizes: sizes.clone(), found: 0 })?;
        Tensor::new(
            sizes,
            match dtype {
                DType::F32 | DType::BF16 | DType::F16 => Data::Float(vec![0.0; n]),
                DType::I32 => Data::Int(vec![0; n]),
                DType::Bool => Data::Bool(vec![false; n]),
            },
        )
    }

    /// Sizes of the axes, outermost first.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.sizes.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, copied only where another tensor shares them.
    pub fn into_data(self) -> Data {
        Arc::unwrap_or_clone(self.data)
    }

    /// The elements, if they are floats.
    pub fn as_floats(&self) -> Option<&[f64]> {
        match &*self.data {
            Data::Float(v) => Some(v),
            _ => None,
        }
    }

    /// The elements, if they are i32.
    pub fn as_ints(&self) -> Option<&[i32]> {
        match &*self.data {
            Data::Int(v) => Some(v),
            _ => None,
        }
    }

    /// The elements, if they are bool.
    pub fn as_bools(&self) -> Option<&[bool]> {
        match &*self.data {
            Data::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// The number that a tensor of one element holds; `true` is 1.
    pub fn item(&self) -> Option<f64> {
        if self.len() != 1 {
            return None;
        }
        Some(match &*self.data {
            Data::Float(v) => v[0],
            Data::Int(v) => f64::from(v[0]),
            Data::Bool(v) => f64::from(u8::from(v[0])),
        })
    }

    /// The same elements under other sizes.
    pub fn reshaped(&self, sizes: impl Into<Vec<usize>>) -> Result<Tensor> {
        let sizes = sizes.into();
        if count(&sizes) != Some(self.len()) {
            return Err(Error::Elements { sizes, found: self.len() });
        }
        Ok(Tensor { sizes, data: Arc::clone(&self.data) })
    }

    /// Floats rounded to the nearest value of `dtype`, ties to even; other elements as they are.
    pub fn rounded(self, dtype: DType) -> Tensor {
        let Tensor { sizes, data } = self;
        let mut data = data;
        if dtype.is_float()
            && let Data::Float(values) = Arc::make_mut(&mut data)
        {
            round::round_all(dtype, values);
        }
        Tensor { sizes, data }
    }

    /// Fails unless sizes and kind are those of a place; `what` names it in the message.
    pub fn expect(&self, what: impl Fn() -> String, dtype: DType, sizes: &[usize]) -> Result<()> {
        if !self.data.fits(dtype) {
            return Err(Error::Kind { what: what(), expected: dtype.name().into(), found: self.data.kind() });
        }
        if self.sizes != sizes {
            return Err(Error::Sizes { what: what(), expected: sizes.to_vec(), found: self.sizes.clone() });
        }
        Ok(())
    }

    /// The elements as raw little-endian data. Floats go to any float format, rounded once to nearest even.
    pub fn to_bytes(&self, format: Format) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(self.len() * format.bytes());
        match (&*self.data, format) {
            (Data::Float(v), Format::F64) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
            (Data::Float(v), Format::F32) => v.iter().for_each(|&x| out.extend((x as f32).to_le_bytes())),
            // After rounding the value is one of the narrow format, so that f32 and the second step are exact.
            (Data::Float(v), Format::BF16) => v.iter().for_each(|&x| {
                out.extend(half::bf16::from_f32(round::round_bf16(x) as f32).to_le_bytes());
            }),
            (Data::Float(v), Format::F16) => v.iter().for_each(|&x| {
                out.extend(half::f16::from_f32(round::round_f16(x) as f32).to_le_bytes());
            }),
            (Data::Int(v), Format::I32) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
            (Data::Bool(v), Format::Bool) => out.extend(v.iter().map(|&x| u8::from(x))),
            (data, _) => {
                return Err(Error::Kind {
                    what: "a tensor to be written".into(),
                    expected: format.name().into(),
                    found: data.kind(),
                });
            }
        }
        Ok(out)
    }

    /// From raw little-endian data.
    pub fn from_bytes(sizes: impl Into<Vec<usize>>, format: Format, bytes: &[u8]) -> Result<Tensor> {
        let sizes = sizes.into();
        let wanted = count(&sizes).and_then(|n| n.checked_mul(format.bytes()));
        if wanted != Some(bytes.len()) {
            return Err(Error::Bytes { sizes, format: format.name(), found: bytes.len() });
        }
        let data = match format {
            Format::F64 => Data::Float(elements(bytes, f64::from_le_bytes)),
            Format::F32 => Data::Float(elements(bytes, |b| f64::from(f32::from_le_bytes(b)))),
            Format::BF16 => Data::Float(elements(bytes, |b| half::bf16::from_le_bytes(b).to_f64())),
            Format::F16 => Data::Float(elements(bytes, |b| half::f16::from_le_bytes(b).to_f64())),
            Format::I32 => Data::Int(elements(bytes, i32::from_le_bytes)),
            Format::Bool => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
        };
        Tensor::new(sizes, data)
    }
}

/// Number of elements; none where it overflows.
fn count(sizes: &[usize]) -> Option<usize> {
    sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size))
}

fn elements<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|&chunk| read(chunk)).collect()
}
