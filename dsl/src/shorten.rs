//! Long lines cut to what a message speaks of: a line of a hundred thousand characters would hide the message.

/// Lines of up to so many characters are shown whole.
const LONG: usize = 240;
/// Characters that are kept on each side of a place where a label begins or ends.
const AROUND: usize = 60;
/// Characters that are kept of a line in which no label begins or ends, and of each end of a long text.
const START: usize = 80;
/// Stands for what is left out.
const CUT: char = '…';

/// A text with its long lines cut.
pub(crate) struct Shortened {
    /// The text.
    pub text: String,
    /// What was left out, as ranges of characters of the whole text, in order; one [`CUT`] stands for each.
    left_out: Vec<(usize, usize)>,
}

impl Shortened {
    /// Cuts lines, each to the surroundings of the `edges` in it: positions in characters.
    pub fn new(text: &str, edges: &[usize]) -> Shortened {
        let mut out = Shortened { text: String::with_capacity(text.len().min(1 << 16)), left_out: Vec::new() };
        let mut line_start = 0;
        for line in text.split_inclusive('\n') {
            let length = line.chars().count();
            if length <= LONG {
                out.text.push_str(line);
            } else {
                let here = edges.iter().filter(|&&e| (line_start..=line_start + length).contains(&e));
                let mut kept: Vec<(usize, usize)> =
                    here.map(|&e| ((e - line_start).saturating_sub(AROUND), e - line_start + AROUND)).collect();
                if kept.is_empty() {
                    kept.push((0, START));
                }
                // The line end is no part of what is left out.
                kept.push((length - usize::from(line.ends_with('\n')), length));
                kept.sort_unstable();
                out.cut(line, line_start, &kept);
            }
            line_start += length;
        }
        out
    }

    /// Adds the parts of a line that are kept, ranges of its characters in order of their starts.
    fn cut(&mut self, line: &str, line_start: usize, kept: &[(usize, usize)]) {
        let mut chars = line.chars();
        let mut at = 0;
        for &(start, end) in kept {
            // One character is no longer than what would stand for it.
            if start > at + 1 {
                self.left_out.push((line_start + at, line_start + start));
                self.text.push(CUT);
                chars.by_ref().take(start - at).for_each(drop);
                at = start;
            }
            let more = end.saturating_sub(at);
            self.text.extend(chars.by_ref().take(more));
            at += more;
        }
    }

    /// Where a character of the whole text, by position, stands in the cut one.
    pub fn position(&self, whole: usize) -> usize {
        let before = self.left_out.iter().take_while(|(start, _)| *start <= whole);
        before.fold(whole, |at, (start, end)| at - (whole.min(end - 1) - start))
    }
}

/// A message of reasonable length: of a longer one its two ends.
pub(crate) fn brief(text: String) -> String {
    let length = text.chars().count();
    if length <= 10 * START {
        return text;
    }
    let end = text.chars().skip(length - START);
    text.chars().take(START).chain([CUT]).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What stands around an edge is found again where `position` says, and nothing is out of order.
        #[test]
        fn edges_keep_their_surroundings(
            lengths in prop::collection::vec(prop_oneof![0usize..20, 200usize..3000], 1..5),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let mut text = String::new();
            for (i, length) in lengths.iter().enumerate() {
                text.extend((0..*length).map(|k| char::from_u32(0x4e00 + (i * 3001 + k) as u32).expect("a character")));
                text.push('\n');
            }
            let whole: Vec<char> = text.chars().collect();
            let edges: Vec<usize> = picks.iter().map(|pick| pick.index(whole.len() + 1)).collect();
            let short = Shortened::new(&text, &edges);
            let cut: Vec<char> = short.text.chars().collect();
            for &edge in &edges {
                for at in edge.saturating_sub(AROUND / 2)..(edge + AROUND / 2).min(whole.len()) {
                    let same_line = !whole[at.min(edge)..at.max(edge)].contains(&'\n');
                    prop_assert!(!same_line || cut[short.position(at)] == whole[at]);
                }
            }
            prop_assert!((1..=whole.len()).all(|at| short.position(at - 1) <= short.position(at)));
            prop_assert_eq!(short.text.matches('\n').count(), lengths.len());
            let most = LONG.max((2 * AROUND + 1) * (edges.len() + 1) + 2);
            prop_assert!(short.text.lines().all(|line| line.chars().count() <= most));
            prop_assert_eq!(short.position(whole.len()), cut.len());
        }
    }
}
