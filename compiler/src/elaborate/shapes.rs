//! Sizes, axes and type annotations.

use mngc_dsl::{Diagnostic, Span, ast};

use super::value::{Kind, Tag, Value};
use super::{Elab, Fail, Res, fail, fail_help};
use crate::ir::{DType, Dim, DimRole, Type};

/// Positions along one axis.
const MAX_SIZE: i64 = 1 << 31;
/// Elements of one tensor of one sequence.
const MAX_ELEMENTS: usize = 1 << 40;

impl Elab {
    /// An axis of a given size; a name of the file or an axis that the size stands for gives it an identity.
    pub fn dim_of(&mut self, value: &Value, what: &str, span: Span) -> Res<Dim> {
        if let Value::Num(_, Some(Tag::Axis(dim))) = value {
            return Ok(*dim);
        }
        let n = self.whole(value, what, span)?;
        if n < 1 {
            let label = self.blame(value);
            return fail("bad-size", span, format!("{what} must be at least 1"), label);
        }
        if n > MAX_SIZE {
            let message = format!("{what} of {n} is more than any device holds");
            return fail("absurd-size", span, message, format!("at most {MAX_SIZE}"));
        }
        Ok(match value {
            Value::Num(_, Some(Tag::Named(name))) => self.m.dims.intern(name, n as usize, DimRole::Feature),
            _ => self.m.dims.anonymous(n as usize),
        })
    }

    /// The size of an axis, which remembers it.
    pub fn size_value(&self, dim: Dim) -> Value {
        Value::Num(self.m.dims.size(dim) as f64, Some(Tag::Axis(dim)))
    }

