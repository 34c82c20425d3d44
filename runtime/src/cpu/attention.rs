//! Attention and its gradient by blocks of queries and keys. Blocks in which nothing is visible are not visited, and no
//! more than one block of scores exists in a thread.
//!
//! Forward, a task owns a block of queries of one head and keeps a running maximum and sum (Milakov & Gimelshein 2018,
//! Dao et al. 2022). Backward, one pass owns blocks of keys and makes dk and dv, another owns blocks of queries and makes
//! dq: scores are computed twice, and nothing is added up across tasks.

use std::ops::Range;

use mngc_compiler::ir::{AttentionMask, DType};

use super::check::ensure;
use super::context::{Context, Need};
use super::gemm::{self, Packed, Source, Target};
use super::memory::Region;
use super::{convert, fold};

/// Queries of a block.
const QUERIES: usize = 128;
/// Keys of a block.
const KEYS: usize = 128;

/// Attention made ready to run.
#[derive(Debug)]
pub struct Attention {
    mask: AttentionMask,
    scale: f32,
    lead: usize,
    t: usize,
    heads: usize,
    key_heads: usize,
    width: usize,
    /// Operands before the documents.
    before: usize,
}

/// Which keys the queries of a launch see.
struct Visible<'a> {
    t: usize,
    causal: bool,
    window: Option<usize>,
    /// Of all sequences.
    documents: Option<&'a [i32]>,
}

/// What a block of queries sees of a block of keys.
enum Sight {
    Nothing,
    /// Of each query, a range of keys.
    Ranges,
    /// As before, and only keys of the same document.
    Documents,
}

impl Visible<'_> {
    /// The keys that query `q` sees, but for documents.
    fn keys(&self, q: usize) -> Range<usize> {
        let mut range = 0..if self.causal { q + 1 } else { self.t };
        if let Some(window) = self.window {
            range.start = (q + 1).saturating_sub(window);
            range.end = range.end.min(q.saturating_add(window));
        }
        range
    }

    /// The keys that any of a block of queries sees, but for documents.
    fn keys_of_block(&self, q: &Range<usize>) -> Range<usize> {
        self.keys(q.start).start..self.keys(q.end - 1).end
    }

    /// The queries that see any of a block of keys, but for documents.
    fn queries_of_block(&self, k: &Range<usize>) -> Range<usize> {
        let mut range = if self.causal { k.start } else { 0 }..self.t;
        if let Some(window) = self.window {
            range.start = range.start.max((k.start + 1).saturating_sub(window));
            range.end = range.end.min((k.end - 1).saturating_add(window));
        }
        range
    }

    fn documents(&self, sequence: usize) -> Option<&[i32]> {
        self.documents.map(|d| &d[sequence * self.t..(sequence + 1) * self.t])
    }

    fn sight(&self, sequence: usize, q: &Range<usize>, k: &Range<usize>) -> Sight {
        let seen = self.keys_of_block(q);
        if seen.start >= k.end || seen.end <= k.start {
            return Sight::Nothing;
        }
        let Some(documents) = self.documents(sequence) else { return Sight::Ranges };
        let ends = |range: &Range<usize>| {
            let of = &documents[range.clone()];
            (of.iter().min().copied().unwrap_or(0), of.iter().max().copied().unwrap_or(0))
        };
        let (q, k) = (ends(q), ends(k));
        match () {
            () if q.1 < k.0 || k.1 < q.0 => Sight::Nothing,
            () if q.0 == q.1 && q == k => Sight::Ranges,
            () => Sight::Documents,
        }
    }
}

/// Scratch memory of a thread, cut into pieces.
struct Cut<'a>(&'a mut [f32]);

impl<'a> Cut<'a> {
    fn take(&mut self, len: usize) -> &'a mut [f32] {
        let (piece, rest) = std::mem::take(&mut self.0).split_at_mut(len);
        self.0 = rest;
        piece
    }
}

/// A matrix in scratch memory, as an operand of a product.
fn matrix(values: &mut [f32], row: usize, inner: usize) -> Source {
    // SAFETY: operands of products are not touched until the product is there.
    Source { region: unsafe { Region::of(values) }, first: 0, row, inner }
}

/// Packs a right operand `[n, k]`.
fn pack(strips: &mut [f32], b: Source, n: usize, k: usize) {
    // SAFETY: operands are pieces of scratch memory, and other ones.
    unsafe { gemm::pack(strips, b, n, k) };
}

