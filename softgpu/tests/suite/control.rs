//! Random programs of branches and loops that lanes take differently, against one thread at a time.

use crate::gpu::{Arg, Gpu};
use proptest::prelude::*;

/// Statements over four variables; conditions are bits of a variable.
#[derive(Clone, Debug)]
enum Stmt {
    Set {
        op: usize,
        to: usize,
        from: usize,
        by: u32,
    },
    Guarded {
        bit: (usize, u32),
        to: usize,
        by: u32,
    },
    If {
        bit: (usize, u32),
        then: Vec<Stmt>,
        other: Vec<Stmt>,
    },
    /// Runs as often as the two lowest bits of a variable say.
    Loop {
        times: usize,
        body: Vec<Stmt>,
    },
    Break {
        bit: (usize, u32),
    },
    Continue {
        bit: (usize, u32),
    },
    Exit {
        bit: (usize, u32),
    },
    /// All lanes that are here exchange nothing, but the text has an instruction that needs its warp.
    Sync,
}

const OPS: [(&str, fn(u32, u32) -> u32); 4] = [
    ("add.u32", |a, b| a.wrapping_add(b)),
    ("xor.b32", |a, b| a ^ b),
    ("mul.lo.u32", |a, b| a.wrapping_mul(b)),
    ("sub.u32", |a, b| a.wrapping_sub(b)),
];

fn bit() -> impl Strategy<Value = (usize, u32)> {
    (0usize..4, 0u32..8)
}

