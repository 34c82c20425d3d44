//! Deep and long texts: nesting that would overflow a stack is refused with a message, and time grows with the length.

use std::time::{Duration, Instant};

use mngc_dsl::{Diagnostic, Sources, format, parse};

/// Parses and formats on a thread with the stack that test threads have, so that the limit does not hang on the runner.
fn outcome(text: String) -> Result<String, Vec<Diagnostic>> {
    outcome_with_stack(text, 2 << 20)
}

fn outcome_with_stack(text: String, stack: usize) -> Result<String, Vec<Diagnostic>> {
    let run = move || {
        let mut sources = Sources::default();
        let file = sources.add("text.mng", text);
        parse(&sources, file)?;
        format(&sources, file)
    };
    let thread = std::thread::Builder::new().stack_size(stack).spawn(run).expect("a thread");
    thread.join().expect("no panic")
}

fn refused_as(text: String) -> &'static str {
    let errors = outcome(text).expect_err("too deep");
    errors[0].code
}

#[test]
fn deep_nesting_is_refused() {
    const DEEP: usize = 100_000;
    let around = |open: &str, inner: &str, close: &str| {
        format!("fn f(x) {{ y = {}{inner}{} }}\n", open.repeat(DEEP), close.repeat(DEEP))
    };
    assert_eq!(refused_as(around("(", "x", ")")), "too-deep");
    assert_eq!(refused_as(around("[", "x", "]")), "too-deep");
    assert_eq!(refused_as(around("{ a: ", "x", " }")), "too-deep");
    assert_eq!(refused_as(around("f(", "x", ")")), "too-deep");
    assert_eq!(refused_as(around("x[", "x", "]")), "too-deep");
    assert_eq!(refused_as(around("(", "", "")), "too-deep");
    assert_eq!(refused_as(around("if ", "x", "{}")), "too-deep");
    assert_eq!(refused_as(around("if x { ", "x", "}")), "too-deep");
    assert_eq!(refused_as(around("if if x { x } else { ", "x", "}")), "too-deep");
    assert_eq!(refused_as(around("not ", "x", "")), "too-deep");
    assert_eq!(refused_as(around("-", "x", "")), "too-deep");
    assert_eq!(refused_as(around("2 ^ ", "x", "")), "too-deep");
    assert_eq!(refused_as(around("", "x", ".t")), "too-deep");
    assert_eq!(refused_as(around("", "x", "()")), "too-deep");
    assert_eq!(refused_as(around("", "x", "[0]")), "too-deep");
    assert_eq!(refused_as(around("x + ", "x", "")), "too-deep");
    let patterns = format!("fn f(x) {{ let {}a{} = x }}", "[".repeat(DEEP), "]".repeat(DEEP));
    assert_eq!(refused_as(patterns), "too-deep");
    assert_eq!(refused_as("extend \"a\" {".repeat(DEEP)), "too-deep");
    assert_eq!(refused_as(format!("block A {{ param w: a{}[] init 0; fn () {{}} }}", ".a".repeat(DEEP))), "too-deep");
}

#[test]
fn nesting_that_people_write_is_taken() {
    let nested = |depth: usize| format!("const a = {}1{}\n", "(".repeat(depth), ")".repeat(depth));
    assert!(outcome(nested(90)).is_ok());
    let bodies = format!("fn f(x) {{ {} x {} }}\n", "if x { ".repeat(90), "}".repeat(90));
    assert!(outcome(bodies).is_ok());
    let sum = format!("const a = {}1\n", "b * c + ".repeat(100));
    assert!(outcome(sum).is_ok());
}

/// Brackets within brackets at the limit, on a quarter of a thread's usual stack: unoptimised code needs more.
#[test]
fn the_deepest_tree_fits_a_small_stack() {
    for (levels, open, close) in [
        (98, "(", ")"),
        (98, "[", "]"),
        (98, "f(", ")"),
        (98, "x[", "]"),
        (98, "-(", ")"),
        (98, "{ a: ", "}"),
        (98, "if x { ", "}"),
        (80, "a + b * (", ")"),
    ] {
        let text = format!("fn f(x) {{ y = {}x{} }}\n", open.repeat(levels), close.repeat(levels));
        let outcome = outcome_with_stack(text, 512 << 10);
        assert!(outcome.is_ok(), "{open}: {outcome:?}");
    }
}

/// How long a text takes when it is `factor` times as long, and a hundredth of that.
fn times(factor: usize, unit: &str) -> (Duration, Duration) {
    let time = |count: usize| {
        let text = unit.repeat(count);
        let begin = Instant::now();
        if let Err(errors) = outcome(text) {
            assert_ne!(errors[0].code, "too-deep");
        }
        begin.elapsed()
    };
    (time(factor / 100), time(factor))
}

#[test]
fn time_grows_with_the_length() {
    let units = [
        "const a = f(x, [1, 2, 3]).t + b * c // comment\n",
        "// comment\n",
        "/* c */ ",
        "\n",
        ";",
        "const a = 1;",
        "const a = [1,\n  2\n\n]\n",
        "fn f(x) { if x { y = 1 } else { z } }\n",
        "#\n",
        "const a = \"ä\n",
        "const a == 1\n",
    ];
    for unit in units {
        let (short, long) = times(5_000, unit);
        // A quadratic step would make it 10,000 times as slow; a busy machine is granted a lot.
        let limit = short * 1000 + Duration::from_millis(500);
        assert!(long < limit, "{unit:?}: {short:?}, a hundred times as long {long:?}");
    }
    let lists = ["1, ", "a = 1,\n", "x,\n", "[1, 2], ", "// c\n", "(x + y), "];
    for unit in lists {
        let time = |count: usize| {
            let text = format!("const a = f({})\n", unit.repeat(count));
            let begin = Instant::now();
            assert!(outcome(text).is_ok(), "{unit:?}");
            begin.elapsed()
        };
        let (short, long) = (time(50), time(5_000));
        assert!(long < short * 1000 + Duration::from_millis(500), "{unit:?}: {short:?}, {long:?}");
    }
}