    /// A shape, unless it is absurdly large.
    pub fn checked_shape(&self, dims: Vec<Dim>, span: Span) -> Res<Vec<Dim>> {
        let elements = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(self.m.dims.size(d)));
        match elements {
            Some(n) if n <= MAX_ELEMENTS => Ok(dims),
            _ => fail(
                "absurd-size",
                span,
                format!("a tensor {} is more than any device holds", self.show_dims(&dims)),
                "too large",
            ),
        }
    }

    /// Axes as messages show them.
    pub fn show_dims(&self, dims: &[Dim]) -> String {
        let part = |&d: &Dim| {
            let (name, size) = (self.m.dims.name(d), self.m.dims.size(d));
            let bare = name.split('.').next().unwrap_or(name);
            if bare.starts_with(|c: char| c.is_ascii_digit()) { size.to_string() } else { format!("{bare} = {size}") }
        };
        format!("[{}]", dims.iter().map(part).collect::<Vec<_>>().join(", "))
    }

    /// A tensor's type as messages show it.
    pub fn show(&self, ty: &Type) -> String {
        format!("{}{}", ty.dtype, self.show_dims(&ty.dims))
    }

    /// Axes of a tensor value, without staging anything.
    pub fn dims_of(&mut self, value: &Value, span: Span) -> Res<Vec<Dim>> {
        match value {
            Value::Param(slot) => Ok(self.m.slots[*slot].ty.dims.clone()),
            Value::Fill(ty, _) => Ok(ty.dims.clone()),
            other => {
                let t = self.tensor(other, span)?;
                Ok(self.ty(t).dims)
            }
        }
    }

    /// A dtype expression.
    pub fn dtype(&mut self, e: &ast::Expr) -> Res<DType> {
        let value = self.eval(e)?;
        self.as_dtype(&value, e.span)
    }

    pub fn as_dtype(&self, value: &Value, span: Span) -> Res<DType> {
        match value {
            Value::DType(d) => Ok(*d),
            Value::Poison => Err(Fail::Silent),
            other => {
                let names: Vec<&str> = DType::ALL.iter().map(|d| d.name()).collect();
                fail_help(
                    "not-a-dtype",
                    span,
                    format!("a dtype is needed, not {}", other.kind()),
                    other.kind(),
                    format!("the dtypes are {}", names.join(", ")),
                )
            }
        }
    }

    /// Axes of a declaration: every size must be known.
    pub fn declared_dims(&mut self, ty: &ast::TypeExpr, what: &str) -> Res<Vec<Dim>> {
        let mut dims = Vec::with_capacity(ty.dims.len());
        for e in &ty.dims {
            let value = self.eval(e)?;
            dims.push(self.dim_of(&value, what, e.span)?);
        }
        self.checked_shape(dims, ty.span)
    }

    /// Checks an argument against its annotation; binds shape variables that have no axis yet.
    pub fn check_annotation(&mut self, name: &ast::Ident, ty: &ast::TypeExpr, value: &Value, span: Span) -> Res<()> {
        match value {
            Value::None if ty.or_none => return Ok(()),
            Value::None => {
                return Err(Diagnostic::error(
                    "none-here",
                    span,
                    format!("`{}` needs a tensor", name.text),
                    "this is none",
                )
                .label(ty.span, "declared here")
                .help("write `| none` after its type if it may be none")
                .into());
            }
            Value::Poison => return Err(Fail::Silent),
            // A number is as good as a tensor of rank 0.
            Value::Num(..) | Value::Host(_) if ty.dims.is_empty() => return Ok(()),
            _ => {}
        }
        let t = self.tensor(value, span)?;
        let actual = self.ty(t);
        let wrong = |s: &Self, message: String| -> Res<()> {
            Err(Diagnostic::error("axes", span, message, format!("this is {}", s.show(&actual)))
                .label(ty.span, format!("`{}` is declared here", name.text))
                .into())
        };
        if let Some(e) = &ty.dtype {
            let dtype = self.dtype(e)?;
            if dtype != actual.dtype {
                return wrong(self, format!("`{}` must be {dtype}, not {}", name.text, actual.dtype));
            }
        } else if !actual.dtype.is_float() {
            return wrong(self, format!("`{}` must be a float, not {}", name.text, actual.dtype));
        }
        if ty.dims.len() != actual.rank() {
            let message = format!("`{}` has {} axes, not {}", name.text, ty.dims.len(), actual.rank());
            return wrong(self, message);
        }
        for (e, &dim) in ty.dims.iter().zip(&actual.dims) {
            if let ast::ExprKind::Name(var) = &e.kind
                && let Some(binding) = self.scopes.last_mut().and_then(|s| s.names.get_mut(var))
                && matches!(binding.value, Value::None)
            {
                let value = self.size_value(dim);
                self.bind(var, value, Kind::Fixed, e.span);
                continue;
            }
            let wanted = self.eval(e)?;
            let fits = match &wanted {
                Value::Num(_, Some(Tag::Axis(d))) => self.m.dims.compatible(*d, dim),
                other => {
                    self.whole(other, "a size", e.span)? == self.m.dims.size(dim) as i64
                        && self.m.dims.role(dim) == DimRole::Feature
                }
            };
            if !fits {
                let wanted = self.whole(&wanted, "a size", e.span)?;
                let message = format!(
                    "an axis of `{}` should be {wanted}, not {}",
                    name.text,
                    self.show_dims(&[dim]).trim_matches(['[', ']'])
                );
                return wrong(self, message);
            }
        }
        Ok(())
    }

    /// An axis argument: a number (negative: from the end), or the size of the axis meant.
    pub fn axis(&mut self, value: &Value, dims: &[Dim], span: Span) -> Res<u8> {
        // A size names its axis: the one that it was made for, else the only one of that size.
        let size = |d: &Dim| self.m.dims.size(*d) as f64;
        let named: Option<Vec<usize>> = match value {
            Value::Num(_, Some(Tag::Axis(d))) => Some((0..dims.len()).filter(|&i| dims[i] == *d).collect()),
            Value::Num(x, Some(Tag::Named(name))) => {
                let of_name = |d: &Dim| self.m.dims.name(*d).split('.').next() == Some(name) && size(d) == *x;
                let by_name: Vec<usize> = (0..dims.len()).filter(|&i| of_name(&dims[i])).collect();
                let by_size = || (0..dims.len()).filter(|&i| size(&dims[i]) == *x).collect();
                Some(if by_name.is_empty() { by_size() } else { by_name })
            }
            _ => None,
        };
        if let Some(places) = named {
            let label = match value {
                Value::Num(x, Some(Tag::Named(name))) => format!("`{name}` is {x}"),
                Value::Num(x, _) => format!("an axis of {x}"),
                _ => "here".to_string(),
            };
            let shown = self.show_dims(dims);
            return match places.as_slice() {
                [only] => Ok(*only as u8),
                [] => fail_help(
                    "no-axis",
                    span,
                    format!("no axis of {shown} has this size"),
                    label,
                    "a name means the axis of that size; a place is a plain number: 0 is the first axis, −1 the last",
                ),
                _ => fail_help(
                    "no-axis",
                    span,
                    format!("several axes of {shown} could be meant"),
                    label,
                    "give the place as a number: 0 is the first axis, −1 the last",
                ),
            };
        }
        let n = self.whole(value, "an axis", span)?;
        let rank = dims.len() as i64;
        let i = if n < 0 { n + rank } else { n };
        if (0..rank).contains(&i) {
            Ok(i as u8)
        } else {
            fail_help(
                "no-axis",
                span,
                format!("there is no axis {n} in {}", self.show_dims(dims)),
                "no such axis",
                "axes count from 0, or from the end with −1; an axis may also be named by its size, as in `x.mean(dim)`",
            )
        }
    }

    /// The axis T of a tensor, where it has one.
    pub fn token_position(&self, dims: &[Dim]) -> Option<usize> {
        dims.iter().position(|&d| self.m.dims.role(d) == DimRole::Token)
    }
}
