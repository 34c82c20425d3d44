//! Folds of row programs: over rows by a team, over the whole space and its columns by the last block that finishes.

use mngc_compiler::ir::ReduceKind;
use mngc_compiler::schedule::rows::{Instr, Kind, Reg, Src};

use super::shape::Shape;
use crate::long::Pass;
use crate::program::{self, Emit, Rows};
use crate::spec::{Operand, Refusal, Spec};

/// What the folds of a kernel need around its loop.
pub(crate) struct Folds<'a> {
    shape: Shape,
    /// Statements before and after the loop.
    pub before: String,
    pub after: String,
    /// Tables in front of the kernel.
    pub tables: Vec<String>,
    /// Bytes of workspace for one block and instance.
    pub partial: Vec<usize>,
    /// Bytes of dynamic shared memory that columns need.
    pub columns: usize,
    /// Bytes that rows shorter than those of a team need.
    pub short_rows: usize,
    /// Angles that threads have sines and cosines of.
    angles: Vec<String>,
    results: &'a [Operand],
    elements: usize,
    /// Which way through rows that are longer than a block holds; none where it holds them.
    pub pass: Option<Pass>,
}

impl<'a> Folds<'a> {
    /// Nothing yet.
    pub fn new(shape: Shape, spec: &'a Spec, elements: usize) -> Folds<'a> {
        Folds {
            shape,
            before: String::new(),
            after: String::new(),
            tables: Vec::new(),
            partial: Vec::new(),
            columns: 0,
            short_rows: 0,
            angles: Vec::new(),
            results: &spec.results,
            elements,
            pass: None,
        }
    }
}

impl Folds<'_> {
    /// The fold of each row of `len` of an expression of elements, finished; one number where that is the team's row.
    fn row(&mut self, emit: &mut Emit, kind: ReduceKind, of: Kind, len: usize, element: &str) -> (String, bool) {
        let (class, neutral) = program::fold(kind, of);
        let ty = program::folding(kind, of);
        let element = program::folded(kind, element);
        if let Some(pass) = &mut self.pass {
            let name = format!("fold{}", pass.next);
            if pass.next == pass.number {
                emit.each(format!("if (local(at, e, lane) < LEN) {name} = {class}::of({name}, {element});"));
                let total = program::finished(kind, &format!("team_fold<{class}, TEAM>({name})"), &len.to_string());
                pass.made = Some((format!("{ty} {name} = {neutral};"), format!("{name} = {total};")));
            }
            pass.next += 1;
            // What comes after a fold that is not there yet is of no use in this pass.
            return (if pass.next > pass.number + 1 { neutral } else { name }, true);
        }
        let is_whole = len == self.shape.len;
        if is_whole {
            let name = emit.name();
            emit.line(&format!("{ty} {name} = {neutral};"));
            let live = emit.space.live.as_ref().map(|live| format!("if ({live}) ")).unwrap_or_default();
            emit.each(format!("{live}{name} = {class}::of({name}, {element});"));
            let total = emit.name();
            let fold = format!("team_fold<{class}, TEAM>({name})");
            let done = program::finished(kind, &fold, &len.to_string());
            emit.line(&format!("const {} {total} = {done};", program::register(of)));
            return (total, true);
        }
        // Rows shorter than the team's: through shared memory, each folded by one thread.
        self.keep_short_rows();
        let live = emit.space.live.as_ref().map(|live| format!("if ({live}) ")).unwrap_or_default();
        let count = self.shape.len / len;
        let total = emit.fresh_array(of);
        emit.line("team_sync<TEAM>();");
        emit.line(&format!("{ty}* const in_{total} = ({ty}*)((char*)shared + threadIdx.x / TEAM * (16 * LEN));"));
        emit.each(format!("{live}in_{total}[local(e, lane)] = {element};"));
        emit.line("team_sync<TEAM>();");
        emit.line(&format!("for (int i = lane; i < {count}; i += TEAM) {{"));
        emit.line(&format!("  {ty} x = {neutral};"));
        emit.line(&format!("  for (int k = 0; k < {len}; ++k) x = {class}::of(x, in_{total}[i * {len} + k]);"));
        emit.line(&format!("  in_{total}[LEN + i] = {};", program::finished(kind, "x", &len.to_string())));
        emit.line("}");
        emit.line("team_sync<TEAM>();");
        emit.each(format!("{live}{total}[e] = in_{total}[LEN + local(e, lane) / {len}];"));
        emit.line("");
        (format!("{total}[e]"), false)
    }