/// c = scale·a·b or c += scale·a·b, b being packed; `left` is scratch memory.
fn product(sizes: [usize; 3], scale: f32, a: Source, strips: &[f32], add: bool, c: &mut [f32], left: &mut [f32]) {
    // SAFETY: operands and result are different pieces of this task's scratch memory.
    unsafe { gemm::block(sizes, scale, a, Packed { strips, first: 0 }, add, Target::of(c, sizes[1]), left) };
}

/// c += scale·a·b with b `[k, n]`, rows of the result being `n` long. Where a is 0, it stands for what is not seen: what is
/// no number in b must not come through, as 0·∞ would.
fn product_of_seen(
    [m, n, k]: [usize; 3],
    scale: f32,
    (a, row, inner): (&mut [f32], usize, usize),
    b: &mut [f32],
    c: &mut [f32],
    [strips, left]: [&mut [f32]; 2],
) {
    if fold::is_finite(&b[..k * n]) {
        pack(strips, matrix(b, 1, n), n, k);
        return product([m, n, k], scale, matrix(a, row, inner), strips, true, c, left);
    }
    for (i, c) in c.chunks_mut(n).take(m).enumerate() {
        for (l, b) in b.chunks(n).take(k).enumerate() {
            let factor = a[i * row + l * inner] * scale;
            if factor != 0.0 {
                c.iter_mut().zip(b).for_each(|(c, b)| *c += factor * b);
            }
        }
    }
}

/// Floats of a packed block of queries or keys, by either axis.
fn packed(width: usize) -> usize {
    QUERIES.max(KEYS).next_multiple_of(gemm::strip()) * width.next_multiple_of(gemm::strip())
}

/// A head of one tensor: rows of `width` floats, one for each position.
#[derive(Clone, Copy)]
struct Head<'a> {
    region: &'a Region,
    first: usize,
    step: usize,
    width: usize,
}

impl Head<'_> {
    fn load(&self, rows: &Range<usize>, dst: &mut [f32]) {
        for (row, dst) in rows.clone().zip(dst.chunks_mut(self.width.max(1))) {
            // SAFETY: no kernel of attention works in place.
            unsafe { convert::load(self.region, self.first + row * self.step, dst) };
        }
    }

    fn store(&self, rows: &Range<usize>, src: &[f32]) {
        for (row, src) in rows.clone().zip(src.chunks(self.width.max(1))) {
            // SAFETY: these rows of the head are one task's.
            unsafe { convert::store(self.region, self.first + row * self.step, src) };
        }
    }
}

impl Attention {
    /// Checks attention against its operands and results; `q` and `k` are sizes. The gradient has more operands.
    pub fn new(
        mask: AttentionMask,
        scale: f64,
        [q, k]: [&[usize]; 2],
        args: &[Region],
        results: &[Region],
        is_gradient: bool,
    ) -> Result<Attention, String> {
        ensure(q.len() >= 3 && k.len() >= 3, || "queries and keys have positions, heads and widths".into())?;
        let [t, heads, width] = [q[q.len() - 3], q[q.len() - 2], q[q.len() - 1]];
        let (lead, key_heads) = (q[..q.len() - 3].iter().product(), k[k.len() - 2]);
        let before = if is_gradient { 6 } else { 3 };
        let count = before + usize::from(mask.documents) + usize::from(mask.window);
        ensure(args.len() == count && results.len() == before / 2 + usize::from(!is_gradient), || {
            format!("{} operands and {} results", args.len(), results.len())
        })?;
        let (queries, keys, rows) = (lead * t * heads * width, lead * t * key_heads * width, lead * t * heads);
        let wanted = match is_gradient {
            false => vec![queries, keys, keys],
            true => vec![queries, keys, keys, queries, rows, queries],
        };
        let made = if is_gradient { vec![queries, keys, keys] } else { vec![queries, rows] };
        let floats = |r: &Region, len: usize| r.dtype().is_float() && r.len() == len;
        ensure(args.iter().zip(&wanted).all(|(r, &len)| floats(r, len)), || "operands of other sizes".into())?;
        ensure(results.iter().zip(&made).all(|(r, &len)| floats(r, len)), || "results of other sizes".into())?;
        if mask.documents {
            let documents = &args[before];
            ensure(documents.dtype() == DType::I32 && documents.len() == lead * t, || "no documents".into())?;
        }
        ensure(!mask.window || args[count - 1].len() == 1, || "a window is one number".into())?;
        ensure(key_heads > 0 && heads.is_multiple_of(key_heads), || "key heads divide heads".into())?;
        Ok(Attention { mask, scale: scale as f32, lead, t, heads, key_heads, width, before })
    }

