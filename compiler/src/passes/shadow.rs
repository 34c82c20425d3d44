//! Casts a parameter of the model once per update, not once per micro-step.
//!
//! ```text
//! func f0 "block" (v0 "w": f32[dim])                      slot s1 "w#bf16" shadow(s0) bf16[dim]
//!   v1: bf16[dim] = cast v0                               func f0 "block" (v0 "w#bf16": bf16[dim])
//!   …                                                 →     …
//! entry micro_step = f0(s0)                               entry micro_step = f0(s1)
//! entry update = f1(s0) -> (s0)                           entry update = f1(s0) -> (s0, s1)
//!                                                         entry refresh = f2(s0) -> (s1)
//! ```
//!
//! In what `micro_step`, `evaluate` and `decode` run, a cast from f32 to bf16 or f16 of a function's parameter that has
//! feature axes only moves to the callers, as far up as the value is a parameter there; the wide parameter goes where
//! nothing else reads it. A cast that so arrives at a slot of the model's parameters becomes a shadow slot, which
//! whoever writes the parameter writes too, and which `refresh` remakes.
//!
//! A function that other entries reach as well keeps its old version beside the new one, and so does a hand-written
//! gradient; a function whose parameters changed has its hand-written gradient no more, so this runs after autodiff. The
//! bodies of fused calls are left alone: their kernels cast as they read. Every value that anybody sees is kept to the
//! bit. Functions that nothing runs any more are left to dce.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cranelift_entity::SecondaryMap;
use cranelift_entity::packed_option::PackedOption;

use crate::ir::{
    DType, DimRole, Entry, EntryKey, EntryKind, Func, Graph, Input, Module, NodeData, Op, Output, Slot, SlotData,
    SlotRole, Type, Value, ValueDef,
};

/// Moves casts of parameters into shadow slots and gives the number of casts that left their functions.
pub fn run(m: &mut Module) -> Result<usize, String> {
    let uses = Uses::of(m);
    let mut versions: SecondaryMap<Func, Option<Version>> = SecondaryMap::new();
    let mut moved = 0;
    for func in m.funcs.keys().collect::<Vec<_>>() {
        if !uses.called_in_step[func] || uses.is_fused[func] {
            continue;
        }
        let wanted = Wanted::of(m, &versions, func, |_, _| true);
        if wanted.is_nothing() {
            continue;
        }
        moved += wanted.casts;
        let graph = wanted.rebuild(m, &versions, func);
        let new = replace(m, func, graph, !uses.is_pinned[func]);
        versions[func] = Some(Version { func: new, params: wanted.params.into_iter().collect() });
    }
    let mut shadows = Shadows::of(m);
    for key in m.entries.keys().copied().filter(|key| is_step(key.kind)).collect::<Vec<_>>() {
        moved += shadows.read(m, &versions, key);
    }
    shadows.write(m);
    shadows.refresh(m);
    Ok(moved)
}

/// Entries that run many times between two updates, or without any.
fn is_step(kind: EntryKind) -> bool {
    match kind {
        EntryKind::MicroStep | EntryKind::Evaluate | EntryKind::Decode => true,
        EntryKind::Init | EntryKind::Refresh | EntryKind::Update => false,
    }
}

/// Who runs each function.
struct Uses {
    /// Something that a step entry reaches calls it.
    called_in_step: SecondaryMap<Func, bool>,
    /// Its signature must stay: an entry is bound to it, something that other entries or none reach calls it, or it is
    /// a hand-written gradient.
    is_pinned: SecondaryMap<Func, bool>,
    /// A fused kernel stands for it.
    is_fused: SecondaryMap<Func, bool>,
}

impl Uses {
    fn of(m: &Module) -> Uses {
        let mut uses =
            Uses { called_in_step: SecondaryMap::new(), is_pinned: SecondaryMap::new(), is_fused: SecondaryMap::new() };
        let (mut in_step, mut elsewhere) = (SecondaryMap::<Func, bool>::new(), SecondaryMap::<Func, bool>::new());
        for entry in m.entries.values() {
            uses.is_pinned[entry.func] = true;
            let reached = if is_step(entry.key.kind) { &mut in_step } else { &mut elsewhere };
            reached[entry.func] = true;
        }
        // Callers stand after what they call.
        for func in m.funcs.keys().rev() {
            elsewhere[func] |= !in_step[func];
            if let Some(gradient) = m.funcs[func].gradient {
                uses.is_pinned[gradient] = true;
                elsewhere[gradient] = true;
            }
            for node in m.funcs[func].nodes.values() {
                if let Op::Call { func: callee, kind } = node.op {
                    uses.is_fused[callee] |= kind.is_fused();
                    uses.called_in_step[callee] |= in_step[func];
                    uses.is_pinned[callee] |= elsewhere[func];
                    in_step[callee] |= in_step[func];
                    elsewhere[callee] |= elsewhere[func];
                }
            }
        }
        uses
    }
}

