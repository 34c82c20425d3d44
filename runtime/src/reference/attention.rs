//! Attention, each query alone against the keys that it sees, and its gradient.
//!
//! Query head h reads key head ⌊h·G/H⌋: neighbouring query heads share a key head.

use super::parallel;
use super::softmax::largest;

/// Sizes of q [lead, t, heads, width] and of k and v [lead, t, key_heads, width]; all leading axes as one.
#[derive(Clone, Copy)]
pub struct Shape {
    lead: usize,
    t: usize,
    heads: usize,
    key_heads: usize,
    width: usize,
}

impl Shape {
    /// From the sizes of q and k.
    pub fn new(q: &[usize], k: &[usize]) -> Shape {
        let n = q.len();
        let lead = q[..n - 3].iter().product();
        Shape { lead, t: q[n - 3], heads: q[n - 2], key_heads: k[n - 2], width: q[n - 1] }
    }

    /// Query heads that share a key head.
    fn group(&self) -> usize {
        self.heads / self.key_heads
    }

    /// One query's part of q.
    fn query<'a>(&self, x: &'a [f64], lead: usize, t: usize, head: usize) -> &'a [f64] {
        row(x, (lead * self.t + t) * self.heads + head, self.width)
    }

    /// One key's part of k or v.
    fn key<'a>(&self, x: &'a [f64], lead: usize, t: usize, key_head: usize) -> &'a [f64] {
        row(x, (lead * self.t + t) * self.key_heads + key_head, self.width)
    }
}

fn row(x: &[f64], index: usize, width: usize) -> &[f64] {
    &x[index * width..(index + 1) * width]
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(to: &mut [f64], factor: f64, x: &[f64]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += factor * x);
}

/// Which keys a query sees.
pub struct Mask<'a> {
    causal: bool,
    documents: Option<&'a [i32]>,
    /// Number of positions to either side, the query itself included.
    window: Option<usize>,
}

impl<'a> Mask<'a> {
    /// `documents` [lead, t]; a window that is not whole is rounded down, one under 1 (or NaN) sees nothing.
    pub fn new(causal: bool, documents: Option<&'a [i32]>, window: Option<f64>) -> Mask<'a> {
        // `as` saturates and takes NaN to 0.
        Mask { causal, documents, window: window.map(|w| w.floor() as usize) }
    }

    /// The keys that query t of a sequence of n positions sees, in order.
    fn keys(&self, lead: usize, t: usize, n: usize) -> impl Iterator<Item = usize> {
        let mut range = 0..if self.causal { t + 1 } else { n };
        if let Some(window) = self.window {
            range.start = (t + 1).saturating_sub(window);
            range.end = range.end.min(t.saturating_add(window));
        }
        let documents = self.documents.map(|d| &d[lead * n..(lead + 1) * n]);
        range.filter(move |&key| documents.is_none_or(|d| d[key] == d[t]))
    }
}

/// softmax(q·kᵀ·scale over the visible keys)·v, and the log-sum-exp of the scores.
pub fn attention(s: Shape, q: &[f64], k: &[f64], v: &[f64], mask: &Mask, scale: f64) -> (Vec<f64>, Vec<f64>) {
    // The output of a query and, behind it, its log-sum-exp.
    let mut both = vec![0.0; s.lead * s.t * s.heads * (s.width + 1)];
    parallel::rows(&mut both, s.width + 1, s.t * s.width, |index, out| {
        let (head, position) = (index % s.heads, index / s.heads);
        let (lead, t, key_head) = (position / s.t, position % s.t, head / s.group());
        let (out, lse) = out.split_at_mut(s.width);
        let q = s.query(q, lead, t, head);
        let keys: Vec<usize> = mask.keys(lead, t, s.t).collect();
        let scores: Vec<f64> = keys.iter().map(|&key| inner(q, s.key(k, lead, key, key_head)) * scale).collect();
        let top = largest(&scores);
        if top == f64::NEG_INFINITY {
            lse[0] = top;
            return;
        }
        let mut sum = 0.0;
        for (&key, score) in keys.iter().zip(scores) {
            let weight = (score - top).exp();
            sum += weight;
            add_scaled(out, weight, s.key(v, lead, key, key_head));
        }
        out.iter_mut().for_each(|o| *o /= sum);
        lse[0] = top + sum.ln();
    });
    let mut o = Vec::with_capacity(s.lead * s.t * s.heads * s.width);
    let mut lse = Vec::with_capacity(s.lead * s.t * s.heads);
    for both in both.chunks(s.width + 1) {
        o.extend_from_slice(&both[..s.width]);
        lse.push(both[s.width]);
    }
    (o, lse)
}

/// Operands of the gradient: those of the forward op, its results, and the cotangent of the output.
pub struct GradInputs<'a> {
    /// Queries.
    pub q: &'a [f64],
    /// Keys.
    pub k: &'a [f64],
    /// Values.
    pub v: &'a [f64],
    /// The output.
    pub o: &'a [f64],
    /// Log-sum-exp of the scores.
    pub lse: &'a [f64],
    /// Cotangent of the output.
    pub d_o: &'a [f64],
}

