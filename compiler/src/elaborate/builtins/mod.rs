//! Built-in names: constants, and functions with their parameters. `numbers`, `layout`, `network` hold what they do.

mod layout;
mod network;
mod numbers;

use mngc_dsl::{Diagnostic, Span};

use super::call::Args;
use super::suggest::suggestion;
use super::value::{Init, Mask, Value};
use super::{Elab, Fail, Res, fail_help};
use crate::ir::DType;

/// A built-in function.
#[derive(Debug)]
pub(crate) struct Builtin {
    pub name: &'static str,
    /// Names of its parameters.
    pub params: &'static [&'static str],
    /// How many of them must be given.
    pub required: usize,
    /// Whether more positional arguments may follow, collected in the last parameter.
    pub rest: bool,
    run: fn(&mut Elab, Given) -> Res<Value>,
}

/// Arguments of a built-in, by parameter.
pub(crate) struct Given {
    pub name: &'static str,
    values: Vec<Option<(Value, Span)>>,
    /// Further positional arguments, the last parameter's included.
    pub rest: Vec<(Value, Span)>,
    /// The whole call.
    pub span: Span,
}

impl Given {
    /// A parameter that was required.
    pub fn get(&self, i: usize) -> (&Value, Span) {
        match &self.values[i] {
            Some((value, span)) => (value, *span),
            None => (&Value::None, self.span),
        }
    }

    /// A parameter that may be left out.
    pub fn opt(&self, i: usize) -> Option<(&Value, Span)> {
        self.values.get(i)?.as_ref().map(|(v, s)| (v, *s))
    }

    /// With its place, to be handed on.
    pub fn pair(&self, i: usize) -> (Value, Span) {
        let (value, span) = self.get(i);
        (value.clone(), span)
    }
}

/// Built-in names that are no functions.
pub(crate) const CONSTANTS: &[&str] = &["pi", "inf", "f32", "bf16", "f16", "i32", "bool", "causal", "zeros", "ones"];

/// The value of a built-in name.
pub(crate) fn constant(name: &str) -> Option<Value> {
    Some(match name {
        "pi" => Value::num(std::f64::consts::PI),
        "inf" => Value::num(f64::INFINITY),
        "causal" => Value::Mask(std::rc::Rc::new(Mask { causal: true, ..Mask::default() })),
        "zeros" => Value::Init(Init::Constant(0.0)),
        "ones" => Value::Init(Init::Constant(1.0)),
        _ => match DType::from_name(name) {
            Some(d) => Value::DType(d),
            None => Value::Builtin(find(name)?.name),
        },
    })
}

/// The built-in function of that name.
pub(crate) fn find(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|b| b.name == name)
}

macro_rules! builtins {
    ($($name:literal ($($param:literal),*) $required:literal $run:path;)*) => {
        &[$(Builtin { name: $name, params: &[$($param),*], required: $required, rest: false, run: $run }),*]
    };
}
macro_rules! variadic {
    ($($name:literal ($($param:literal),*) $required:literal $run:path;)*) => {
        [$(Builtin { name: $name, params: &[$($param),*], required: $required, rest: true, run: $run }),*]
    };
}

