//! What has to be taken back. In: a deed each time a step is done. Out: all of them undone in reverse, unless the whole
//! succeeded; after a panic too. Must never: stop at one that can't be undone.

use std::cell::RefCell;
use std::rc::Rc;
use std::rc::Weak;

type Deeds = RefCell<Vec<Box<dyn FnOnce()>>>;

thread_local! {
    /// The lists of this thread, for the panic hook. The runtime has one thread.
    static LISTS: RefCell<Vec<Weak<Deeds>>> = const { RefCell::new(Vec::new()) };
}

/// Deeds to be undone, the last first. Dropping the list undoes what is on it.
pub struct Undo {
    deeds: Rc<Deeds>,
}

impl Default for Undo {
    fn default() -> Undo {
        let deeds = Rc::<Deeds>::default();
        LISTS.with_borrow_mut(|lists| lists.push(Rc::downgrade(&deeds)));
        Undo { deeds }
    }
}

impl Undo {
    /// Notes how to take back what was just done.
    pub fn push(&mut self, deed: impl FnOnce() + 'static) {
        self.deeds.borrow_mut().push(Box::new(deed));
    }

    /// All went well: nothing is taken back.
    pub fn keep(self) {
        self.deeds.borrow_mut().clear();
    }

    /// Forgets the list without undoing it: in a child process, where the deeds are its parent's.
    pub fn disown(&mut self) {
        self.deeds.borrow_mut().clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        undo_all(&self.deeds);
    }
}

/// Undoes every list of this thread: what the panic hook does before the process ends, since nothing is dropped then.
pub fn everything() {
    let lists = LISTS.try_with(|lists| lists.try_borrow().map(|lists| lists.clone()));
    for list in lists.into_iter().flatten().flatten().rev() {
        list.upgrade().iter().for_each(|deeds| undo_all(deeds));
    }
}

/// The list is not borrowed while a deed is done: a deed that panics finds the rest still on it.
fn undo_all(deeds: &Deeds) {
    let last = || deeds.try_borrow_mut().ok()?.pop();
    while let Some(deed) = last() {
        deed();
    }
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Undo({} deeds)", self.deeds.borrow().len())
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
