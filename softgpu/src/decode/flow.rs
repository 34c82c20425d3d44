//! Control flow: labels become program counters, and every branch learns where its paths meet again (its immediate
//! post-dominator).

use super::builder::{Builder, R};
use crate::error::LoadError;
use crate::program::{NONE, NOWHERE, Run};

/// A stretch of operations that is entered at its begin and left at its end only.
pub(crate) struct Block {
    pub first: u32,
    /// One past its last operation.
    pub end: u32,
    /// Blocks that may follow; none for one that ends threads.
    pub next: Vec<u32>,
}

/// Replaces label numbers by program counters and gives branches their point of reconvergence.
pub(crate) fn resolve(b: &mut Builder) -> R<()> {
    let n = b.drafts.len() as u32;
    for d in &mut b.drafts {
        if let Run::Branch = d.op.run {
            match b.labels[d.op.x as usize] {
                Some(at) if at < n => d.op.x = at,
                _ => return Err(LoadError::at(d.meta.line, "a branch to a label that stands nowhere")),
            }
        }
    }
    for t in &mut b.tables {
        for l in t {
            match b.labels[*l as usize] {
                Some(at) if at < n => *l = at,
                _ => return Err(LoadError::at(1, "a branch target that stands nowhere")),
            }
        }
    }
    let blocks = blocks(b);
    let meet = post_dominators(&blocks);
    for (i, block) in blocks.iter().enumerate() {
        let last = block.end as usize - 1;
        if matches!(b.drafts[last].op.run, Run::Branch | Run::BranchIndex) {
            let at = meet[i].map(|m| blocks[m as usize].first).filter(|at| {
                // Paths that meet only to end need not meet: others may wait for the end of these threads.
                let op = &b.drafts[*at as usize].op;
                !(matches!(op.run, Run::Exit) && op.guard == NONE)
            });
            b.drafts[last].op.imm = at.unwrap_or(NOWHERE) as i64;
        }
    }
    Ok(())
}

/// The blocks of a body, in its order.
pub(crate) fn blocks(b: &Builder) -> Vec<Block> {
    let n = b.drafts.len();
    let mut leader = vec![false; n + 1];
    leader[0] = true;
    for (at, d) in b.drafts.iter().enumerate() {
        match d.op.run {
            Run::Branch => {
                leader[d.op.x as usize] = true;
                leader[at + 1] = true;
            }
            Run::BranchIndex => {
                b.tables[d.op.x as usize].iter().for_each(|t| leader[*t as usize] = true);
                leader[at + 1] = true;
            }
            Run::Exit => leader[at + 1] = true,
            _ => {}
        }
    }
    let mut of = vec![0u32; n];
    let mut out: Vec<Block> = Vec::new();
    for at in 0..n {
        if leader[at] {
            out.push(Block { first: at as u32, end: 0, next: Vec::new() });
        }
        of[at] = out.len() as u32 - 1;
        if let Some(last) = out.last_mut() {
            last.end = at as u32 + 1;
        }
    }
    for block in &mut out {
        let end = block.end as usize;
        let op = &b.drafts[end - 1].op;
        let falls = match op.run {
            Run::Branch => {
                block.next.push(of[op.x as usize]);
                op.guard != NONE
            }
            Run::BranchIndex => {
                block.next.extend(b.tables[op.x as usize].iter().map(|t| of[*t as usize]));
                op.guard != NONE
            }
            Run::Exit => op.guard != NONE,
            _ => true,
        };
        if falls && end < n {
            block.next.push(of[end]);
        }
        block.next.sort_unstable();
        block.next.dedup();
    }
    out
}

/// The immediate post-dominator of every block; `None` where paths meet only at the end of the thread. (The algorithm
/// of Cooper, Harvey and Kennedy on the reversed graph.)
fn post_dominators(blocks: &[Block]) -> Vec<Option<u32>> {
    let n = blocks.len();
    let exit = n as u32;
    let mut prev: Vec<Vec<u32>> = vec![Vec::new(); n + 1];
    for (i, b) in blocks.iter().enumerate() {
        let ends = b.next.is_empty();
        b.next.iter().for_each(|s| prev[*s as usize].push(i as u32));
        // A guarded exit has a follower and ends threads too; those threads need not be waited for, so it is no edge.
        if ends {
            prev[n].push(i as u32);
        }
    }
    // Blocks that never reach the exit (endless loops) hang on it as if they did.
    let mut order = Vec::with_capacity(n + 1);
    let mut number = vec![u32::MAX; n + 1];
    let visit = |root: u32, order: &mut Vec<u32>, number: &mut Vec<u32>| {
        let mut stack = vec![(root, 0usize)];
        number[root as usize] = 0;
        while let Some((v, k)) = stack.pop() {
            if let Some(&p) = prev[v as usize].get(k) {
                stack.push((v, k + 1));
                if number[p as usize] == u32::MAX {
                    number[p as usize] = 0;
                    stack.push((p, 0));
                }
            } else {
                order.push(v);
            }
        }
    };
    let mut extra = Vec::new();
    // The exit must come last in post-order: visit it after finding which blocks it does not reach.
    visit(exit, &mut order, &mut number);
    for i in (0..n as u32).rev() {
        if number[i as usize] == u32::MAX {
            extra.push(i);
            visit(i, &mut order, &mut number);
        }
    }
    if let Some(at) = order.iter().position(|v| *v == exit) {
        order.remove(at);
        order.push(exit);
    }
    for (k, v) in order.iter().enumerate() {
        number[*v as usize] = k as u32;
    }
    let mut dom = vec![u32::MAX; n + 1];
    dom[n] = exit;
    let meet = |dom: &[u32], mut a: u32, mut b: u32| {
        while a != b {
            while number[a as usize] < number[b as usize] {
                a = dom[a as usize];
            }
            while number[b as usize] < number[a as usize] {
                b = dom[b as usize];
            }
        }
        a
    };
    let mut changed = true;
    while changed {
        changed = false;
        for &v in order.iter().rev() {
            if v == exit {
                continue;
            }
            let block = &blocks[v as usize];
            let to_exit = block.next.is_empty() || extra.contains(&v);
            let mut new = if to_exit { exit } else { u32::MAX };
            for &s in &block.next {
                if dom[s as usize] != u32::MAX {
                    new = if new == u32::MAX { s } else { meet(&dom, new, s) };
                }
            }
            if new != u32::MAX && dom[v as usize] != new {
                dom[v as usize] = new;
                changed = true;
            }
        }
    }
    (0..n).map(|i| Some(dom[i]).filter(|d| *d < exit)).collect()
}