/// Whether an entry's function may change with the entry: nothing else runs it.
fn runs_alone(m: &Module, func: Func) -> bool {
    let entries = m.entries.values().filter(|e| e.func == func).count();
    entries == 1 && m.funcs.values().all(|g| g.gradient != Some(func) && !g.callees().contains(&func))
}

/// Puts a new version of a function in its place where that is allowed, else at the end of the module.
fn replace(m: &mut Module, func: Func, graph: Graph, in_place: bool) -> Func {
    if in_place && graph.callees().iter().all(|&callee| callee < func) {
        m.funcs[func] = graph;
        func
    } else {
        m.funcs.push(graph)
    }
}

/// A parameter of a function's new version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Param {
    /// Position of the parameter of the old version that it comes from.
    old: usize,
    /// The dtype that it is cast to; none where it is what it was.
    cast: Option<DType>,
}

/// A function that has taken the place of another in what the step entries run.
#[derive(Clone)]
struct Version {
    func: Func,
    params: Vec<Param>,
}

/// The operand and the dtype of a cast that loses digits and leaves the axes as they are.
fn narrowing(g: &Graph, node: &NodeData) -> Option<(Value, DType)> {
    let (&[x], &[y], Op::Cast) = (&node.args[..], &node.results[..], &node.op) else { return None };
    let (from, to) = (g.ty(x), g.ty(y));
    let is_narrow = from.dtype == DType::F32 && matches!(to.dtype, DType::BF16 | DType::F16);
    (is_narrow && from.dims == to.dims).then_some((x, to.dtype))
}

/// What a function's new version needs from its callers.
struct Wanted {
    /// In order.
    params: BTreeSet<Param>,
    /// Casts that leave the function.
    casts: usize,
    /// Whether it calls a new version of another function.
    calls: bool,
}

impl Wanted {
    /// `may` says of which parameters, by position, casts to a dtype may leave.
    fn of(
        m: &Module,
        versions: &SecondaryMap<Func, Option<Version>>,
        func: Func,
        may: impl Fn(usize, DType) -> bool,
    ) -> Wanted {
        let g = &m.funcs[func];
        let mut wanted = Wanted { params: BTreeSet::new(), casts: 0, calls: false };
        let is_weight = |ty: &Type| ty.dims.iter().all(|&d| m.dims.role(d) == DimRole::Feature);
        // The parameter of the new version that stands for a value cast to a dtype, if there may be one.
        let leaves = |v: Value, dtype: DType| match g.values[v].def {
            ValueDef::Param(old) if is_weight(g.ty(v)) && may(old, dtype) => Some(Param { old, cast: Some(dtype) }),
            _ => None,
        };
        for node in g.nodes.values() {
            if let Some(param) = narrowing(g, node).and_then(|(x, dtype)| leaves(x, dtype)) {
                wanted.params.insert(param);
                wanted.casts += 1;
            } else if let Some(version) = version(versions, &node.op) {
                wanted.calls = true;
                for param in &version.params {
                    let arg = node.args[param.old];
                    match param.cast.and_then(|dtype| leaves(arg, dtype)) {
                        Some(param) => drop(wanted.params.insert(param)),
                        None => wanted.read(g, arg),
                    }
                }
            } else {
                node.args.iter().for_each(|&v| wanted.read(g, v));
            }
        }
        g.results.iter().for_each(|&v| wanted.read(g, v));
        // What nothing read before stays: only what a narrow parameter stands for may go.
        let mut stays = vec![true; g.params.len()];
        wanted.params.iter().for_each(|p| stays[p.old] = false);
        wanted.params.extend((0..stays.len()).filter(|&old| stays[old]).map(|old| Param { old, cast: None }));
        wanted
    }

    fn read(&mut self, g: &Graph, value: Value) {
        if let ValueDef::Param(old) = g.values[value].def {
            self.params.insert(Param { old, cast: None });
        }
    }

    fn is_nothing(&self) -> bool {
        self.casts == 0 && !self.calls
    }

