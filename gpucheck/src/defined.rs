//! Of which kernels PTX defines every bit.
//!
//! Not of those with an approximate instruction, whose errors the ISA only bounds; nor of those with tensor cores, whose
//! order of sums it leaves open; nor of those that multiply and add floats without naming a rounding: ptxas may make one
//! operation with one rounding of such a pair ("mul/add sequences with no rounding modifiers may be optimized to use
//! fused-multiply-add instructions").

/// Whether every device gives the same bits for a kernel.
pub fn is_defined(ptx: &str) -> bool {
    let (mut multiplies, mut adds) = (false, false);
    for opcode in ptx.lines().filter_map(opcode) {
        let parts: Vec<&str> = opcode.split('.').collect();
        let has = |name: &str| parts.contains(&name);
        if has("approx") || has("full") || ["mma", "wmma", "wgmma"].contains(&parts[0]) {
            return false;
        }
        // Sums of atomics come in the order of threads; that of integers does not matter.
        let is_float = parts.last().is_some_and(|ty| ty.starts_with('f') || ty.starts_with("bf"));
        if is_float && ["atom", "red"].contains(&parts[0]) {
            return false;
        }
        let is_rounded = ["rn", "rz", "rm", "rp"].iter().any(|rounding| has(rounding));
        if is_float && !is_rounded {
            multiplies |= parts[0] == "mul";
            adds |= parts[0] == "add" || parts[0] == "sub";
        }
    }
    !(multiplies && adds)
}

/// The instruction of a line, if it has one.
fn opcode(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let first = words.next()?;
    let word = if first.starts_with('@') { words.next()? } else { first };
    let word = word.trim_end_matches(';');
    word.starts_with(|c: char| c.is_ascii_lowercase()).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::is_defined;

    #[test]
    fn moves_integers_and_explicit_roundings_are_defined() {
        for ptx in [
            "mov.u32 %r1, %tid.x;\nmul.lo.s32 %r2, %r1, 3;\nadd.s32 %r3, %r2, 1;\nst.global.f32 [%rd1], %f1;",
            "fma.rn.f32 %f1, %f2, %f3, %f4;\nadd.f32 %f1, %f1, %f2;\ndiv.rn.f32 %f1, %f1, %f2;\nret;",
            "mul.rn.f32 %f1, %f2, %f3;\nadd.rn.f32 %f1, %f1, %f2;",
            "mul.f32 %f1, %f2, %f3;\n@%p1 bra $L;\natom.global.add.u32 %r1, [%rd1], 1;",
        ] {
            assert!(is_defined(ptx), "{ptx}");
        }
    }

    #[test]
    fn approximations_tensor_cores_and_contractions_are_not() {
        for ptx in [
            "\tex2.approx.ftz.f32 \t%f1, %f2;",
            "@%p1 rcp.approx.ftz.f32 %f1, %f2;",
            "div.full.f32 %f1, %f2, %f3;",
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};",
            "mul.f32 %f1, %f2, %f3;\nsub.f32 %f1, %f1, %f2;",
            "add.f64 %d1, %d1, %d2;\nmul.f64 %d1, %d2, %d3;",
            "red.global.add.f32 [%rd1], %f1;",
        ] {
            assert!(!is_defined(ptx), "{ptx}");
        }
    }
}
