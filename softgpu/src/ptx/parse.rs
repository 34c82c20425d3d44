//! The reader of PTX modules: directives, variables and functions. Bodies are read by `statement`.

use super::ast::*;
use super::lexer::{Tok, Token, lex};
use crate::error::LoadError;

/// Nesting of scopes and vectors beyond which a text is refused: nobody writes it, and recursion must end.
pub(super) const MAX_DEPTH: u32 = 64;

/// A cursor over tokens.
pub(super) struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    pub(super) loc: Option<Loc>,
    pub(super) depth: u32,
}

pub(super) type R<T> = Result<T, LoadError>;

/// Reads a PTX module.
pub fn parse(text: &str) -> R<Module> {
    let mut p = Parser { tokens: lex(text)?, at: 0, loc: None, depth: 0 };
    p.module()
}

impl<'a> Parser<'a> {
    pub(super) fn peek(&self) -> Tok<'a> {
        self.tokens[self.at].tok
    }

    pub(super) fn peek2(&self) -> Tok<'a> {
        self.tokens[(self.at + 1).min(self.tokens.len() - 1)].tok
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens[self.at].line
    }

    pub(super) fn next(&mut self) -> Tok<'a> {
        let t = self.peek();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        t
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let hit = self.peek() == Tok::Punct(c);
        if hit {
            self.next();
        }
        hit
    }

    pub(super) fn expect(&mut self, c: char) -> R<()> {
        if self.eat(c) { Ok(()) } else { self.fail(format!("expected '{c}', found {}", self.shown())) }
    }

    pub(super) fn fail<T>(&self, message: impl Into<String>) -> R<T> {
        Err(LoadError::at(self.line(), message))
    }

    pub(super) fn shown(&self) -> String {
        match self.peek() {
            Tok::Word(w) => w.to_string(),
            Tok::Int(v) => v.to_string(),
            Tok::F32(v) => format!("0f{v:08X}"),
            Tok::F64(v) => format!("0d{v:016X}"),
            Tok::Str(s) => format!("\"{s}\""),
            Tok::Punct(c) => format!("'{c}'"),
            Tok::Eof => "the end of the text".to_string(),
        }
    }

    pub(super) fn word(&mut self) -> R<&'a str> {
        match self.peek() {
            Tok::Word(w) => {
                self.next();
                Ok(w)
            }
            _ => self.fail(format!("expected a name, found {}", self.shown())),
        }
    }

    pub(super) fn int(&mut self) -> R<u64> {
        match self.peek() {
            Tok::Int(v) => {
                self.next();
                Ok(v)
            }
            _ => self.fail(format!("expected a number, found {}", self.shown())),
        }
    }

    pub(super) fn small(&mut self) -> R<u32> {
        let v = self.int()?;
        u32::try_from(v).or_else(|_| self.fail(format!("{v} is too large here")))
    }

    fn module(&mut self) -> R<Module> {
        let mut m = Module::default();
        loop {
            match self.peek() {
                Tok::Eof => break,
                Tok::Punct(';') => {
                    self.next();
                }
                Tok::Word(".version") => {
                    self.next();
                    m.version = self.version()?;
                }
                Tok::Word(".target") => {
                    self.next();
                    m.target = self.word()?.to_string();
                    while self.eat(',') {
                        self.word()?;
                    }
                }
                Tok::Word(".address_size") => {
                    self.next();
                    if self.int()? != 64 {
                        return self.fail("only 64-bit addresses are supported");
                    }
                }
                Tok::Word(".file") => {
                    self.next();
                    let index = self.small()?;
                    if let Tok::Str(s) = self.peek() {
                        self.next();
                        m.files.push((index, s.to_string()));
                    }
                    while self.eat(',') {
                        self.int()?;
                    }
                }
                Tok::Word(".section") => self.section()?,
                Tok::Word(".pragma") => {
                    while !matches!(self.peek(), Tok::Punct(';') | Tok::Eof) {
                        self.next();
                    }
                }
                Tok::Word(".loc") => self.loc_directive()?,
                Tok::Word(".alias") => return self.fail(".alias is not supported"),
                Tok::Word(w) if w.starts_with('.') => self.declaration(&mut m)?,
                _ => return self.fail(format!("expected a directive, found {}", self.shown())),
            }
        }
        if m.version == (0, 0) {
            return Err(LoadError::at(1, "no .version: this is not PTX"));
        }
        if m.version.0 > 9 {
            return Err(LoadError::at(1, format!(".version {}.{} is newer than 9.x", m.version.0, m.version.1)));
        }
        if m.target.is_empty() {
            return Err(LoadError::at(1, "no .target"));
        }
        Ok(m)
    }

    fn version(&mut self) -> R<(u32, u32)> {
        match self.peek() {
            Tok::F64(bits) => {
                self.next();
                let v = f64::from_bits(bits);
                Ok((v as u32, ((v - v.trunc()) * 10.0).round() as u32))
            }
            Tok::Int(v) => {
                self.next();
                Ok((v as u32, 0))
            }
            _ => self.fail("expected a version"),
        }
    }

    /// Debug sections carry nothing that running needs.
    fn section(&mut self) -> R<()> {
        while !matches!(self.peek(), Tok::Punct('{') | Tok::Eof) {
            self.next();
        }
        let mut depth = 0;
        loop {
            match self.next() {
                Tok::Punct('{') => depth += 1,
                Tok::Punct('}') => depth -= 1,
                Tok::Eof => return self.fail("a .section that never ends"),
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    pub(super) fn loc_directive(&mut self) -> R<()> {
        self.next();
        let file = self.small()?;
        let line = self.small()?;
        self.small()?;
        self.loc = Some(Loc { file, line });
        // `, function_name label, inlined_at file line column` and offsets to labels: the innermost place is what we show.
        while self.eat(',') {
            match self.word()? {
                "function_name" => {
                    self.word()?;
                    if self.eat('+') {
                        self.int()?;
                    }
                }
                "inlined_at" => {
                    for _ in 0..3 {
                        self.small()?;
                    }
                }
                other => return self.fail(format!("unknown .loc attribute {other}")),
            }
        }
        Ok(())
    }

    /// A module-level variable or function, after its linking directives.
    fn declaration(&mut self, m: &mut Module) -> R<()> {
        let (mut external, mut visible) = (false, false);
        loop {
            match self.peek() {
                Tok::Word(".extern") => external = true,
                Tok::Word(".visible" | ".weak" | ".common") => visible = true,
                Tok::Word(".noreturn") => {}
                _ => break,
            }
            self.next();
        }
        match self.peek() {
            Tok::Word(".entry") => {
                self.next();
                let f = self.function(true)?;
                m.functions.push(f);
            }
            Tok::Word(".func") => {
                self.next();
                let f = self.function(false)?;
                m.functions.push(f);
            }
            Tok::Word(".global" | ".const" | ".shared" | ".tex") => {
                for mut v in self.variables()? {
                    v.external = external;
                    v.visible = visible;
                    m.vars.push(v);
                }
            }
            _ => return self.fail(format!("unknown directive {}", self.shown())),
        }
        Ok(())
    }

    /// `.space [.align n] [.ptr …] .type name[n] = {…}, name2…;`
    pub(super) fn variables(&mut self) -> R<Vec<Var>> {
        let space = self.space()?;
        let (ty, align) = self.var_type()?;
        let mut out = Vec::new();
        loop {
            let mut v = self.var_rest(space, ty, align)?;
            if self.eat('=') {
                self.initialiser(&mut v, 0)?;
            }
            if v.count == 0 && !v.init.is_empty() {
                v.count = v.init.len() as u64;
            }
            out.push(v);
            if !self.eat(',') {
                break;
            }
        }
        self.expect(';')?;
        Ok(out)
    }

    fn space(&mut self) -> R<Space> {
        let w = self.word()?;
        Ok(match w {
            ".global" => Space::Global,
            ".const" => Space::Const,
            ".shared" => Space::Shared,
            ".local" => Space::Local,
            ".param" => Space::Param,
            _ => return self.fail(format!("unknown state space {w}")),
        })
    }

    /// Attributes, vector width and element type; the vector width multiplies the alignment.
    fn var_type(&mut self) -> R<(Ty, u32)> {
        let (mut align, mut vector) = (0u32, 1u32);
        loop {
            let w = self.word()?;
            match w {
                ".align" => {
                    align = self.small()?;
                    if !align.is_power_of_two() || align > 1 << 20 {
                        return self.fail(format!("an alignment of {align}"));
                    }
                }
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                ".managed" | ".unified" => {}
                ".attribute" => {
                    self.expect('(')?;
                    while !self.eat(')') {
                        if self.next() == Tok::Eof {
                            return self.fail("an .attribute that never ends");
                        }
                    }
                }
                _ => {
                    let ty = w.strip_prefix('.').and_then(Ty::of);
                    let Some(ty) = ty else { return self.fail(format!("unknown type or attribute {w}")) };
                    if vector != 1 {
                        return self.fail("vector variables are not supported");
                    }
                    return Ok((ty, align.max(ty.bytes().max(1))));
                }
            }
        }
    }

    /// `.ptr .space .align n`: what a pointer parameter points to, which binds nobody.
    fn pointee(&mut self) -> R<()> {
        if self.peek() != Tok::Word(".ptr") {
            return Ok(());
        }
        self.next();
        loop {
            match self.peek() {
                Tok::Word(".global" | ".shared" | ".const" | ".local" | ".generic" | ".param") => {
                    self.next();
                }
                Tok::Word(".align") => {
                    self.next();
                    self.small()?;
                }
                _ => return Ok(()),
            }
        }
    }

    fn var_rest(&mut self, space: Space, ty: Ty, align: u32) -> R<Var> {
        let line = self.line();
        let name = self.word()?.to_string();
        let mut count = 1u64;
        while self.eat('[') {
            if self.eat(']') {
                count = 0;
                continue;
            }
            let n = self.int()?;
            count =
                count.checked_mul(n).filter(|c| *c <= 1 << 40).map_or_else(|| self.fail("an array too large"), Ok)?;
            self.expect(']')?;
        }
        Ok(Var {
            name,
            space,
            ty,
            count,
            align,
            init: Vec::new(),
            external: false,
            visible: false,
            register: false,
            line,
        })
    }

    fn initialiser(&mut self, v: &mut Var, depth: u32) -> R<()> {
        if depth > MAX_DEPTH {
            return self.fail("an initialiser nested too deep");
        }
        if self.eat('{') {
            if self.eat('}') {
                return Ok(());
            }
            loop {
                self.initialiser(v, depth + 1)?;
                if !self.eat(',') {
                    break;
                }
            }
            return self.expect('}');
        }
        let negative = self.eat('-');
        let init = match self.next() {
            Tok::Int(i) => Init::Bits(if negative { (i as i64).wrapping_neg() as u64 } else { i }),
            Tok::F32(b) => Init::Float(signed(f32::from_bits(b) as f64, negative)),
            Tok::F64(b) => Init::Float(signed(f64::from_bits(b), negative)),
            Tok::Word("generic") => {
                self.expect('(')?;
                let name = self.word()?.to_string();
                self.expect(')')?;
                Init::Address { name, offset: self.plus_offset()?, generic: true }
            }
            Tok::Word(w) => Init::Address { name: w.to_string(), offset: self.plus_offset()?, generic: false },
            _ => return self.fail("an initialiser that cannot be read"),
        };
        v.init.push(init);
        Ok(())
    }

    fn plus_offset(&mut self) -> R<i64> {
        if self.eat('+') {
            Ok(self.int()? as i64)
        } else if self.eat('-') {
            Ok((self.int()? as i64).wrapping_neg())
        } else {
            Ok(0)
        }
    }

    fn params(&mut self) -> R<Vec<Var>> {
        let mut out = Vec::new();
        if !self.eat('(') {
            return Ok(out);
        }
        if self.eat(')') {
            return Ok(out);
        }
        loop {
            // A device function may take registers.
            let register = self.peek() == Tok::Word(".reg");
            match self.peek() {
                Tok::Word(".param" | ".reg") => {
                    self.next();
                }
                _ => return self.fail(format!("expected .param, found {}", self.shown())),
            }
            let (ty, align) = self.var_type()?;
            self.pointee()?;
            out.push(Var { register, ..self.var_rest(Space::Param, ty, align)? });
            if !self.eat(',') {
                break;
            }
        }
        self.expect(')')?;
        Ok(out)
    }

    fn triple(&mut self) -> R<[u32; 3]> {
        let mut d = [1; 3];
        d[0] = self.small()?;
        for slot in &mut d[1..] {
            if !self.eat(',') {
                break;
            }
            *slot = self.small()?;
        }
        Ok(d)
    }

    fn function(&mut self, entry: bool) -> R<Function> {
        let line = self.line();
        if let Tok::Word(".attribute") = self.peek() {
            return self.fail("function attributes are not supported");
        }
        let returns = if entry { Vec::new() } else { self.params()? };
        let name = self.word()?.to_string();
        let mut f = Function {
            name,
            entry,
            returns,
            params: Vec::new(),
            body: None,
            reqntid: None,
            maxntid: None,
            minnctapersm: None,
            maxnreg: None,
            reqnctapercluster: None,
            line,
        };
        f.params = self.params().map_err(|e| e.within(&f.name))?;
        loop {
            match self.peek() {
                Tok::Punct(';') => {
                    self.next();
                    return Ok(f);
                }
                Tok::Punct('{') => break,
                Tok::Word(w) => {
                    self.next();
                    match w {
                        ".reqntid" => f.reqntid = Some(self.triple()?),
                        ".maxntid" => f.maxntid = Some(self.triple()?.iter().map(|d| *d as u64).product()),
                        ".minnctapersm" | ".maxnctapersm" => f.minnctapersm = Some(self.small()?),
                        ".maxnreg" => f.maxnreg = Some(self.small()?),
                        ".reqnctapercluster" => f.reqnctapercluster = Some(self.triple()?),
                        ".maxclusterrank" => {
                            self.small()?;
                        }
                        ".explicitcluster" | ".blocksareclusters" | ".noreturn" => {}
                        ".pragma" => {
                            while !matches!(self.peek(), Tok::Punct(';') | Tok::Eof) {
                                self.next();
                            }
                            self.expect(';')?;
                        }
                        _ => return self.fail(format!("unknown directive {w} of {}", f.name)),
                    }
                }
                _ => return self.fail(format!("expected a body, found {}", self.shown())),
            }
        }
        self.loc = None;
        f.body = Some(self.block().map_err(|e| e.within(&f.name))?);
        Ok(f)
    }
}

fn signed(v: f64, negative: bool) -> f64 {
    if negative { -v } else { v }
}
