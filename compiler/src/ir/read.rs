//! Reads the text form of a module back: tests are written in it.

use std::collections::HashMap;
use std::sync::Arc;

use cranelift_entity::EntityRef;

use super::entities::{Func, Scalar, Slot, Value};
use super::graph::{Entry, EntryKey, EntryKind, Graph, Input, Module, Output, ScalarData, SlotData, SlotRole};
use super::host::{HostBinary, HostExpr, HostUnary};
use super::lex::{Token, tokenize};
use super::op::{AttentionMask, BinaryOp, CallKind, CompareOp, Distribution, F64, Op, ReduceKind, UnaryOp};
use super::types::{DType, DimRole, Type};

/// A fault of the text: line from 1, and what is wrong there.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ReadError {
    /// Line from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

type Result<T> = std::result::Result<T, ReadError>;

/// Reads a module. Legality is the verifier's business.
pub fn module(text: &str) -> Result<Module> {
    let mut r = Reader { tokens: tokenize(text)?, at: 0, m: Module::default() };
    r.word("module")?;
    r.m.name = r.string()?;
    while let Some(token) = r.peek().cloned() {
        match token {
            Token::Word(w) if w == "dim" => r.dim()?,
            Token::Word(w) if w == "slot" => r.slot()?,
            Token::Word(w) if w == "scalar" => r.scalar()?,
            Token::Word(w) if w == "func" => r.func()?,
            Token::Word(w) if w == "entry" => r.entry()?,
            other => return r.fail(format!("a declaration was expected, not {other:?}")),
        }
    }
    Ok(r.m)
}

struct Reader {
    tokens: Vec<(usize, Token)>,
    at: usize,
    m: Module,
}

/// An attribute's value.
enum Attr {
    Word(String),
    Str(String),
    List(Vec<(String, Option<String>)>),
}