    /// Room for two values of 8 bytes for each element of the block: whatever is folded, a team has the same bytes, as teams
    /// do not wait for each other.
    fn keep_short_rows(&mut self) {
        self.short_rows = 2 * self.shape.teams() * self.shape.len * 8;
    }

    /// An array that an expression gives element by element.
    fn made(&mut self, emit: &mut Emit, expression: &str) -> (String, bool) {
        let name = emit.fresh_array(Kind::F32);
        emit.each(format!("{name}[e] = {expression};"));
        (name, false)
    }

    /// 1 / sqrt(mean + eps), where `mean` is one for the row or that of element `e`.
    fn inverse_root(&mut self, emit: &mut Emit, mean: &str, eps: f64) -> String {
        let expression = format!("1.0f / sqrtf({mean} + {})", program::float(eps));
        if mean.ends_with("[e]") {
            return format!("{}[e]", self.made(emit, &expression).0);
        }
        if self.pass.is_some() {
            // A fold of the pass before; what is made in the loop over a row does not outlive it.
            return format!("({expression})");
        }
        let name = emit.name();
        emit.line(&format!("const float {name} = {expression};"));
        name
    }

    fn softmax(&mut self, emit: &mut Emit, a: Reg, len: usize) -> Result<(String, bool), Refusal> {
        let (a, _) = emit.reg(a)?;
        let (top, _) = self.row(emit, ReduceKind::Max, Kind::F32, len, &a);
        // A row of −∞ only gives zeros.
        let (power, _) = self.made(emit, &format!("{top} == -INF ? 0.0f : expf({a} - {top})"));
        let (sum, _) = self.row(emit, ReduceKind::Sum, Kind::F32, len, &format!("{power}[e]"));
        Ok(self.made(emit, &format!("{top} == -INF ? 0.0f : {power}[e] / {sum}")))
    }

    fn layer_norm(&mut self, emit: &mut Emit, a: &str, len: usize, eps: f64) -> (String, String) {
        let (mean, _) = self.row(emit, ReduceKind::Mean, Kind::F32, len, a);
        let (centred, _) = self.made(emit, &format!("{a} - {mean}"));
        let square = format!("{centred}[e] * {centred}[e]");
        let (variance, _) = self.row(emit, ReduceKind::Mean, Kind::F32, len, &square);
        let inverse = self.inverse_root(emit, &variance, eps);
        (format!("{centred}[e]"), inverse)
    }

    fn rope(&mut self, emit: &mut Emit, instr: &Instr) -> Result<(String, bool), Refusal> {
        let Instr::Rope { a, position, len, base, inverse, .. } = instr else {
            return Err(Refusal("not a rotary embedding".into()));
        };
        let half = len / 2;
        let turns: Vec<String> = (0..half)
            .map(|i| format!("{:?}", base.powf(-2.0 * i as f64 / *len as f64) / std::f64::consts::TAU))
            .collect();
        let about = format!("// Turns of pair i at position 1: base^(-2i / {len}) / 2 pi, base = {base:?}.");
        let values = format!("[{half}] = {{{}}};", turns.join(", "));
        let known = self.tables.iter().position(|table| table.ends_with(&values));
        let table = format!("TURNS{}", known.unwrap_or(self.tables.len()));
        if known.is_none() {
            self.tables.push(format!("{about}\n__device__ const double {table}{values}"));
        }
        let x = emit.array(*a)?;
        let (position, _) = emit.reg(*position)?;
        let name = emit.fresh_array(Kind::F32);
        let live = emit.space.live.as_ref().map(|live| format!("if ({live}) ")).unwrap_or_default();
        // Elements meet across the loop.
        emit.flush();
        if *len == self.shape.len {
            let angle = format!("{position} * {table}[local(e, lane)]");
            let (sine, cosine) = self.turns(emit, &angle, &live);
            let other = "e + E / 2";
            let [first, second] = if *inverse { ["-", "+"] } else { ["+", "-"] };
            emit.line("#pragma unroll");
            emit.line("for (int e = 0; e < E / 2; ++e) {");
            emit.line(&format!("  {name}[e] = {x}[e] * {cosine}[e] {first} {x}[{other}] * {sine}[e];"));
            emit.line(&format!("  {name}[{other}] = {x}[{other}] * {cosine}[e] {second} {x}[e] * {sine}[e];"));
            emit.line("}");
        } else {
            let sign = if *inverse { "-" } else { "" };
            self.keep_short_rows();
            emit.line("team_sync<TEAM>();");
            emit.line(&format!("float* const in_{name} = (float*)((char*)shared + threadIdx.x / TEAM * (16 * LEN));"));
            emit.each(format!("{live}in_{name}[local(e, lane)] = {x}[e];"));
            emit.line("team_sync<TEAM>();");
            emit.each(format!("{live}{{"));
            emit.each(format!("  const int at = local(e, lane), pair = at % {half};"));
            emit.each("  float sine, cosine;".into());
            emit.each(format!("  turn({position} * {table}[pair], &sine, &cosine);"));
            emit.each(format!(
                "  const float other = at % {len} < {half} ? in_{name}[at + {half}] : -in_{name}[at - {half}];"
            ));
            emit.each(format!("  {name}[e] = {x}[e] * cosine + {sign}(other * sine);"));
            emit.each("}".into());
            emit.line("");
        }
        Ok((name, false))
    }

