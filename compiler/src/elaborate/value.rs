//! Values of the compile-time language. Tensors are staged: a value of them is an id in the graph under construction.

use std::rc::Rc;
use std::sync::Arc;

use mngc_dsl::{Span, ast};

use crate::ir::{self, DType, Dim, HostExpr, Slot, Type};

/// What a number is the size of, if it came from a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tag {
    /// A constant of the file.
    Named(Rc<str>),
    /// An axis.
    Axis(Dim),
}

/// A tensor in the graph under construction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tensor {
    /// Its id there.
    pub v: ir::Value,
    /// The frame whose graph it stands in.
    pub frame: u32,
    /// The dtype that its slot is stored in, where it is the value of a slot.
    pub storage: Option<DType>,
}

/// An initial value that needs no shape of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Init {
    /// Every element the same.
    Constant(f64),
    /// Mean and standard deviation.
    Normal(f64, f64),
    /// Low and high.
    Uniform(f64, f64),
}

/// Parts of an attention mask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mask {
    pub causal: bool,
    pub documents: Option<Tensor>,
    pub window: Option<Box<Value>>,
}

/// A block with its compile-time arguments: what `use` makes instances of.
#[derive(Debug)]
pub(crate) struct Template {
    pub block: Rc<ast::Block>,
    /// None: not called yet.
    pub args: Option<Vec<(String, Value)>>,
}

/// A used block with its parameters.
#[derive(Debug)]
pub(crate) struct Instance {
    pub block: Rc<ast::Block>,
    /// Dotted name that its parameters stand under.
    pub prefix: String,
    /// Compile-time arguments and `let`s, parameters and sub-blocks by dotted name.
    pub members: Vec<(String, Value)>,
    /// Its parameters and those of its sub-blocks in order of declaration.
    pub slots: Vec<Slot>,
    /// Equal for instances that are alike but for the slots.
    pub signature: String,
}

/// Gradients of all parameters, as a value of `train`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gradients(pub Rc<Vec<(Slot, ir::Value)>>);

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Num(f64, Option<Tag>),
    /// A number that depends on the step.
    Host(Arc<HostExpr>),
    Str(Rc<str>),
    List(Rc<Vec<Value>>),
    Tuple(Rc<Vec<Value>>),
    Record(Rc<Vec<(String, Value)>>),
    Range(i64, i64),
    DType(DType),
    Fn(Rc<ast::Function>),
    Builtin(&'static str),
    Block(Rc<Template>),
    Instance(Rc<Instance>),
    /// A declared parameter, read where it is used.
    Param(Slot),
    Tensor(Tensor),
    /// A tensor full of one number, not yet in a graph.
    Fill(Type, f64),
    Init(Init),
    Mask(Rc<Mask>),
    Gradients(Gradients),
    /// Something that was reported already: using it reports nothing more.
    Poison,
}

impl Value {
    pub fn num(value: f64) -> Value {
        Value::Num(value, None)
    }

    /// A truth value as the number 1 or 0.
    pub fn as_number(&self) -> Value {
        match self {
            Value::Bool(b) => Value::num(f64::from(u8::from(*b))),
            other => other.clone(),
        }
    }

    pub fn list(items: Vec<Value>) -> Value {
        Value::List(Rc::new(items))
    }

