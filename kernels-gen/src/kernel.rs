//! A call in the making: a template with its constants, pointers and parameters.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::call::{Call, Param, Source};
use crate::pointers::Pointers;
use crate::spec::Refusal;
use crate::templates;

/// What a template needs to become a call.
#[derive(Debug)]
pub struct Kernel {
    template: &'static str,
    /// What it does, for people: the first line of its text.
    what: String,
    pointers: Pointers,
    parameters: Vec<String>,
    params: Vec<Param>,
    constants: BTreeMap<&'static str, String>,
    lists: BTreeMap<&'static str, Vec<String>>,
}

/// The template's places.
#[derive(Serialize)]
struct Context {
    what: String,
    pointers: Vec<String>,
    parameters: String,
    #[serde(flatten)]
    constants: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    lists: BTreeMap<&'static str, Vec<String>>,
}

impl Kernel {
    /// Of the template `NAME.cu`.
    pub fn new(template: &'static str, what: impl Into<String>, pointers: Pointers) -> Kernel {
        Kernel {
            template,
            what: what.into(),
            pointers,
            parameters: Vec::new(),
            params: Vec::new(),
            constants: BTreeMap::new(),
            lists: BTreeMap::new(),
        }
    }

    /// A constant of the text.
    pub fn constant(mut self, name: &'static str, value: impl ToString) -> Kernel {
        self.constants.insert(name, value.to_string());
        self
    }

    /// Numbers or statements that the text is repeated for.
    pub fn list(mut self, name: &'static str, values: impl IntoIterator<Item = impl ToString>) -> Kernel {
        self.lists.insert(name, values.into_iter().map(|value| value.to_string()).collect());
        self
    }

    /// A parameter, as it is declared.
    pub fn param(mut self, declaration: &str, param: Param) -> Kernel {
        self.parameters.push(declaration.to_string());
        self.params.push(param);
        self
    }

    /// A 32-bit parameter.
    pub fn size(self, name: &str, value: usize) -> Result<Kernel, Refusal> {
        let value = u32::try_from(value).map_err(|_| Refusal(format!("{name} = {value} exceeds 32 bits")))?;
        Ok(self.param(&format!("const u32 {name}"), Param::U32(value)))
    }

    /// A parameter of the template's type `Index`, which is u32 or u64.
    pub fn index(self, name: &str, value: usize, index: &'static str) -> Result<Kernel, Refusal> {
        match index {
            "u32" => self.size(name, value),
            _ => Ok(self.param(&format!("const u64 {name}"), Param::U64(value as u64))),
        }
    }

    /// The call, with that many blocks for each instance.
    pub fn call(self, blocks: usize, threads: usize) -> Result<Call, Refusal> {
        let blocks = u32::try_from(blocks).ok().filter(|&blocks| blocks < 1 << 31);
        let blocks = blocks.ok_or_else(|| Refusal(format!("{}: more than 2^31 blocks", self.what)))?;
        let instances = self.pointers.instances() as u32;
        let mut parameters = vec![self.pointers.parameters()];
        parameters.extend(self.parameters);
        let mut constants = self.constants;
        constants.insert("threads", threads.to_string());
        let context = Context {
            what: self.what,
            pointers: self.pointers.fields(),
            parameters: parameters.join(", "),
            constants,
            lists: self.lists,
        };
        let text = templates::render(&format!("{}.cu", self.template), &context)?;
        let mut params = self.pointers.params();
        params.extend(self.params);
        Ok(Call {
            source: Arc::new(Source::new(self.template, &text)),
            grid: [blocks, instances, 1],
            block: threads as u32,
            shared: 0,
            params,
        })
    }
}

/// The type of numbers of so many things.
pub fn index(count: usize) -> &'static str {
    if count < 1 << 31 { "u32" } else { "u64" }
}