    /// Arrays of the sines and cosines of the pairs that a thread has; those of the same angles are made once.
    fn turns(&mut self, emit: &mut Emit, angle: &str, live: &str) -> (String, String) {
        let known = self.angles.iter().position(|known| known == angle);
        let number = known.unwrap_or(self.angles.len());
        let names = (format!("sine{number}"), format!("cosine{number}"));
        if known.is_none() {
            let (sine, cosine) = &names;
            self.angles.push(angle.to_string());
            emit.line(&format!("float {sine}[E / 2], {cosine}[E / 2];"));
            emit.line("#pragma unroll");
            emit.line(&format!("for (int e = 0; e < E / 2; ++e) {live}turn({angle}, &{sine}[e], &{cosine}[e]);"));
        }
        names
    }

    /// A fold over the whole space: each thread folds what it sees, the last block folds the blocks.
    fn total(&mut self, emit: &mut Emit, result: usize, kind: ReduceKind, a: Src) -> Result<(), Refusal> {
        let of = match self.results.get(result) {
            Some(operand) if operand.dtype.is_float() => Kind::F32,
            _ => Kind::I32,
        };
        let (element, _) = emit.src(a, of)?;
        let (class, neutral) = program::fold(kind, of);
        let ty = program::folding(kind, of);
        let at = self.partial.len();
        self.before.push_str(&format!("  {ty} total{at} = {neutral};\n"));
        let live = emit.space.live.as_ref().map(|live| format!("if ({live}) ")).unwrap_or_default();
        emit.each(format!("{live}total{at} = {class}::of(total{at}, {});", program::folded(kind, &element)));
        let element = program::element(self.results[result].dtype);
        let count = match kind {
            ReduceKind::Mean => emit.sizes.name(self.elements)?,
            _ => String::new(),
        };
        self.partial.push(if ty == "double" { 8 } else { 4 });
        self.first_fold();
        self.after.insert_str(
            self.after.find("  if (gridDim.x").unwrap_or(0),
            &format!(
                "  total{at} = team_fold<{class}, THREADS>(total{at});\n  if (threadIdx.x == 0) (({ty}*)p.w{at})[blockIdx.x] = total{at};\n"
            ),
        );
        self.after.push_str(&format!(
            "  {{\n    {ty} x = {neutral};\n    for (u32 b = threadIdx.x; b < gridDim.x; b += THREADS) x = {class}::of(x, (({ty}*)p.w{at})[b]);\n    x = team_fold<{class}, THREADS>(x);\n    if (threadIdx.x == 0) p.r{result}[0] = narrow<{element}>({});\n  }}\n",
            program::finished(kind, "x", &count)
        ));
        Ok(())
    }

    /// The border between what every block does at its end and what the last one does.
    fn first_fold(&mut self) {
        if !self.after.contains("is_last_block") {
            self.after
                .push_str("  if (gridDim.x > 1 && !is_last_block(p.counter, gridDim.x)) return;\n  __syncthreads();\n");
        }
    }