    /// What it is, in the user's words.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::None => "none",
            Value::Bool(_) => "a truth value",
            Value::Num(..) => "a number",
            Value::Host(_) => "a number that depends on the step",
            Value::Str(_) => "a string",
            Value::List(_) => "a list",
            Value::Tuple(_) => "a tuple",
            Value::Record(_) => "a record",
            Value::Range(..) => "a range",
            Value::DType(_) => "a dtype",
            Value::Fn(_) | Value::Builtin(_) => "a function",
            Value::Block(_) => "a block",
            Value::Instance(_) => "a used block",
            Value::Param(_) => "a parameter",
            Value::Tensor(_) | Value::Fill(..) => "a tensor",
            Value::Init(_) => "an initial value",
            Value::Mask(_) => "an attention mask",
            Value::Gradients(_) => "the gradients",
            Value::Poison => "an unknown value",
        }
    }

    /// Whether using it must stay silent.
    pub fn is_poison(&self) -> bool {
        match self {
            Value::Poison => true,
            Value::List(items) | Value::Tuple(items) => items.iter().any(Value::is_poison),
            _ => false,
        }
    }

    /// Values inside, counted until there are more than `limit`; nesting over `depth` counts as more.
    pub fn weight(&self, limit: usize, depth: usize) -> usize {
        let sum = |items: &mut dyn Iterator<Item = &Value>| {
            let mut n = 0;
            for item in items {
                if n > limit || depth == 0 {
                    return limit + 1;
                }
                n += 1 + item.weight(limit - n.min(limit), depth - 1);
            }
            n
        };
        match self {
            Value::List(items) | Value::Tuple(items) => sum(&mut items.iter()),
            Value::Record(fields) => sum(&mut fields.iter().map(|(_, v)| v)),
            _ => 0,
        }
    }

    /// A short text that is equal for values which elaborate alike. Tensors stand for their types.
    pub fn signature(&self, ty: &dyn Fn(Tensor) -> String, out: &mut String) {
        use std::fmt::Write;
        let mut list = |tag: &str, items: &[Value]| {
            out.push_str(tag);
            for item in items {
                item.signature(ty, out);
                out.push(',');
            }
            out.push(')');
        };
        // Writing to a string cannot fail.
        _ = match self {
            Value::List(items) => return list("L(", items),
            Value::Tuple(items) => return list("U(", items),
            Value::Record(fields) => {
                for (name, value) in fields.iter() {
                    _ = write!(out, "{name}:");
                    value.signature(ty, out);
                }
                Ok(())
            }
            Value::Tensor(t) => write!(out, "T{}{:?}", ty(*t), t.storage),
            Value::Mask(mask) => {
                _ = write!(out, "M{}", mask.causal);
                if let Some(docs) = mask.documents {
                    _ = write!(out, "d{}", ty(docs));
                }
                if let Some(window) = &mask.window {
                    window.signature(ty, out);
                }
                Ok(())
            }
            Value::Fn(f) => write!(out, "F{:p}", Rc::as_ptr(f)),
            Value::Block(t) => write!(out, "B{:p}", Rc::as_ptr(t)),
            Value::Instance(i) => write!(out, "I{}{:?}", i.signature, i.slots),
            Value::Num(x, tag) => write!(out, "N{:x}{tag:?}", x.to_bits()),
            other => write!(out, "{other:?}"),
        };
    }

    /// Replaces every tensor; the order of visits is the order of `tensors`.
    pub fn map_tensors(&self, f: &mut dyn FnMut(Tensor) -> Tensor) -> Value {
        match self {
            Value::Tensor(t) => Value::Tensor(f(*t)),
            Value::List(items) => Value::List(Rc::new(items.iter().map(|v| v.map_tensors(f)).collect())),
            Value::Tuple(items) => Value::Tuple(Rc::new(items.iter().map(|v| v.map_tensors(f)).collect())),
            Value::Record(fields) => {
                Value::Record(Rc::new(fields.iter().map(|(n, v)| (n.clone(), v.map_tensors(f))).collect()))
            }
            Value::Mask(mask) => Value::Mask(Rc::new(Mask {
                causal: mask.causal,
                documents: mask.documents.map(&mut *f),
                window: mask.window.as_ref().map(|w| Box::new(w.map_tensors(f))),
            })),
            other => other.clone(),
        }
    }

    /// Every tensor inside, in order.
    pub fn tensors(&self) -> Vec<Tensor> {
        let mut out = Vec::new();
        self.map_tensors(&mut |t| {
            out.push(t);
            t
        });
        out
    }
}

/// What a name may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `let`, parameters of functions, loop variables.
    Fixed,
    /// `var`, the tensors and states of an optimizer.
    Mutable,
}

/// A name in scope.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub value: Value,
    pub kind: Kind,
    pub used: bool,
    pub span: Span,
}