impl Reader {
    /// The line of the next part.
    fn line(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |t| t.0)
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(ReadError { line: self.line(), message: message.into() })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|t| &t.1)
    }

    fn next(&mut self) -> Result<Token> {
        match self.tokens.get(self.at) {
            Some((_, token)) => {
                self.at += 1;
                Ok(token.clone())
            }
            None => self.fail("the text ends too early"),
        }
    }

    fn is(&mut self, sym: char) -> bool {
        let yes = self.peek() == Some(&Token::Sym(sym));
        self.at += yes as usize;
        yes
    }

    fn sym(&mut self, sym: char) -> Result<()> {
        if self.is(sym) { Ok(()) } else { self.fail(format!("`{sym}` was expected")) }
    }

    fn word(&mut self, word: &str) -> Result<()> {
        match self.next()? {
            Token::Word(w) if w == word => Ok(()),
            _ => {
                self.at -= 1;
                self.fail(format!("`{word}` was expected"))
            }
        }
    }

    fn any_word(&mut self) -> Result<String> {
        match self.next()? {
            Token::Word(w) => Ok(w),
            other => {
                self.at -= 1;
                self.fail(format!("a word was expected, not {other:?}"))
            }
        }
    }

    fn string(&mut self) -> Result<String> {
        match self.next()? {
            Token::Str(s) => Ok(s),
            _ => {
                self.at -= 1;
                self.fail("a string was expected")
            }
        }
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T> {
        let word = self.any_word()?;
        word.parse().or_else(|_| self.fail(format!("`{word}` is no number")))
    }

    /// An id with its prefix, such as `v12`.
    fn id(&mut self, prefix: &str) -> Result<usize> {
        let word = self.any_word()?;
        self.parse_id(&word, prefix)
    }

    fn parse_id(&self, word: &str, prefix: &str) -> Result<usize> {
        let id = word.strip_prefix(prefix).and_then(|n| n.parse::<u32>().ok()).filter(|&n| n < u32::MAX);
        id.map_or_else(|| self.fail(format!("`{word}` is no id like {prefix}0")), |n| Ok(n as usize))
    }

    fn in_order(&self, got: usize, want: usize) -> Result<()> {
        if got == want { Ok(()) } else { self.fail(format!("id {got} stands where {want} is due")) }
    }

    fn dim(&mut self) -> Result<()> {
        self.word("dim")?;
        let name = match self.next()? {
            Token::Word(w) | Token::Str(w) => w,
            Token::Sym(_) => return self.fail("a dim needs a name"),
        };
        self.sym('=')?;
        let size = self.number()?;
        let mut role = DimRole::Feature;
        for r in [DimRole::Token, DimRole::Sequence] {
            if self.peek() == Some(&Token::Word(r.name().into())) {
                self.at += 1;
                role = r;
            }
        }
        if self.m.dims.by_name(&name).is_some() {
            return self.fail(format!("dim {name} is declared twice"));
        }
        self.m.dims.intern(&name, size, role);
        Ok(())
    }

    fn ty(&mut self) -> Result<Type> {
        let word = self.any_word()?;
        let Some(dtype) = DType::from_name(&word) else { return self.fail(format!("`{word}` is no dtype")) };
        self.sym('[')?;
        let mut dims = Vec::new();
        while !self.is(']') {
            if !dims.is_empty() {
                self.sym(',')?;
            }
            let name = match self.next()? {
                Token::Word(w) | Token::Str(w) => w,
                Token::Sym(_) => return self.fail("a dim was expected"),
            };
            match (self.m.dims.by_name(&name), name.parse::<usize>()) {
                (Some(dim), _) => dims.push(dim),
                (None, Ok(size)) => dims.push(self.m.dims.anonymous(size)),
                (None, Err(_)) => return self.fail(format!("dim {name} is not declared")),
            }
        }
        Ok(Type { dtype, dims })
    }

    fn slot(&mut self) -> Result<()> {
        self.word("slot")?;
        let id = self.id("s")?;
        self.in_order(id, self.m.slots.len())?;
        let name = self.string()?;
        let role = self.any_word()?;
        let mut of = || -> Result<Slot> {
            self.sym('(')?;
            let id = self.id("s")?;
            self.sym(')')?;
            Ok(Slot::new(id))
        };
        let role = match role.as_str() {
            "param" => SlotRole::Param,
            "state" => SlotRole::State,
            "gradient" => SlotRole::Gradient(of()?),
            "optimizer" => SlotRole::Optimizer(of()?),
            "shadow" => SlotRole::Shadow(of()?),
            other => return self.fail(format!("`{other}` is no role of a slot")),
        };
        let ty = self.ty()?;
        self.m.slots.push(SlotData { name, role, ty, loc: None });
        Ok(())
    }

    fn scalar(&mut self) -> Result<()> {
        self.word("scalar")?;
        let id = self.id("h")?;
        self.in_order(id, self.m.scalars.len())?;
        let name = self.string()?;
        self.sym('=')?;
        let expr = self.host(0)?;
        self.m.scalars.push(ScalarData { name, expr });
        Ok(())
    }

    fn host(&mut self, depth: usize) -> Result<Arc<HostExpr>> {
        if depth > 200 {
            return self.fail("the expression is nested too deeply");
        }
        if !self.is('(') {
            let word = self.any_word()?;
            if word == "step" {
                return Ok(Arc::new(HostExpr::Step));
            }
            return match word.parse::<f64>() {
                Ok(v) => Ok(HostExpr::num(v)),
                Err(_) => self.fail(format!("`{word}` is no number")),
            };
        }
        let op = self.any_word()?;
        let mut args = Vec::new();
        while !self.is(')') {
            args.push(self.host(depth + 1)?);
        }
        let expr = match (args.as_slice(), HostUnary::from_name(&op), HostBinary::from_name(&op)) {
            ([x], Some(f), _) => HostExpr::Unary(f, x.clone()),
            ([a, b], _, Some(f)) => HostExpr::Binary(f, a.clone(), b.clone()),
            ([c, a, b], ..) if op == "select" => HostExpr::Select(c.clone(), a.clone(), b.clone()),
            ([a, b], ..) if CompareOp::from_name(&op).is_some() => {
                HostExpr::Compare(CompareOp::from_name(&op).unwrap_or(CompareOp::Eq), a.clone(), b.clone())
            }
            _ => return self.fail(format!("`{op}` of {} numbers is no host function", args.len())),
        };
        Ok(Arc::new(expr))
    }

    fn func(&mut self) -> Result<()> {
        self.word("func")?;
        let id = self.id("f")?;
        self.in_order(id, self.m.funcs.len())?;
        let mut g = Graph::new(self.string()?);
        let mut values: HashMap<usize, Value> = HashMap::new();
        self.sym('(')?;
        while !self.is(')') {
            if !g.params.is_empty() {
                self.sym(',')?;
            }
            let id = self.id("v")?;
            let name = if matches!(self.peek(), Some(Token::Str(_))) { self.string()? } else { String::new() };
            self.sym(':')?;
            let ty = self.ty()?;
            values.insert(id, g.param(name, ty));
        }
        if self.peek() == Some(&Token::Word("gradient".into())) {
            self.at += 1;
            g.gradient = Some(Func::new(self.id("f")?));
        }
        self.sym('{')?;
        loop {
            if self.peek() == Some(&Token::Word("return".into())) {
                self.at += 1;
                break;
            }
            self.node(&mut g, &mut values)?;
        }
        while !self.is('}') {
            if !g.results.is_empty() {
                self.sym(',')?;
            }
            let name = if matches!(self.peek(), Some(Token::Str(_))) { self.string()? } else { String::new() };
            let v = self.value(&values)?;
            g.result(name, v);
        }
        self.m.funcs.push(g);
        Ok(())
    }

    fn value(&mut self, values: &HashMap<usize, Value>) -> Result<Value> {
        let id = self.id("v")?;
        values.get(&id).copied().map_or_else(|| self.fail(format!("v{id} is not defined before its use")), Ok)
    }

    fn node(&mut self, g: &mut Graph, values: &mut HashMap<usize, Value>) -> Result<()> {
        let mut results = Vec::new();
        loop {
            let id = self.id("v")?;
            self.sym(':')?;
            results.push((id, self.ty()?));
            if !self.is(',') {
                break;
            }
        }
        self.sym('=')?;
        let line = self.line();
        let name = self.any_word()?;
        let mut args = Vec::new();
        // Operands start with `v` and a digit, which no result of the next line may be taken for: that has a colon.
        while let Some(Token::Word(w)) = self.peek() {
            let next_is_result = self.tokens.get(self.at + 1).map(|t| &t.1) == Some(&Token::Sym(':'));
            if next_is_result || self.parse_id(w, "v").is_err() {
                break;
            }
            args.push(self.value(values)?);
            if !self.is(',') {
                break;
            }
        }
        let mut attrs = HashMap::new();
        if self.is('{') {
            while !self.is('}') {
                if !attrs.is_empty() {
                    self.sym(',')?;
                }
                let key = self.any_word()?;
                self.sym('=')?;
                attrs.insert(key, self.attr()?);
            }
        }
        let op = Attrs { line, funcs: self.m.funcs.len(), attrs: &attrs }.op(&name)?;
        let types = results.iter().map(|(_, ty)| ty.clone()).collect();
        let node = g.push(op, args, types, None);
        for ((id, _), &v) in results.iter().zip(&g.nodes[node].results) {
            if values.insert(*id, v).is_some() {
                return Err(ReadError { line, message: format!("v{id} is defined twice") });
            }
        }
        Ok(())
    }

    fn attr(&mut self) -> Result<Attr> {
        if self.is('[') {
            let mut list = Vec::new();
            while !self.is(']') {
                if !list.is_empty() {
                    self.sym(',')?;
                }
                let word = self.any_word()?;
                let second = if self.is(':') { Some(self.any_word()?) } else { None };
                list.push((word, second));
            }
            return Ok(Attr::List(list));
        }
        match self.next()? {
            Token::Word(w) => Ok(Attr::Word(w)),
            Token::Str(s) => Ok(Attr::Str(s)),
            Token::Sym(c) => self.fail(format!("a value was expected, not `{c}`")),
        }
    }

    fn entry(&mut self) -> Result<()> {
        self.word("entry")?;
        let name = self.any_word()?;
        let Some(kind) = EntryKind::ALL.into_iter().find(|k| k.name() == name) else {
            return self.fail(format!("`{name}` is no entry"));
        };
        let mut key = EntryKey::from(kind);
        if self.peek() == Some(&Token::Word("stage".into())) {
            self.at += 1;
            key.stage = self.number()?;
        }
        self.sym('=')?;
        let func = Func::new(self.id("f")?);
        let mut inputs = Vec::new();
        self.sym('(')?;
        while !self.is(')') {
            if !inputs.is_empty() {
                self.sym(',')?;
            }
            inputs.push(match self.next()? {
                Token::Str(name) => Input::Batch(name),
                Token::Word(w) if w.starts_with('s') => Input::Slot(Slot::new(self.parse_id(&w, "s")?)),
                Token::Word(w) => Input::Scalar(Scalar::new(self.parse_id(&w, "h")?)),
                Token::Sym(_) => return self.fail("an input was expected"),
            });
        }
        self.sym('-')?;
        self.sym('>')?;
        self.sym('(')?;
        let mut outputs = Vec::new();
        while !self.is(')') {
            if !outputs.is_empty() {
                self.sym(',')?;
            }
            outputs.push(match self.next()? {
                Token::Str(name) => Output::Host(name),
                Token::Word(w) => Output::Slot(Slot::new(self.parse_id(&w, "s")?)),
                Token::Sym(_) => return self.fail("an output was expected"),
            });
        }
        self.m.entries.insert(key, Entry { key, func, inputs, outputs });
        Ok(())
    }
}