    /// What it needs.
    pub fn need(&self) -> Need {
        let Attention { width, .. } = self;
        let rows = 4 * QUERIES + 2 * QUERIES * KEYS;
        let products = gemm::SCRATCH + 3 * packed(*width);
        Need { shared: 0, scratch: (rows + (3 * QUERIES + 4 * KEYS) * width + products) * 4 }
    }

    fn visible<'a>(&self, args: &'a [Region]) -> Visible<'a> {
        // SAFETY: no kernel of attention works in place.
        let documents = self.mask.documents.then(|| unsafe { args[self.before].slice::<i32>() });
        let window = self.mask.window.then(|| {
            let mut window = [0.0];
            // SAFETY: as above. f32 holds windows up to 2²⁴ and the order of larger ones.
            unsafe { convert::load(&args[self.before + usize::from(self.mask.documents)], 0, &mut window) };
            // `as` saturates and takes NaN to 0.
            window[0].floor() as usize
        });
        Visible { t: self.t, causal: self.mask.causal, window, documents }
    }

    /// A head of a tensor of queries, or of keys.
    fn head<'a>(&self, region: &'a Region, sequence: usize, head: usize, heads: usize) -> Head<'a> {
        let width = self.width;
        let first = (sequence * self.t * heads + head) * width;
        Head { region, first, step: heads * width, width }
    }

    /// One number for each query of a head.
    fn row<'a>(&self, region: &'a Region, sequence: usize, head: usize) -> Head<'a> {
        Head { region, first: sequence * self.t * self.heads + head, step: self.heads, width: 1 }
    }

    /// Blocks of a sequence.
    fn blocks(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
        // Blocks begin at multiples of their size wherever the range begins, so that tasks agree on them.
        (range.start / size..range.end.div_ceil(size)).map(move |i| {
            let (start, end) = (i * size, (i + 1) * size);
            start..end
        })
    }

    /// Runs the forward op.
    pub fn forward(&self, ctx: &Context, args: &[Region], results: &[Region]) {
        let visible = self.visible(args);
        let blocks = self.t.div_ceil(QUERIES);
        ctx.each(self.lead * self.heads * blocks, |task| {
            let (block, head, sequence) = (task % blocks, task / blocks % self.heads, task / blocks / self.heads);
            let queries = block * QUERIES..((block + 1) * QUERIES).min(self.t);
            ctx.scratch(|words| {
                let cut = Cut(bytemuck::cast_slice_mut(words));
                self.forward_block(&visible, args, results, sequence, head, queries, cut);
            });
        });
    }

    fn forward_block(
        &self,
        visible: &Visible,
        args: &[Region],
        results: &[Region],
        sequence: usize,
        head: usize,
        queries: Range<usize>,
        mut cut: Cut,
    ) {
        let width = self.width;
        let key_head = head * self.key_heads / self.heads;
        let count = queries.len();
        let q = cut.take(count * width);
        let o = cut.take(count * width);
        let (tops, sums) = (cut.take(count), cut.take(count));
        let (k, v) = (cut.take(KEYS * width), cut.take(KEYS * width));
        let scores = cut.take(count * KEYS);
        let (strips, left) = (cut.take(packed(width)), cut.take(gemm::SCRATCH));
        self.head(&args[0], sequence, head, self.heads).load(&queries, q);
        o.fill(0.0);
        tops.fill(f32::NEG_INFINITY);
        sums.fill(0.0);
        for keys in Self::blocks(visible.keys_of_block(&queries), KEYS) {
            let keys = keys.start..keys.end.min(self.t);
            let sight = visible.sight(sequence, &queries, &keys);
            if matches!(sight, Sight::Nothing) {
                continue;
            }
            let n = keys.len();
            self.head(&args[1], sequence, key_head, self.key_heads).load(&keys, k);
            self.head(&args[2], sequence, key_head, self.key_heads).load(&keys, v);
            pack(strips, matrix(k, width, 1), n, width);
            product([count, n, width], self.scale, matrix(q, width, 1), strips, false, scores, left);
            for (i, scores) in scores.chunks_mut(n).take(count).enumerate() {
                self.hide(visible, &sight, sequence, queries.start + i, &keys, scores);
                let top = fold::maximum(scores);
                if top == f32::NEG_INFINITY {
                    scores.fill(0.0);
                    continue;
                }
                let top = super::elementwise::max(top, tops[i]);
                let correction = (tops[i] - top).exp();
                tops[i] = top;
                sums[i] = sums[i] * correction + fold::exp_in_place(scores, 1.0, top);
                fold::scale(&mut o[i * width..(i + 1) * width], correction);
            }
            product_of_seen([count, width, n], 1.0, (scores, n, 1), v, o, [strips, left]);
        }
        for (i, o) in o.chunks_mut(width.max(1)).take(count).enumerate() {
            if tops[i] != f32::NEG_INFINITY {
                fold::scale(o, 1.0 / sums[i]);
            }
        }
        for (top, sum) in tops.iter_mut().zip(sums.iter()) {
            if *top != f32::NEG_INFINITY {
                *top = (f64::from(*top) + f64::from(*sum).ln()) as f32;
            }
        }
        self.head(&results[0], sequence, head, self.heads).store(&queries, o);
        self.row(&results[1], sequence, head).store(&queries, tops);
    }

    /// Scores of keys that a query does not see become −∞.
    fn hide(
        &self,
        visible: &Visible,
        sight: &Sight,
        sequence: usize,
        q: usize,
        keys: &Range<usize>,
        scores: &mut [f32],
    ) {
        let seen = visible.keys(q);
        let start = seen.start.clamp(keys.start, keys.end) - keys.start;
        let end = seen.end.clamp(keys.start + start, keys.end) - keys.start;
        scores[..start].fill(f32::NEG_INFINITY);
        scores[end..].fill(f32::NEG_INFINITY);
        if let (Sight::Documents, Some(documents)) = (sight, visible.documents(sequence)) {
            let own = documents[q];
            for (score, &document) in scores.iter_mut().zip(&documents[keys.clone()]) {
                *score = if document == own { *score } else { f32::NEG_INFINITY };
            }
        }
    }

    /// Runs the gradient.
    pub fn backward(&self, ctx: &Context, args: &[Region], results: &[Region]) {
        let visible = self.visible(args);
        let blocks = self.t.div_ceil(KEYS);
        ctx.each(self.lead * self.key_heads * blocks, |task| {
            let (block, head) = (task % blocks, task / blocks % self.key_heads);
            let sequence = task / blocks / self.key_heads;
            let keys = block * KEYS..((block + 1) * KEYS).min(self.t);
            ctx.scratch(|words| {
                let cut = Cut(bytemuck::cast_slice_mut(words));
                self.key_block(&visible, args, results, sequence, head, keys, cut);
            });
        });
        let blocks = self.t.div_ceil(QUERIES);
        ctx.each(self.lead * self.heads * blocks, |task| {
            let (block, head, sequence) = (task % blocks, task / blocks % self.heads, task / blocks / self.heads);
            let queries = block * QUERIES..((block + 1) * QUERIES).min(self.t);
            ctx.scratch(|words| {
                let cut = Cut(bytemuck::cast_slice_mut(words));
                self.query_block(&visible, args, results, sequence, head, queries, cut);
            });
        });
    }

    /// dk and dv of a block of keys.
    fn key_block(
        &self,
        visible: &Visible,
        args: &[Region],
        results: &[Region],
        sequence: usize,
        key_head: usize,
        keys: Range<usize>,
        mut cut: Cut,
    ) {
        let (width, n) = (self.width, keys.len());
        let (k, v) = (cut.take(n * width), cut.take(n * width));
        let (dk, dv) = (cut.take(n * width), cut.take(n * width));
        self.head(&args[1], sequence, key_head, self.key_heads).load(&keys, k);
        self.head(&args[2], sequence, key_head, self.key_heads).load(&keys, v);
        dk.fill(0.0);
        dv.fill(0.0);
        let (packed_k, packed_v) = (cut.take(packed(width)), cut.take(packed(width)));
        pack(packed_k, matrix(k, width, 1), n, width);
        pack(packed_v, matrix(v, width, 1), n, width);
        let mut block = Block::new(width, cut);
        let group = self.heads / self.key_heads;
        for head in key_head * group..(key_head + 1) * group {
            for queries in Self::blocks(visible.queries_of_block(&keys), QUERIES) {
                let queries = queries.start..queries.end.min(self.t);
                let sight = visible.sight(sequence, &queries, &keys);
                if matches!(sight, Sight::Nothing) {
                    continue;
                }
                block.load(self, args, sequence, head, &queries);
                block.scores(self, visible, &sight, sequence, &queries, &keys, [packed_k, packed_v]);
                let m = queries.len();
                let Block { q, d_o, p, ds, strips, left, .. } = &mut block;
                product_of_seen([n, width, m], 1.0, (p, 1, n), d_o, dv, [strips, left]);
                product_of_seen([n, width, m], self.scale, (ds, 1, n), q, dk, [strips, left]);
            }
        }
        self.head(&results[1], sequence, key_head, self.key_heads).store(&keys, dk);
        self.head(&results[2], sequence, key_head, self.key_heads).store(&keys, dv);
    }

    /// dq of a block of queries.
    fn query_block(
        &self,
        visible: &Visible,
        args: &[Region],
        results: &[Region],
        sequence: usize,
        head: usize,
        queries: Range<usize>,
        mut cut: Cut,
    ) {
        let (width, m) = (self.width, queries.len());
        let key_head = head * self.key_heads / self.heads;
        let (k, v) = (cut.take(KEYS * width), cut.take(KEYS * width));
        let dq = cut.take(m * width);
        dq.fill(0.0);
        let (packed_k, packed_v) = (cut.take(packed(width)), cut.take(packed(width)));
        let mut block = Block::new(width, cut);
        block.load(self, args, sequence, head, &queries);
        for keys in Self::blocks(visible.keys_of_block(&queries), KEYS) {
            let keys = keys.start..keys.end.min(self.t);
            let sight = visible.sight(sequence, &queries, &keys);
            if matches!(sight, Sight::Nothing) {
                continue;
            }
            self.head(&args[1], sequence, key_head, self.key_heads).load(&keys, k);
            self.head(&args[2], sequence, key_head, self.key_heads).load(&keys, v);
            let n = keys.len();
            pack(packed_k, matrix(k, width, 1), n, width);
            pack(packed_v, matrix(v, width, 1), n, width);
            block.scores(self, visible, &sight, sequence, &queries, &keys, [packed_k, packed_v]);
            let Block { ds, strips, left, .. } = &mut block;
            product_of_seen([m, width, n], self.scale, (ds, n, 1), k, dq, [strips, left]);
        }
        self.head(&results[0], sequence, head, self.heads).store(&queries, dq);
    }
}

