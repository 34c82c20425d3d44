//! "Did you mean": the nearest of the names that exist.

/// A help text with the nearest name, if one is near.
pub(crate) fn suggestion<S: AsRef<str>>(name: &str, names: impl Iterator<Item = S>) -> Option<String> {
    // Of one or two letters anything is near: only another case is meant.
    let limit = name.chars().count() / 3;
    let near = |candidate: S| {
        let candidate = candidate.as_ref().to_string();
        let d = distance(&name.to_lowercase(), &candidate.to_lowercase());
        (d <= limit).then_some((d, candidate))
    };
    let best = names.filter_map(near).min_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.cmp(&b.1)))?;
    Some(format!("did you mean `{}`?", best.1))
}

/// Edits (insert, delete, replace, swap of neighbours) between two words (Damerau 1964, optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_near_names_only() {
        let names = ["warmdown", "layers", "window"];
        assert_eq!(suggestion("warmdwon", names.iter()).as_deref(), Some("did you mean `warmdown`?"));
        assert_eq!(suggestion("layer", names.iter()).as_deref(), Some("did you mean `layers`?"));
        assert_eq!(suggestion("batch", names.iter()), None);
        assert_eq!(suggestion("y", ["T", "x"].iter()), None);
        assert_eq!(suggestion("t", ["T", "x"].iter()).as_deref(), Some("did you mean `T`?"));
    }
}
