//! Values of the compile-time language. Tensors are staged: a value of them is an id in the graph under construction.

use std::collections::BTreeSet;
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

    /// A text that is equal for values which elaborate alike, and for no others. Tensors stand for their types. It ends where
    /// it says that it ends, so that texts may follow each other.
    pub fn signature(&self, ty: &dyn Fn(Tensor) -> String, out: &mut String) {
        match self {
            Value::List(items) => signature_of('L', items, &mut |v, out| v.signature(ty, out), out),
            Value::Tuple(items) => signature_of('U', items, &mut |v, out| v.signature(ty, out), out),
            Value::Record(fields) => {
                let field = &mut |(name, value): &(String, Value), out: &mut String| {
                    key_part(name, out);
                    value.signature(ty, out);
                };
                signature_of('R', fields, field, out);
            }
            Value::Tensor(t) => {
                out.push('T');
                key_part(&format!("{} {:?}", ty(*t), t.storage), out);
            }
            Value::Mask(mask) => {
                out.push_str(if mask.causal { "Mc" } else { "Ma" });
                key_part(&mask.documents.map_or(String::new(), ty), out);
                signature_of('W', mask.window.as_slice(), &mut |w, out| w.signature(ty, out), out);
            }
            // What the file declares lives as long as the elaborator: its address is its name.
            Value::Fn(f) => {
                out.push('F');
                key_part(&format!("{:p}", Rc::as_ptr(f)), out);
            }
            Value::Block(template) => {
                out.push(if template.args.is_some() { 'B' } else { 'b' });
                key_part(&format!("{:p}", Rc::as_ptr(&template.block)), out);
                let arg = &mut |(name, value): &(String, Value), out: &mut String| {
                    key_part(name, out);
                    value.signature(ty, out);
                };
                signature_of('A', template.args.as_deref().unwrap_or_default(), arg, out);
            }
            Value::Instance(i) => {
                out.push('I');
                key_part(&i.signature, out);
                key_part(&format!("{:?}", i.slots), out);
            }
            Value::Num(x, tag) => {
                out.push('N');
                key_part(&format!("{:x} {tag:?}", x.to_bits()), out);
            }
            other => {
                out.push('V');
                key_part(&format!("{other:?}"), out);
            }
        }
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

/// A part of a key, with its length before it: whatever it holds, it cannot be taken for the next part.
pub(crate) fn key_part(text: &str, out: &mut String) {
    out.push_str(&format!("{}:{text}", text.len()));
}

/// How many there are, then each of them.
pub(crate) fn signature_of<T>(tag: char, items: &[T], each: &mut dyn FnMut(&T, &mut String), out: &mut String) {
    out.push_str(&format!("{tag}{}:", items.len()));
    items.iter().for_each(|item| each(item, out));
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
    /// Hyper-parameters of the running optimizer that the value is made of, by position.
    pub made_of: BTreeSet<usize>,
    pub span: Span,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Few values of each kind, so that equal ones meet, with names that look like parts of keys.
    fn value() -> impl Strategy<Value = Value> {
        let word = prop::sample::select(vec!["", "a", "1", "a:1", "N0", "1:a", "L1:"]);
        let leaf = prop_oneof![
            Just(Value::None),
            any::<bool>().prop_map(Value::Bool),
            (0..2).prop_map(|x| Value::num(f64::from(x))),
            word.clone().prop_map(|tag| Value::Num(0.0, Some(Tag::Named(tag.into())))),
            word.clone().prop_map(|text| Value::Str(text.into())),
            (0..2i64).prop_map(|end| Value::Range(0, end)),
        ];
        leaf.prop_recursive(3, 12, 3, move |inner| {
            let named = prop::collection::vec((word.clone().prop_map(str::to_string), inner.clone()), 0..3);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::list),
                prop::collection::vec(inner.clone(), 0..3).prop_map(|items| Value::Tuple(Rc::new(items))),
                named.prop_map(|fields| Value::Record(Rc::new(fields))),
            ]
        })
    }

    proptest! {
        /// One value after the other, as the arguments of a call are.
        #[test]
        fn keys_are_equal_for_equal_values_only(
            a in prop::collection::vec(value(), 0..3),
            b in prop::collection::vec(value(), 0..3),
        ) {
            let key = |values: &[Value]| {
                let mut out = String::new();
                values.iter().for_each(|v| v.signature(&|_| String::new(), &mut out));
                out
            };
            prop_assert_eq!(key(&a) == key(&b), format!("{a:?}") == format!("{b:?}"), "{:?} and {:?}", a, b);
        }
    }

    #[test]
    fn a_record_ends() {
        let record = |fields: &[(&str, f64)]| {
            Value::Record(Rc::new(fields.iter().map(|(n, x)| (n.to_string(), Value::num(*x))).collect()))
        };
        let key = |values: &[Value]| {
            let mut out = String::new();
            values.iter().for_each(|v| v.signature(&|_| String::new(), &mut out));
            out
        };
        let split = |n: usize| {
            let fields = [("a", 1.0), ("b", 2.0)];
            key(&[record(&fields[..n]), record(&fields[n..])])
        };
        assert_ne!(split(0), split(1));
        assert_ne!(split(1), split(2));
    }
}