/// What the gradient keeps of a block of queries, and of its scores with a block of keys.
struct Block<'a> {
    q: &'a mut [f32],
    d_o: &'a mut [f32],
    lse: &'a mut [f32],
    /// Σ do·o of each query.
    along: &'a mut [f32],
    p: &'a mut [f32],
    ds: &'a mut [f32],
    strips: &'a mut [f32],
    left: &'a mut [f32],
}

impl<'a> Block<'a> {
    fn new(width: usize, mut cut: Cut<'a>) -> Block<'a> {
        Block {
            q: cut.take(QUERIES * width),
            d_o: cut.take(QUERIES * width),
            lse: cut.take(QUERIES),
            along: cut.take(QUERIES),
            p: cut.take(QUERIES * KEYS),
            ds: cut.take(QUERIES * KEYS),
            strips: cut.take(packed(width)),
            left: cut.take(gemm::SCRATCH),
        }
    }

    fn load(&mut self, a: &Attention, args: &[Region], sequence: usize, head: usize, queries: &Range<usize>) {
        let (width, m) = (a.width, queries.len());
        // The output is needed for its product with do only: it passes through the place of q.
        a.head(&args[3], sequence, head, a.heads).load(queries, self.q);
        a.head(&args[5], sequence, head, a.heads).load(queries, self.d_o);
        for i in 0..m {
            let row = i * width..(i + 1) * width;
            self.along[i] = fold::inner(&self.q[row.clone()], &self.d_o[row]);
        }
        a.head(&args[0], sequence, head, a.heads).load(queries, self.q);
        a.row(&args[4], sequence, head).load(queries, &mut self.lse[..m]);
    }

    /// From packed keys and values: p = exp(score − lse) and ds = p·(do·v − do·o), both 0 where nothing is seen.
    fn scores(
        &mut self,
        a: &Attention,
        visible: &Visible,
        sight: &Sight,
        sequence: usize,
        queries: &Range<usize>,
        keys: &Range<usize>,
        [k, v]: [&[f32]; 2],
    ) {
        let (width, m, n) = (a.width, queries.len(), keys.len());
        product([m, n, width], a.scale, matrix(self.q, width, 1), k, false, self.p, self.left);
        product([m, n, width], 1.0, matrix(self.d_o, width, 1), v, false, self.ds, self.left);
        for i in 0..m {
            let (p, ds) = (&mut self.p[i * n..(i + 1) * n], &mut self.ds[i * n..(i + 1) * n]);
            if self.lse[i] == f32::NEG_INFINITY {
                p.fill(0.0);
                ds.fill(0.0);
                continue;
            }
            a.hide(visible, sight, sequence, queries.start + i, keys, p);
            fold::exp_in_place(p, 1.0, self.lse[i]);
            fold::times_difference(ds, p, self.along[i]);
        }
    }
}