    /// The new version of `func`.
    fn rebuild(&self, m: &Module, versions: &SecondaryMap<Func, Option<Version>>, func: Func) -> Graph {
        let old = &m.funcs[func];
        let mut new = Graph::new(old.name.clone());
        let mut map: SecondaryMap<Value, PackedOption<Value>> = SecondaryMap::new();
        // Casts of old values that stand in the new graph, as parameters or nodes.
        let mut casts: HashMap<(Value, DType), Value> = HashMap::new();
        for param in &self.params {
            let value = old.params[param.old];
            let (name, ty) = (&old.param_names[param.old], old.ty(value));
            match param.cast {
                None => map[value] = new.param(name.clone(), ty.clone()).into(),
                Some(dtype) => {
                    let narrow = new.param(narrow_name(name, dtype), ty.with_dtype(dtype));
                    casts.insert((value, dtype), narrow);
                }
            }
        }
        if self.params.iter().all(|p| p.cast.is_none()) {
            new.gradient = old.gradient;
        }
        for node in old.nodes.values() {
            let narrow = narrowing(old, node);
            if let Some(&cast) = narrow.and_then(|key| casts.get(&key)) {
                map[node.results[0]] = cast.into();
                continue;
            }
            let (op, args) = match version(versions, &node.op) {
                None => (node.op.clone(), node.args.iter().map(|&v| get(&map, v)).collect()),
                Some(version) => {
                    let mut args = Vec::with_capacity(version.params.len());
                    for param in &version.params {
                        let arg = node.args[param.old];
                        args.push(match param.cast {
                            None => get(&map, arg),
                            Some(dtype) => *casts.entry((arg, dtype)).or_insert_with(|| {
                                let ty = old.ty(arg).with_dtype(dtype);
                                new.push1(Op::Cast, vec![get(&map, arg)], ty, node.loc)
                            }),
                        });
                    }
                    (with_callee(&node.op, version.func), args)
                }
            };
            let types = node.results.iter().map(|&v| old.ty(v).clone()).collect();
            let made = new.push(op, args, types, node.loc);
            for (&from, &to) in node.results.iter().zip(&new.nodes[made].results) {
                map[from] = to.into();
            }
            if let Some(key) = narrow {
                casts.insert(key, new.nodes[made].results[0]);
            }
        }
        for (&value, name) in old.results.iter().zip(&old.result_names) {
            new.result(name.clone(), get(&map, value));
        }
        new
    }
}

fn get(map: &SecondaryMap<Value, PackedOption<Value>>, old: Value) -> Value {
    map[old].expect("what is read stays")
}

/// The version that a call must run now, if it is a call of a function that has one.
fn version<'a>(versions: &'a SecondaryMap<Func, Option<Version>>, op: &Op) -> Option<&'a Version> {
    match op {
        Op::Call { func, .. } => versions[*func].as_ref(),
        _ => None,
    }
}

fn with_callee(op: &Op, callee: Func) -> Op {
    match op {
        Op::Call { kind, .. } => Op::Call { func: callee, kind: *kind },
        op => op.clone(),
    }
}

fn narrow_name(name: &str, dtype: DType) -> String {
    if name.is_empty() { String::new() } else { format!("{name}#{dtype}") }
}

/// The shadow slots of a module.
struct Shadows {
    /// By parameter and dtype.
    slots: BTreeMap<(Slot, DType), Slot>,
}

impl Shadows {
    /// Those that exist.
    fn of(m: &Module) -> Shadows {
        let of = |(id, slot): (Slot, &SlotData)| match slot.role {
            SlotRole::Shadow(param) => Some(((param, slot.ty.dtype), id)),
            _ => None,
        };
        Shadows { slots: m.slots.iter().filter_map(of).collect() }
    }

    /// The shadow of a parameter, which is made where it is missing.
    fn slot(&mut self, m: &mut Module, param: Slot, dtype: DType) -> Slot {
        *self.slots.entry((param, dtype)).or_insert_with(|| {
            let of = &m.slots[param];
            let (name, ty, loc) = (format!("{}#{dtype}", of.name), of.ty.with_dtype(dtype), of.loc);
            m.slots.push(SlotData { name, role: SlotRole::Shadow(param), ty, loc })
        })
    }