    /// Sums of columns: each thread sums the elements that it holds over the rows of its team, then teams and blocks are
    /// summed in order.
    fn columns(&mut self, emit: &mut Emit, result: usize, a: Src, period: usize) -> Result<(), Refusal> {
        let (element, _) = emit.src(a, Kind::F32)?;
        let at = self.partial.len();
        self.before.push_str(&format!("  float column{at}[E] = {{}};\n"));
        let live = emit.space.live.as_ref().map(|live| format!("if ({live}) ")).unwrap_or_default();
        emit.each(format!("{live}column{at}[e] += {element};"));
        let ty = program::element(self.results.get(result).ok_or_else(|| Refusal("no such result".into()))?.dtype);
        self.partial.push(4 * self.shape.len);
        let gather = if self.shape.teams() > 1 {
            self.columns = 4 * self.shape.len;
            format!(
                "  __syncthreads();\n  for (int team = 0; team < TEAMS; ++team) {{\n    if ((int)(threadIdx.x / TEAM) == team)\n#pragma unroll\n      for (int e = 0; e < E; ++e)\n        {live}shared[local(e, lane)] = (team ? shared[local(e, lane)] : 0.0f) + column{at}[e];\n    __syncthreads();\n  }}\n  for (int i = threadIdx.x; i < LEN; i += THREADS) p.w{at}[(u64)blockIdx.x * LEN + i] = shared[i];\n"
            )
        } else {
            format!(
                "#pragma unroll\n  for (int e = 0; e < E; ++e)\n    {live}p.w{at}[(u64)blockIdx.x * LEN + local(e, lane)] = column{at}[e];\n"
            )
        };
        self.first_fold();
        self.after.insert_str(self.after.find("  if (gridDim.x").unwrap_or(0), &gather);
        self.after.push_str(&format!(
            "  for (int i = threadIdx.x; i < {period}; i += THREADS) {{\n    float x = 0;\n    for (u32 b = 0; b < gridDim.x; ++b)\n      for (int k = i; k < LEN; k += {period}) x += p.w{at}[(u64)b * LEN + k];\n    p.r{result}[i] = narrow<{ty}>(x);\n  }}\n"
        ));
        Ok(())
    }
}

impl Rows for Folds<'_> {
    fn fold(&mut self, emit: &mut Emit, instr: &Instr) -> Result<Option<(String, bool)>, Refusal> {
        Ok(match instr {
            Instr::RowReduce { kind, a, len, dst } => {
                let of = emit.kind(Src::Reg(*dst), Kind::F32);
                let (element, _) = emit.reg(*a)?;
                let (name, is_once) = self.row(emit, *kind, of, *len, &element);
                Some((name.trim_end_matches("[e]").to_string(), is_once))
            }
            Instr::Softmax { a, len, .. } => Some(self.softmax(emit, *a, *len)?),
            Instr::SoftmaxGrad { y, dy, len, .. } => {
                let ((y, _), (dy, _)) = (emit.reg(*y)?, emit.reg(*dy)?);
                let (along, _) = self.row(emit, ReduceKind::Sum, Kind::F32, *len, &format!("{y} * {dy}"));
                Some(self.made(emit, &format!("{y} * ({dy} - {along})")))
            }
            Instr::RmsNorm { a, len, eps, .. } => {
                let (x, _) = emit.reg(*a)?;
                let (mean, _) = self.row(emit, ReduceKind::Mean, Kind::F32, *len, &format!("{x} * {x}"));
                let r = self.inverse_root(emit, &mean, *eps);
                Some(self.made(emit, &format!("{x} * {r}")))
            }
            Instr::RmsNormGrad { x, dy, len, eps, .. } => {
                let ((x, _), (dy, _)) = (emit.reg(*x)?, emit.reg(*dy)?);
                let (mean, _) = self.row(emit, ReduceKind::Mean, Kind::F32, *len, &format!("{x} * {x}"));
                let (along, _) = self.row(emit, ReduceKind::Mean, Kind::F32, *len, &format!("{x} * {dy}"));
                let r = self.inverse_root(emit, &mean, *eps);
                Some(self.made(emit, &format!("{r} * {dy} - {x} * ({r} * {r} * {r} * {along})")))
            }
            Instr::LayerNorm { a, len, eps, .. } => {
                let (x, _) = emit.reg(*a)?;
                let (centred, inverse) = self.layer_norm(emit, &x, *len, *eps);
                Some(self.made(emit, &format!("{centred} * {inverse}")))
            }
            Instr::LayerNormGrad { x, dy, len, eps, .. } => {
                let ((x, _), (dy, _)) = (emit.reg(*x)?, emit.reg(*dy)?);
                let (centred, inverse) = self.layer_norm(emit, &x, *len, *eps);
                let (level, _) = self.row(emit, ReduceKind::Mean, Kind::F32, *len, &dy);
                let product = format!("{centred} * {inverse} * {dy}");
                let (along, _) = self.row(emit, ReduceKind::Mean, Kind::F32, *len, &product);
                Some(self.made(emit, &format!("{inverse} * ({dy} - {level} - {centred} * {inverse} * {along})")))
            }
            Instr::Rope { .. } => Some(self.rope(emit, instr)?),
            Instr::Total { result, kind, a } => {
                self.total(emit, *result, *kind, *a)?;
                None
            }
            Instr::Columns { result, a, period } => {
                self.columns(emit, *result, *a, *period)?;
                None
            }
            other => return Err(Refusal(format!("{other:?} is no fold"))),
        })
    }
}