fn stmt() -> impl Strategy<Value = Stmt> {
    let leaf = prop_oneof![
        6 => (0usize..4, 0usize..4, 0usize..4, any::<u32>()).prop_map(|(op, to, from, by)| Stmt::Set { op, to, from, by: by | 1 }),
        2 => (bit(), 0usize..4, any::<u32>()).prop_map(|(bit, to, by)| Stmt::Guarded { bit, to, by }),
        1 => bit().prop_map(|bit| Stmt::Break { bit }),
        1 => bit().prop_map(|bit| Stmt::Continue { bit }),
        1 => bit().prop_map(|bit| Stmt::Exit { bit }),
        1 => Just(Stmt::Sync),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let list = proptest::collection::vec(inner, 0..5);
        prop_oneof![
            (bit(), list.clone(), list.clone()).prop_map(|(bit, then, other)| Stmt::If { bit, then, other }),
            (0usize..4, list).prop_map(|(times, body)| Stmt::Loop { times, body }),
        ]
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
    Exit,
}

fn run(stmts: &[Stmt], v: &mut [u32; 4]) -> Flow {
    for s in stmts {
        let is = |b: &(usize, u32), v: &[u32; 4]| v[b.0] >> b.1 & 1 == 1;
        let flow = match s {
            Stmt::Set { op, to, from, by } => {
                v[*to] = OPS[*op].1(v[*from], *by);
                Flow::Next
            }
            Stmt::Guarded { bit, to, by } => {
                if is(bit, v) {
                    v[*to] ^= by;
                }
                Flow::Next
            }
            Stmt::If { bit, then, other } => run(if is(bit, v) { then } else { other }, v),
            Stmt::Loop { times, body } => {
                let mut end = Flow::Next;
                for _ in 0..v[*times] & 3 {
                    match run(body, v) {
                        Flow::Break => break,
                        Flow::Exit => {
                            end = Flow::Exit;
                            break;
                        }
                        _ => {}
                    }
                }
                end
            }
            Stmt::Break { bit } if is(bit, v) => Flow::Break,
            Stmt::Continue { bit } if is(bit, v) => Flow::Continue,
            Stmt::Exit { bit } if is(bit, v) => Flow::Exit,
            _ => Flow::Next,
        };
        if flow != Flow::Next {
            return flow;
        }
    }
    Flow::Next
}

#[derive(Default)]
struct Text {
    body: String,
    labels: usize,
    counters: usize,
    /// Labels to leave and to go on in each loop.
    loops: Vec<(String, String)>,
}

impl Text {
    fn label(&mut self) -> String {
        self.labels += 1;
        format!("L{}", self.labels)
    }

    fn test(&mut self, (v, k): (usize, u32)) {
        self.body += &format!("and.b32 %t0, %v{v}, {};\nsetp.ne.u32 %p0, %t0, 0;\n", 1u32 << k);
    }

    fn write(&mut self, stmts: &[Stmt]) {
        for s in stmts {
            match s {
                Stmt::Set { op, to, from, by } => {
                    self.body += &format!("{} %v{to}, %v{from}, {by};\n", OPS[*op].0);
                }
                Stmt::Guarded { bit, to, by } => {
                    self.test(*bit);
                    self.body += &format!("@%p0 xor.b32 %v{to}, %v{to}, {by};\n");
                }
                Stmt::If { bit, then, other } => {
                    let (a, b) = (self.label(), self.label());
                    self.test(*bit);
                    self.body += &format!("@!%p0 bra {a};\n");
                    self.write(then);
                    self.body += &format!("bra {b};\n{a}:\n");
                    self.write(other);
                    self.body += &format!("{b}:\n");
                }
                Stmt::Loop { times, body } => {
                    let (top, next, end) = (self.label(), self.label(), self.label());
                    let c = self.counters;
                    self.counters += 1;
                    self.body +=
                        &format!("and.b32 %c{c}, %v{times}, 3;\n{top}:\nsetp.eq.u32 %p1, %c{c}, 0;\n@%p1 bra {end};\n");
                    self.loops.push((end.clone(), next.clone()));
                    self.write(body);
                    self.loops.pop();
                    self.body += &format!("{next}:\nsub.u32 %c{c}, %c{c}, 1;\nbra {top};\n{end}:\n");
                }
                Stmt::Break { bit } | Stmt::Continue { bit } => {
                    let place =
                        self.loops.last().map(|(end, next)| if matches!(s, Stmt::Break { .. }) { end } else { next });
                    // Outside of a loop both leave the program.
                    let place = place.cloned().unwrap_or("END".into());
                    self.test(*bit);
                    self.body += &format!("@%p0 bra {place};\n");
                }
                Stmt::Exit { bit } => {
                    self.test(*bit);
                    self.body += "@%p0 bra END;\n";
                }
                Stmt::Sync => self.body += "activemask.b32 %t0;\nbar.warp.sync %t0;\n",
            }
        }
    }
}

fn check(stmts: &[Stmt], seed: u64) {
    let mut t = Text::default();
    t.write(stmts);
    let mut g = Gpu::new(&format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {{\n.reg .pred %p<2>;\n.reg .b32 %v<4>;\n\
         .reg .b32 %t<1>;\n.reg .b32 %c<{}>;\n.reg .b64 %d<2>;\nld.param.u64 %d0, [p];\nmov.u32 %t0, %tid.x;\n\
         mad.wide.u32 %d0, %t0, 16, %d0;\nld.global.v4.b32 {{%v0,%v1,%v2,%v3}}, [%d0];\n{}END:\n\
         st.global.v4.b32 [%d0], {{%v0,%v1,%v2,%v3}};\nret;\n}}\n",
        t.counters.max(1),
        t.body
    ));
    let start: Vec<u32> = (0..4 * 48u64).map(|i| softgpu::exec::launch::mix(i ^ seed << 32) as u32).collect();
    for order in [0, seed, seed + 1] {
        g.machine.settings.seed = order;
        let a = g.upload(&start);
        g.run("k", 1, 48, 0, &[Arg::Ptr(a)]);
        let got = g.read::<u32>(a, start.len());
        for (lane, (from, got)) in start.chunks(4).zip(got.chunks(4)).enumerate() {
            let mut v = [from[0], from[1], from[2], from[3]];
            run(stmts, &mut v);
            assert_eq!(got, v, "thread {lane}, order {order}:\n{}", t.body);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn lanes_take_their_own_ways(stmts in proptest::collection::vec(stmt(), 1..8), seed in 1u64..1000) {
        check(&stmts, seed);
    }
}
