//! Choices of a generator, read from a list of numbers: a shorter list, or smaller numbers, make a simpler case, so that
//! shrinking the list shrinks the case.

/// The choices that are left.
pub struct Tape<'a> {
    choices: std::slice::Iter<'a, u32>,
}

impl<'a> Tape<'a> {
    /// All choices.
    pub fn new(choices: &'a [u32]) -> Tape<'a> {
        Tape { choices: choices.iter() }
    }

    /// A number under `n`; 0, the simplest, when no choice is left.
    pub fn pick(&mut self, n: usize) -> usize {
        self.choices.next().map_or(0, |&choice| choice as usize % n.max(1))
    }

    /// True once in `n` times, never when no choice is left.
    pub fn rarely(&mut self, n: usize) -> bool {
        self.pick(n) == n - 1
    }

    /// One of some.
    pub fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.pick(items.len())]
    }

    /// The items in some order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, i - self.pick(i + 1));
        }
    }
}