    /// Lets a step entry read shadows where it would cast parameters. Gives the number of casts that left its function.
    fn read(&mut self, m: &mut Module, versions: &SecondaryMap<Func, Option<Version>>, key: EntryKey) -> usize {
        let entry = &m.entries[&key];
        // A slot is read once: a shadow that the entry reads already must not come a second time.
        let may = |i: usize, dtype: DType| match entry.inputs[i] {
            Input::Slot(s) if m.slots[s].role == SlotRole::Param => {
                self.slots.get(&(s, dtype)).is_none_or(|&shadow| !entry.inputs.contains(&Input::Slot(shadow)))
            }
            _ => false,
        };
        let (func, old_inputs) = (entry.func, entry.inputs.clone());
        let wanted = Wanted::of(m, versions, func, may);
        if wanted.is_nothing() {
            return 0;
        }
        let graph = wanted.rebuild(m, versions, func);
        let alone = runs_alone(m, func);
        let func = replace(m, func, graph, alone);
        let mut inputs = Vec::with_capacity(wanted.params.len());
        for param in &wanted.params {
            inputs.push(match (&old_inputs[param.old], param.cast) {
                (Input::Slot(slot), Some(dtype)) => Input::Slot(self.slot(m, *slot, dtype)),
                (input, _) => input.clone(),
            });
        }
        if let Some(entry) = m.entries.get_mut(&key) {
            (entry.func, entry.inputs) = (func, inputs);
        }
        wanted.casts
    }

    /// Lets every entry that writes a parameter write its shadows. What it writes has the parameter's own dtype: the
    /// shadow is made from the rounded value, as `refresh` will.
    fn write(&self, m: &mut Module) {
        for key in m.entries.keys().copied().collect::<Vec<_>>() {
            let mut bound = Bound::of(m, key);
            for (&(param, _), &shadow) in &self.slots {
                if let Some(i) = bound.entry.outputs.iter().position(|o| *o == Output::Slot(param)) {
                    bound.cast(m, bound.graph.results[i], shadow);
                }
            }
            bound.finish(m);
        }
    }

    /// Lets every `refresh` remake all shadows. There is one if there is a shadow.
    fn refresh(&self, m: &mut Module) {
        let is_refresh = |key: &EntryKey| key.kind == EntryKind::Refresh;
        if !self.slots.is_empty() && !m.entries.keys().any(is_refresh) {
            let key = EntryKey::from(EntryKind::Refresh);
            let func = m.funcs.push(Graph::new(key.kind.name()));
            m.entries.insert(key, Entry { key, func, inputs: vec![], outputs: vec![] });
        }
        for key in m.entries.keys().copied().filter(is_refresh).collect::<Vec<_>>() {
            let mut bound = Bound::of(m, key);
            for (&(param, _), &shadow) in &self.slots {
                let value = bound.slot(m, param);
                bound.cast(m, value, shadow);
            }
            bound.finish(m);
        }
    }
}

/// An entry with its function, while shadows are added to what it writes.
struct Bound {
    entry: Entry,
    graph: Graph,
    has_changed: bool,
}

impl Bound {
    fn of(m: &Module, key: EntryKey) -> Bound {
        let entry = m.entries[&key].clone();
        let graph = m.funcs[entry.func].clone();
        Bound { entry, graph, has_changed: false }
    }

    /// The value of a slot at the start of the entry.
    fn slot(&mut self, m: &Module, slot: Slot) -> Value {
        let read = self.entry.inputs.iter().position(|input| *input == Input::Slot(slot));
        read.map(|i| self.graph.params[i]).unwrap_or_else(|| {
            self.entry.inputs.push(Input::Slot(slot));
            self.graph.param(m.slots[slot].name.clone(), m.slots[slot].ty.clone())
        })
    }

    /// Writes a parameter's value to a shadow of it, unless something is written there.
    fn cast(&mut self, m: &Module, value: Value, shadow: Slot) {
        if self.entry.outputs.contains(&Output::Slot(shadow)) {
            return;
        }
        let SlotData { name, ty, .. } = &m.slots[shadow];
        let cast = self.graph.push1(Op::Cast, vec![value], ty.clone(), None);
        self.graph.result(name.clone(), cast);
        self.graph.gradient = None;
        self.entry.outputs.push(Output::Slot(shadow));
        self.has_changed = true;
    }

    fn finish(self, m: &mut Module) {
        if self.has_changed {
            let alone = runs_alone(m, self.entry.func);
            let func = replace(m, self.entry.func, self.graph, alone);
            m.entries.insert(self.entry.key, Entry { func, ..self.entry });
        }
    }
}
