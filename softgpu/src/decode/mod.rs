//! From the syntax tree of a module to its decoded form: everything that can be decided before a launch is decided here.

mod arith;
mod asynchronous;
mod builder;
mod carry;
mod control;
mod convert;
mod float;
mod flow;

mod kernel;
mod logic;
mod memory;
mod place;
mod special;
pub mod table;
mod tensor;
mod warp;

use std::collections::HashMap;

use crate::error::LoadError;
use crate::num;
use crate::program::{Global, Program, capability};
use crate::ptx::ast::*;

/// Most bytes of one variable of a module.
const MAX_VARIABLE: u64 = 1 << 32;

/// Decodes a module.
pub fn decode(module: &Module) -> Result<Program, LoadError> {
    if capability(&module.target).is_none() {
        return Err(LoadError::at(1, format!("unknown .target {}", module.target)));
    }
    let mut names = HashMap::new();
    for (i, v) in module.vars.iter().enumerate() {
        names.insert(v.name.as_str(), i as u32);
    }
    let mut globals = Vec::with_capacity(module.vars.len());
    for v in &module.vars {
        globals.push(global(module, v, &names)?);
    }
    let mut kernels = Vec::new();
    for f in module.functions.iter().filter(|f| f.entry && f.body.is_some()) {
        kernels.push(kernel::decode(module, f, &names).map_err(|e| e.within(&f.name))?);
    }
    // Functions that no kernel calls are decoded too, so that what they hold is known or refused at load.
    for f in module.functions.iter().filter(|f| !f.entry && f.body.is_some()) {
        kernel::check_function(module, f, &names).map_err(|e| e.within(&f.name))?;
    }
    Ok(Program {
        target: module.target.clone(),
        version: module.version,
        kernels,
        globals,
        files: module.files.clone(),
    })
}

/// A variable with the bytes of its initialiser. Shared ones keep their place in the numbering but hold nothing.
fn global(module: &Module, v: &Var, names: &HashMap<&str, u32>) -> Result<Global, LoadError> {
    let mut g = Global {
        name: v.name.clone(),
        bytes: Vec::new(),
        align: v.align,
        relocs: Vec::new(),
        constant: v.space == Space::Const,
    };
    if v.space == Space::Shared {
        return Ok(g);
    }
    let defined = !v.external || module.vars.iter().any(|w| w.name == v.name && !w.external);
    if !defined {
        return Err(LoadError::at(v.line, format!("{} is declared here and defined nowhere", v.name)));
    }
    let size = v.bytes();
    if size > MAX_VARIABLE {
        return Err(LoadError::at(v.line, format!("{} is too large: {size} bytes", v.name)));
    }
    let element = v.ty.bytes() as usize;
    if v.init.len() as u64 > v.count || (element == 0 && v.count != 0) {
        return Err(LoadError::at(v.line, format!("{} has more initial values than elements", v.name)));
    }
    g.bytes = vec![0; size as usize];
    for (i, init) in v.init.iter().enumerate() {
        let at = i * element;
        let bits = match init {
            Init::Bits(b) => match v.ty {
                Ty::F32 => (*b as i64 as f32).to_bits() as u64,
                Ty::F64 => (*b as i64 as f64).to_bits(),
                _ => *b,
            },
            Init::Float(f) => match v.ty {
                Ty::F64 => f.to_bits(),
                Ty::F16 => num::f16_from_f32(*f as f32) as u64,
                Ty::BF16 => num::bf16_from_f32(*f as f32) as u64,
                _ => (*f as f32).to_bits() as u64,
            },
            Init::Address { name, offset, .. } => {
                let Some(target) = names.get(name.as_str()) else {
                    return Err(LoadError::at(v.line, format!("{}: unknown name {name} in its initialiser", v.name)));
                };
                if element != 8 {
                    return Err(LoadError::at(v.line, format!("{}: an address needs 64 bits", v.name)));
                }
                g.relocs.push((at as u32, *target, *offset));
                0
            }
        };
        g.bytes[at..at + element.min(8)].copy_from_slice(&bits.to_le_bytes()[..element.min(8)]);
    }
    Ok(g)
}
