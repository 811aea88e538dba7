//! What has to be taken back. In: a deed each time a step is done. Out: all of them undone in reverse, unless the whole
//! succeeded. Must never: stop at one that can't be undone.

/// Deeds to be undone, the last first. Dropping the list undoes what is on it.
#[derive(Default)]
pub struct Undo {
    deeds: Vec<Box<dyn FnOnce()>>,
}

impl Undo {
    /// Notes how to take back what was just done.
    pub fn push(&mut self, deed: impl FnOnce() + 'static) {
        self.deeds.push(Box::new(deed));
    }

    /// All went well: nothing is taken back.
    pub fn keep(mut self) {
        self.deeds.clear();
    }

    /// Forgets the list without undoing it: in a child process, where the deeds are its parent's.
    pub fn disown(&mut self) {
        self.deeds.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        while let Some(deed) = self.deeds.pop() {
            deed();
        }
    }
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Undo({} deeds)", self.deeds.len())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn the_last_deed_is_undone_first_and_a_kept_list_not_at_all() {
        let log = Rc::new(RefCell::new(Vec::new()));
        let note = |undo: &mut Undo, number: i32| {
            let log = log.clone();
            undo.push(move || log.borrow_mut().push(number));
        };
        let mut undo = Undo::default();
        note(&mut undo, 1);
        note(&mut undo, 2);
        drop(undo);
        let mut kept = Undo::default();
        note(&mut kept, 3);
        kept.keep();
        assert_eq!(*log.borrow(), [2, 1]);
    }
}