/// Typed access to a node's attributes.
struct Attrs<'a> {
    /// Where the node stands.
    line: usize,
    /// How many functions stand before it.
    funcs: usize,
    attrs: &'a HashMap<String, Attr>,
}

impl Attrs<'_> {
    fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(ReadError { line: self.line, message: message.into() })
    }

    fn op(&self, name: &str) -> Result<Op> {
        Ok(match name {
            "const" => Op::Const(F64(self.num("value")?)),
            "iota" => Op::Iota { axis: self.num("axis")? },
            "random" => {
                let (normal, uniform) = (self.floats("normal"), self.floats("uniform"));
                let distribution = match (normal, uniform) {
                    (Ok(n), _) if n.len() == 2 => Distribution::Normal(F64(n[0]), F64(n[1])),
                    (_, Ok(u)) if u.len() == 2 => Distribution::Uniform(F64(u[0]), F64(u[1])),
                    _ => return self.fail("random needs normal = [mean, std] or uniform = [low, high]"),
                };
                Op::Random { distribution, name: self.text("name")? }
            }
            "select" => Op::Select,
            "cast" => Op::Cast,
            "broadcast" => Op::Broadcast { axes: self.list("axes")? },
            "reshape" => Op::Reshape,
            "transpose" => Op::Transpose { perm: self.list("perm")? },
            "slice" => Op::Slice { axis: self.num("axis")?, start: self.num("start")? },
            "pad" => Op::Pad { axis: self.num("axis")?, before: self.num("before")? },
            "concat" => Op::Concat { axis: self.num("axis")? },
            "shift" => Op::Shift { axis: self.num("axis")?, by: self.num("by")? },
            "reverse" => Op::Reverse { axis: self.num("axis")? },
            "reduce" => {
                let kind = self.word("kind")?;
                let Some(kind) = ReduceKind::from_name(kind) else {
                    return self.fail(format!("`{kind}` is no reduction"));
                };
                Op::Reduce { kind, axes: self.list("axes")? }
            }
            "cumsum" => Op::Cumsum { axis: self.num("axis")?, reverse: self.num("reverse")? },
            "softmax" => Op::Softmax,
            "softmax_grad" => Op::SoftmaxGrad,
            "gather" => Op::Gather,
            "scatter_add" => Op::ScatterAdd,
            "dot" => Op::Dot { batch: self.pairs("batch")?, contract: self.pairs("contract")? },
            "rms_norm" => Op::RmsNorm { eps: F64(self.num("eps")?) },
            "rms_norm_grad" => Op::RmsNormGrad { eps: F64(self.num("eps")?) },
            "layer_norm" => Op::LayerNorm { eps: F64(self.num("eps")?) },
            "layer_norm_grad" => Op::LayerNormGrad { eps: F64(self.num("eps")?) },
            "rope" => Op::Rope { base: F64(self.num("base")?), axis: self.num("axis")?, inverse: self.num("inverse")? },
            "attention" => Op::Attention { mask: self.mask()?, scale: F64(self.num("scale")?) },
            "attention_grad" => Op::AttentionGrad { mask: self.mask()?, scale: F64(self.num("scale")?) },
            "cross_entropy" => Op::CrossEntropy,
            "cross_entropy_grad" => Op::CrossEntropyGrad,
            "call" => {
                let kind = self.word("kind")?;
                let Some(kind) = CallKind::from_name(kind) else {
                    return self.fail(format!("`{kind}` is no kind of call"));
                };
                Op::Call { func: self.func()?, kind }
            }
            other => match (UnaryOp::from_name(other), BinaryOp::from_name(other), CompareOp::from_name(other)) {
                (Some(op), ..) => Op::Unary(op),
                (_, Some(op), _) => Op::Binary(op),
                (.., Some(op)) => Op::Compare(op),
                _ => return self.fail(format!("`{other}` is no op")),
            },
        })
    }

    fn word(&self, key: &str) -> Result<&str> {
        match self.attrs.get(key) {
            Some(Attr::Word(w)) => Ok(w),
            _ => self.fail(format!("attribute {key} is missing")),
        }
    }

    fn text(&self, key: &str) -> Result<String> {
        match self.attrs.get(key) {
            Some(Attr::Str(s)) => Ok(s.clone()),
            _ => self.fail(format!("attribute {key} is missing")),
        }
    }

    fn num<T: std::str::FromStr>(&self, key: &str) -> Result<T> {
        let word = self.word(key)?;
        word.parse().or_else(|_| self.fail(format!("attribute {key} = {word}")))
    }

    fn items(&self, key: &str) -> Result<&[(String, Option<String>)]> {
        match self.attrs.get(key) {
            Some(Attr::List(list)) => Ok(list),
            _ => self.fail(format!("attribute {key} is missing")),
        }
    }

    fn list(&self, key: &str) -> Result<Vec<u8>> {
        self.items(key)?.iter().map(|(w, _)| w.parse().or_else(|_| self.fail(format!("{key}: {w}")))).collect()
    }

    fn floats(&self, key: &str) -> Result<Vec<f64>> {
        self.items(key)?.iter().map(|(w, _)| w.parse().or_else(|_| self.fail(format!("{key}: {w}")))).collect()
    }

    fn pairs(&self, key: &str) -> Result<Vec<(u8, u8)>> {
        let axis = |w: &str| w.parse::<u8>().or_else(|_| self.fail(format!("{key}: `{w}` is no axis")));
        let pair = |(a, b): &(String, Option<String>)| match b {
            Some(b) => Ok((axis(a)?, axis(b)?)),
            None => self.fail(format!("{key}: `{a}` stands alone where a pair like {a}:{a} is due")),
        };
        self.items(key)?.iter().map(pair).collect()
    }

    fn func(&self) -> Result<Func> {
        let word = self.word("func")?;
        let Some(index) = word.strip_prefix('f').and_then(|n| n.parse::<usize>().ok()) else {
            return self.fail(format!("`{word}` is no id like f0"));
        };
        if index < self.funcs {
            Ok(Func::new(index))
        } else {
            self.fail(format!("{word} is called before it is defined"))
        }
    }

    fn mask(&self) -> Result<AttentionMask> {
        let mut mask = AttentionMask::default();
        for (word, _) in self.items("mask")? {
            match word.as_str() {
                "causal" => mask.causal = true,
                "documents" => mask.documents = true,
                "window" => mask.window = true,
                other => return self.fail(format!("`{other}` is no part of a mask")),
            }
        }
        Ok(mask)
    }
}
