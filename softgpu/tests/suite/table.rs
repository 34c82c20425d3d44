//! Every form of every instruction is decoded, nothing beside them is, and the documentation lists them.

use softgpu::decode::table::TABLE;
use softgpu::ptx::ast::Ty;
use softgpu::ptx::parse;

/// Every way to write a form.
fn expand(form: &str) -> Vec<String> {
    let Some(open) = form.find('{') else { return vec![form.to_string()] };
    let close = open + form[open..].find('}').expect("a closed choice");
    form[open + 1..close]
        .split(',')
        .flat_map(|c| expand(&format!("{}{c}{}", &form[..open], &form[close + 1..])))
        .collect()
}

fn register(ty: &str) -> String {
    match Ty::of(ty).expect("a type").bytes() {
        1 | 2 => "%h1",
        4 => "%r1",
        8 => "%d1",
        _ => "%q1",
    }
    .to_string()
}

fn operand(token: &str, opcode: &str) -> String {
    let types: Vec<&str> = opcode.split('.').filter(|m| Ty::of(m).is_some()).collect();
    let last = types.last().copied().unwrap_or("b32");
    let n = if opcode.contains(".v4") { 4 } else { 2 };
    let vector = |r: &str, n: usize| format!("{{{}}}", vec![r; n].join(", "));
    if let Some((a, b)) = token.split_once('|') {
        return format!("{}|{}", operand(a, opcode), operand(b, opcode));
    }
    match token {
        "r" => register(last),
        "r:first" => register(types[0]),
        "p" => "%p1".to_string(),
        "[g]" => "[%d2+16]".to_string(),
        "[s]" => "[%r2+16]".to_string(),
        "[P]" => "[param0+8]".to_string(),
        "(v)" => vector(&register(last), n),
        "(q)" => vector("%r1", 4),
        "(d)" => vector("%r1", 2),
        _ => match token.strip_prefix("r:") {
            Some(ty) => register(ty),
            None => token.to_string(),
        },
    }
}

fn instruction(form: &str) -> String {
    let (opcode, rest) = form.split_once(' ').unwrap_or((form, ""));
    let mut operands = Vec::new();
    let mut group: Option<Vec<String>> = None;
    for token in rest.split_whitespace() {
        let whole = matches!(token, "(v)" | "(q)" | "(d)");
        if let Some(t) = token.strip_prefix('(').filter(|_| !whole) {
            group = Some(Vec::new());
            let (t, ends) = t.strip_suffix(')').map_or((t, false), |t| (t, true));
            group.as_mut().expect("just made").push(operand(t, opcode));
            if ends {
                operands.push(format!("{{{}}}", group.take().expect("open").join(", ")));
            }
        } else if let Some(g) = &mut group {
            let (t, ends) = token.strip_suffix(')').map_or((token, false), |t| (t, true));
            g.push(operand(t, opcode));
            if ends {
                operands.push(format!("{{{}}}", group.take().expect("open").join(", ")));
            }
        } else {
            operands.push(operand(token, opcode));
        }
    }
    format!("{opcode} {};", operands.join(", "))
}

fn module(body: &str) -> String {
    format!(
        ".version 8.8\n.target sm_90\n.address_size 64\n.visible .entry k(.param .align 16 .b8 param0[64]) {{\n\
         .reg .pred %p<4>;\n.reg .b16 %h<4>;\n.reg .b32 %r<4>;\n.reg .b64 %d<4>;\n.reg .b128 %q<4>;\nL:\n{body}\nT: .branchtargets L;\nret;\n}}\n"
    )
}

#[test]
fn the_table_is_sorted() {
    assert!(TABLE.windows(2).all(|w| w[0].name < w[1].name));
}

#[test]
fn every_form_decodes_and_none_with_a_modifier_more() {
    let mut count = 0;
    for e in TABLE {
        for form in e.forms.iter().flat_map(|f| expand(f)) {
            let text = instruction(&form);
            assert_eq!(text.split(['.', ' ', ';']).next(), Some(e.name), "{form}");
            let decode = |t: &str| parse(&module(t)).and_then(|m| softgpu::decode::decode(&m));
            if let Err(err) = decode(&text) {
                panic!("{text}: {err}");
            }
            let more = text.replacen(' ', ".frobnicate ", 1);
            let err = decode(&more).err().unwrap_or_else(|| panic!("{more} was accepted"));
            assert!(err.kernel.as_deref() == Some("k") && err.line == 11, "{more}: {err}");
            count += 1;
        }
    }
    assert!(count > 1500, "{count}");
}