/// Every built-in function.
pub(crate) static BUILTINS: std::sync::LazyLock<Vec<Builtin>> = std::sync::LazyLock::new(|| {
    let fixed: &[Builtin] = builtins! {
        "exp" ("x") 1 numbers::unary;
        "log" ("x") 1 numbers::unary;
        "sqrt" ("x") 1 numbers::unary;
        "rsqrt" ("x") 1 numbers::unary;
        "sin" ("x") 1 numbers::unary;
        "cos" ("x") 1 numbers::unary;
        "tanh" ("x") 1 numbers::unary;
        "sigmoid" ("x") 1 numbers::unary;
        "relu" ("x") 1 numbers::unary;
        "gelu" ("x") 1 numbers::unary;
        "silu" ("x") 1 numbers::unary;
        "square" ("x") 1 numbers::unary;
        "abs" ("x") 1 numbers::unary;
        "sign" ("x") 1 numbers::unary;
        "floor" ("x") 1 numbers::unary;
        "round" ("x") 1 numbers::unary;
        "div" ("a", "b") 2 numbers::binary;
        "xor" ("a", "b") 2 numbers::binary;
        "shl" ("a", "b") 2 numbers::binary;
        "shr" ("a", "b") 2 numbers::binary;
        "where" ("condition", "a", "b") 3 numbers::choose;
        "cast" ("x", "dtype") 2 numbers::cast;
        "trapezoid" ("step", "steps", "warmup", "warmdown") 2 numbers::trapezoid;
        "assert" ("condition", "message") 1 numbers::assert;
        "len" ("x") 1 numbers::len;
        "enumerate" ("items") 1 numbers::enumerate;
        "rows" ("x") 1 layout::rows;
        "cols" ("x") 1 layout::cols;
        "softmax" ("x") 1 network::softmax;
        "cumsum" ("x", "axis") 1 layout::cumsum;
        "shift" ("x", "by", "axis") 2 layout::shift;
        "reverse" ("x", "axis") 1 layout::reverse;
        "concat" ("items", "axis") 1 layout::concat;
        "split" ("x", "n", "axis") 2 layout::split;
        "zeros_like" ("x") 1 layout::like;
        "ones_like" ("x") 1 layout::like;
        "arange" ("n") 1 layout::arange;
        "uniform" ("low", "high") 1 numbers::distribution;
        "normal" ("mean", "deviation") 2 numbers::distribution;
        "linear" ("x", "weight", "bias") 2 network::linear;
        "rms_norm" ("x", "eps") 2 network::norm;
        "layer_norm" ("x", "eps") 2 network::norm;
        "rope" ("x", "base") 1 network::rope;
        "same" ("documents") 1 network::same;
        "within" ("window") 1 network::within;
        "attention" ("q", "k", "v", "mask", "scale") 3 network::attention;
        "cross_entropy" ("logits", "targets") 2 network::cross_entropy;
    };
    let open: [Builtin; 11] = variadic! {
        "min" ("a", "b") 2 numbers::extreme;
        "max" ("a", "b") 2 numbers::extreme;
        "zip" ("a", "b") 2 numbers::zip;
        "transpose" ("x", "axes") 2 layout::transpose;
        "reshape" ("x", "sizes") 1 layout::reshape;
        "full" ("value", "sizes") 1 layout::full;
        "sum" ("x", "axes") 1 layout::reduce;
        "mean" ("x", "axes") 1 layout::reduce;
        "amax" ("x", "axes") 1 layout::reduce;
        "amin" ("x", "axes") 1 layout::reduce;
        "norm" ("x", "axes") 1 layout::reduce;
    };
    let mut all: Vec<Builtin> = open.into_iter().collect();
    all.extend(fixed.iter().map(|b| Builtin { ..*b }));
    all
});

impl Elab {
    /// Calls a built-in.
    pub fn builtin(&mut self, name: &'static str, args: Args, at: Span) -> Res<Value> {
        let Some(b) = find(name) else { return Err(Fail::Silent) };
        let signature = || {
            let params =
                b.params.iter().enumerate().map(|(i, p)| match (i < b.required, b.rest && i + 1 == b.params.len()) {
                    (_, true) => format!("{p}…"),
                    (true, _) => p.to_string(),
                    (false, _) => format!("{p} = …"),
                });
            format!("it is {name}({})", params.collect::<Vec<_>>().join(", "))
        };
        let mut given = Given { name, values: vec![None; b.params.len()], rest: Vec::new(), span: args.span };
        let mut position = 0;
        for (key, value, span) in args.list {
            if value.is_poison() {
                return Err(Fail::Silent);
            }
            let index = match &key {
                Some(key) => match b.params.iter().position(|p| *p == key.text) {
                    Some(i) => i,
                    None => {
                        let help = suggestion(&key.text, b.params.iter()).unwrap_or_else(signature);
                        let message = format!("`{name}` has no parameter `{}`", key.text);
                        return fail_help("unknown-argument", key.span, message, "unknown", help);
                    }
                },
                None => {
                    position += 1;
                    position - 1
                }
            };
            if b.rest && index + 1 >= b.params.len() && key.is_none() {
                given.rest.push((value.clone(), span));
            }
            match given.values.get_mut(index) {
                Some(Some(_)) => {
                    let message = format!("`{}` is given twice", b.params[index]);
                    return fail_help("argument-twice", span, message, "the second time", signature());
                }
                Some(place) => *place = Some((value, span)),
                None if b.rest => {}
                None => {
                    let n = b.params.len();
                    let message = format!("`{name}` takes {n} argument{}", if n == 1 { "" } else { "s" });
                    return fail_help("too-many-arguments", span, message, "one too many", signature());
                }
            }
        }
        if let Some(missing) = (0..b.required).find(|&i| given.values[i].is_none()) {
            let message = format!("`{name}` needs `{}`", b.params[missing]);
            let span = if args.span.start == args.span.end { at } else { args.span };
            return Err(Diagnostic::error("missing-argument", span, message, "missing here").help(signature()).into());
        }
        (b.run)(self, given)
    }
}
