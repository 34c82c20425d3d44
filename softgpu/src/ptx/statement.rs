//! The reader of bodies: declarations, labels, scopes and instructions.

use super::ast::*;
use super::lexer::Tok;
use super::parse::{MAX_DEPTH, Parser, R};

impl Parser<'_> {
    /// `{ … }`.
    pub(super) fn block(&mut self) -> R<Vec<Stmt>> {
        self.expect('{')?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail("scopes nested too deep");
        }
        let mut out = Vec::new();
        loop {
            match self.peek() {
                Tok::Punct('}') => {
                    self.next();
                    break;
                }
                Tok::Punct('{') => out.push(Stmt::Block(self.block()?)),
                Tok::Punct(';') => {
                    self.next();
                }
                Tok::Word(".loc") => self.loc_directive()?,
                Tok::Word(".pragma") => {
                    while !matches!(self.peek(), Tok::Punct(';') | Tok::Eof) {
                        self.next();
                    }
                    self.expect(';')?;
                }
                Tok::Word(".reg") => out.push(self.registers()?),
                Tok::Word(".local" | ".shared" | ".param" | ".global" | ".const") => {
                    out.extend(self.variables()?.into_iter().map(Stmt::Var));
                }
                Tok::Word(name) if self.peek2() == Tok::Punct(':') => {
                    let line = self.line();
                    self.next();
                    self.next();
                    out.push(self.labelled(name, line)?);
                }
                Tok::Word(w) if w.starts_with('.') => return self.fail(format!("unknown directive {w}")),
                Tok::Word(_) | Tok::Punct('@') => out.push(Stmt::Instr(self.instruction()?)),
                _ => return self.fail(format!("expected a statement, found {}", self.shown())),
            }
        }
        self.depth -= 1;
        Ok(out)
    }

    fn labelled(&mut self, name: &str, line: u32) -> R<Stmt> {
        match self.peek() {
            Tok::Word(".branchtargets") => {
                self.next();
                let mut targets = vec![self.word()?.to_string()];
                while self.eat(',') {
                    targets.push(self.word()?.to_string());
                }
                self.expect(';')?;
                Ok(Stmt::Targets(name.to_string(), targets))
            }
            Tok::Word(".callprototype" | ".calltargets") => self.fail("indirect calls are not supported"),
            _ => Ok(Stmt::Label(name.to_string(), line)),
        }
    }

    fn registers(&mut self) -> R<Stmt> {
        let line = self.line();
        self.next();
        let w = self.word()?;
        let Some(ty) = w.strip_prefix('.').and_then(Ty::of) else {
            return self.fail(format!("unknown register type {w}"));
        };
        let mut names = Vec::new();
        loop {
            let name = self.word()?.to_string();
            let count = if self.eat('<') {
                let n = self.small()?;
                if n > 1 << 20 {
                    return self.fail(format!("{n} registers"));
                }
                self.expect('>')?;
                Some(n)
            } else {
                None
            };
            names.push((name, count));
            if !self.eat(',') {
                break;
            }
        }
        self.expect(';')?;
        Ok(Stmt::Reg { ty, names, line })
    }

    fn instruction(&mut self) -> R<Instr> {
        let line = self.line();
        let guard = if self.eat('@') {
            let negated = self.eat('!');
            Some(Guard { name: self.word()?.to_string(), negated })
        } else {
            None
        };
        let opcode = self.word()?;
        let mut parts = opcode.split('.');
        let name = parts.next().unwrap_or_default().to_string();
        let mods: Vec<String> = parts.map(str::to_string).collect();
        if name.is_empty() || mods.iter().any(String::is_empty) {
            return self.fail(format!("expected an instruction, found {opcode}"));
        }
        let mut operands = Vec::new();
        if !self.eat(';') {
            loop {
                operands.push(self.operand(0)?);
                if !self.eat(',') {
                    break;
                }
            }
            self.expect(';')?;
        }
        Ok(Instr { guard, name, mods, operands, line, loc: self.loc })
    }

    fn operand(&mut self, depth: u32) -> R<Operand> {
        if depth > MAX_DEPTH {
            return self.fail("operands nested too deep");
        }
        let first = match self.peek() {
            Tok::Punct('{') => Operand::Vector(self.group('{', '}', depth)?),
            Tok::Punct('(') => Operand::List(self.group('(', ')', depth)?),
            Tok::Punct('[') => self.address(depth)?,
            Tok::Punct('!') => {
                self.next();
                Operand::Not(Box::new(self.operand(depth + 1)?))
            }
            Tok::Punct('-' | '+') => {
                let negative = self.peek() == Tok::Punct('-');
                self.next();
                match self.next() {
                    Tok::Int(v) => Operand::Int(if negative { -(v as i128) } else { v as i128 }),
                    Tok::F32(b) => Operand::F32(if negative { b ^ 0x8000_0000 } else { b }),
                    Tok::F64(b) => Operand::F64(if negative { b ^ (1 << 63) } else { b }),
                    _ => return self.fail("expected a number after the sign"),
                }
            }
            Tok::Int(v) => {
                self.next();
                Operand::Int(v as i128)
            }
            Tok::F32(b) => {
                self.next();
                Operand::F32(b)
            }
            Tok::F64(b) => {
                self.next();
                Operand::F64(b)
            }
            Tok::Word("_") => {
                self.next();
                Operand::Sink
            }
            Tok::Word(w) => {
                self.next();
                if matches!(self.peek(), Tok::Punct('+' | '-')) {
                    Operand::Offset(w.to_string(), self.offset()?)
                } else {
                    Operand::Name(w.to_string())
                }
            }
            _ => return self.fail(format!("expected an operand, found {}", self.shown())),
        };
        if self.eat('|') {
            let second = self.operand(depth + 1)?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    fn group(&mut self, open: char, close: char, depth: u32) -> R<Vec<Operand>> {
        self.expect(open)?;
        let mut out = Vec::new();
        if self.eat(close) {
            return Ok(out);
        }
        loop {
            out.push(self.operand(depth + 1)?);
            if !self.eat(',') {
                break;
            }
        }
        self.expect(close)?;
        Ok(out)
    }

    /// `+4`, `-8`, `+-8`, repeated.
    fn offset(&mut self) -> R<i64> {
        let mut total = 0i64;
        loop {
            let sign = match self.peek() {
                Tok::Punct('+') => 1i64,
                Tok::Punct('-') => -1,
                _ => return Ok(total),
            };
            self.next();
            let sign = if self.eat('-') { -sign } else { sign };
            total = total.wrapping_add(sign.wrapping_mul(self.int()? as i64));
        }
    }

    fn address(&mut self, depth: u32) -> R<Operand> {
        self.expect('[')?;
        let (base, offset) = match self.peek() {
            Tok::Word(w) => {
                self.next();
                (Some(w.to_string()), self.offset()?)
            }
            Tok::Int(v) => {
                self.next();
                (None, (v as i64).wrapping_add(self.offset()?))
            }
            _ => return self.fail(format!("expected an address, found {}", self.shown())),
        };
        let mut rest = Vec::new();
        while self.eat(',') {
            rest.push(self.operand(depth + 1)?);
        }
        self.expect(']')?;
        Ok(Operand::Address { base, offset, rest })
    }
}