/// dq, dk, dv. With p = exp(score − lse): dv = Σ p·do, dscore = p·(do·v − do·o), dq = scale·Σ dscore·k,
/// dk = scale·Σ dscore·q.
pub fn attention_grad(s: Shape, x: &GradInputs, mask: &Mask, scale: f64) -> [Vec<f64>; 3] {
    let tasks = s.lead * s.key_heads;
    let cost = s.group() * s.t * s.t * s.width;
    let parts =
        parallel::indices(tasks, cost, |task| key_head_grad(s, x, mask, scale, task / s.key_heads, task % s.key_heads));
    let mut dq = vec![0.0; x.q.len()];
    let mut dk = vec![0.0; x.k.len()];
    let mut dv = vec![0.0; x.v.len()];
    for (task, [q, k, v]) in parts.iter().enumerate() {
        let (lead, key_head) = (task / s.key_heads, task % s.key_heads);
        for t in 0..s.t {
            let key = (lead * s.t + t) * s.key_heads + key_head;
            // The query heads of a key head lie next to each other.
            copy_row(&mut dq, key, q, t, s.group() * s.width);
            copy_row(&mut dk, key, k, t, s.width);
            copy_row(&mut dv, key, v, t, s.width);
        }
    }
    [dq, dk, dv]
}

fn copy_row(to: &mut [f64], to_row: usize, from: &[f64], from_row: usize, width: usize) {
    to[to_row * width..(to_row + 1) * width].copy_from_slice(row(from, from_row, width));
}

/// The gradients of one key head and of the query heads that read it: dq [t, group, width], dk and dv [t, width].
fn key_head_grad(s: Shape, x: &GradInputs, mask: &Mask, scale: f64, lead: usize, key_head: usize) -> [Vec<f64>; 3] {
    let (group, width) = (s.group(), s.width);
    let mut dq = vec![0.0; s.t * group * width];
    let mut dk = vec![0.0; s.t * width];
    let mut dv = vec![0.0; s.t * width];
    for t in 0..s.t {
        for member in 0..group {
            let head = key_head * group + member;
            let lse = x.lse[(lead * s.t + t) * s.heads + head];
            if lse == f64::NEG_INFINITY {
                continue;
            }
            let (q, d_o) = (s.query(x.q, lead, t, head), s.query(x.d_o, lead, t, head));
            let along = inner(d_o, s.query(x.o, lead, t, head));
            let dq = &mut dq[(t * group + member) * width..][..width];
            for key in mask.keys(lead, t, s.t) {
                let (k, v) = (s.key(x.k, lead, key, key_head), s.key(x.v, lead, key, key_head));
                let p = (inner(q, k) * scale - lse).exp();
                let d_score = scale * p * (inner(d_o, v) - along);
                add_scaled(dq, d_score, k);
                add_scaled(&mut dk[key * width..(key + 1) * width], d_score, q);
                add_scaled(&mut dv[key * width..(key + 1) * width], p, d_o);
            }
        }
    }
    [dq, dk, dv]
}
