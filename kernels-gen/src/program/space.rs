//! Where a thread finds its elements of operands and results.

use mngc_compiler::schedule::rows::Access;

use crate::spec::Refusal;

/// The rows that elements stand in.
#[derive(Clone, Debug)]
pub struct Space {
    /// Elements of a row.
    pub len: usize,
    /// Its length as text: a constant, or a parameter.
    pub len_text: String,
    /// The number of the row.
    pub row: String,
    /// The number of its first element.
    pub base: String,
    /// The position of element `e` in its row.
    pub local: String,
    /// Whether element `e` exists; none where all do.
    pub live: Option<String>,
    /// Elements side by side in a thread, at a position that they divide.
    pub vec: usize,
    /// The position in the row of element `c`, with which a chunk of `vec` begins.
    pub chunk: String,
    /// Whether the chunk exists that begins with element `c`; none where all do.
    pub chunk_live: Option<String>,
    /// Number of elements of a thread, as text.
    pub held: String,
}

impl Space {
    /// Rows of `len` columns, of which a thread has `vec` neighbours from column `col` on.
    pub fn of_columns(len: usize, vec: usize) -> Space {
        Space {
            len,
            len_text: "n".into(),
            row: "row".into(),
            base: "base".into(),
            local: "col + e".into(),
            live: None,
            vec,
            chunk: "col".into(),
            chunk_live: None,
            held: "V".into(),
        }
    }
}

/// Where elements of a thread are found.
pub(super) enum Found {
    /// All of them in one place.
    Once(String),
    /// Side by side, from this on: at + local.
    Along(String),
    /// Each by itself.
    Each(String),
}

/// Sizes that are parameters, since a longer sequence changes them.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    /// Their values: parameters `d0`, `d1` and so on.
    pub values: Vec<u32>,
}

impl Sizes {
    /// The name of a size.
    pub fn name(&mut self, value: usize) -> Result<String, Refusal> {
        let value = u32::try_from(value).map_err(|_| Refusal(format!("a size of {value} exceeds 32 bits")))?;
        let at = self.values.iter().position(|&v| v == value).unwrap_or_else(|| {
            self.values.push(value);
            self.values.len() - 1
        });
        Ok(format!("d{at}"))
    }
}

impl Space {
    /// Where an access to the space finds its elements.
    pub(super) fn find(&self, access: Access, sizes: &mut Sizes) -> Result<Found, Refusal> {
        let Space { len, row, base, local, .. } = self;
        let text = &self.len_text;
        let each = |expression: String| Ok(Found::Each(expression));
        // Rows that a run of `n` elements is.
        let rows = |n: usize| n.is_multiple_of(*len).then_some(n / len);
        Ok(match access {
            Access::Scalar => Found::Once("0".into()),
            Access::Full => Found::Along(base.clone()),
            Access::Row { len: n } => match rows(n) {
                Some(1) => Found::Once(row.clone()),
                Some(q) => Found::Once(format!("{row} / {}", sizes.name(q)?)),
                None => return each(format!("({base} + {local}) / {}", self.divisor(n, sizes)?)),
            },
            Access::Cycle { period } => match rows(period) {
                Some(1) => Found::Along("0".into()),
                Some(q) => Found::Along(format!("{row} % {} * {text}", sizes.name(q)?)),
                None if len.is_multiple_of(period) => {
                    return each(format!("{} % {}", single(local), self.divisor(period, sizes)?));
                }
                None => return each(format!("({base} + {local}) % {}", self.divisor(period, sizes)?)),
            },
            Access::Middle { inner, period } => match rows(inner) {
                Some(1) => Found::Once(format!("{row} % {}", sizes.name(period)?)),
                Some(q) => Found::Once(format!("{row} / {} % {}", sizes.name(q)?, sizes.name(period)?)),
                None => {
                    let from =
                        if len.is_multiple_of(inner * period) { single(local) } else { format!("({base} + {local})") };
                    let place = if inner == 1 { from } else { format!("{from} / {}", self.divisor(inner, sizes)?) };
                    return each(format!("{place} % {}", self.divisor(period, sizes)?));
                }
            },
        })
    }

    /// A size that divides rows is a constant, as rows are; others are parameters.
    pub(super) fn divisor(&self, n: usize, sizes: &mut Sizes) -> Result<String, Refusal> {
        if self.len.is_multiple_of(n) && self.len_text == self.len.to_string() {
            return Ok(n.to_string());
        }
        sizes.name(n)
    }
}

/// An expression as an operand of any sign: in parentheses, where it has signs itself.
pub(super) fn single(expression: &str) -> String {
    if expression.contains(" + ") { format!("({expression})") } else { expression.to_string() }
}
