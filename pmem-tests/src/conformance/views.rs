//! Views without a copy.
#![allow(unsafe_code)]

use super::Verdict;
use super::support::{Bench, PAGE, Refusal, contents, pattern, refused, same};

pub(super) fn views(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(3 * PAGE + 5);
    let mut model = pattern(region.len(), 21);
    region.write(0, &model).expect("the region can be written");
    for (offset, len) in [(0, 1), (1, 8), (63, 130), (PAGE - 1, 2), (17, 2 * PAGE), (5, 0)] {
        // SAFETY: nobody changes the region while the view is used.
        let view = unsafe { region.slice(offset, len) }.expect("a view of a range inside");
        same(view, &model[offset as usize..(offset + len) as usize], "a view");
    }
    // SAFETY: as above.
    let (all, part) = unsafe {
        (region.slice(0, region.len()).expect("a view"), region.slice(100, 10).expect("a view"))
    };
    assert_eq!(all.as_ptr().wrapping_add(100), part.as_ptr(), "the region is one piece of memory");
    assert_eq!(all.as_ptr().align_offset(PAGE as usize), 0, "the base is a page boundary");
    let _ = (all, part);

    if !bench.facts().writable_views {
        // SAFETY: nothing uses a view.
        let view = unsafe { region.slice_mut(0, 8).map(|view| view.len()) };
        refused("slice_mut", view, Refusal::Unsupported);
        return Verdict::Passed;
    }
    {
        // SAFETY: nobody else accesses the region while the view is used.
        let view = unsafe { region.slice_mut(PAGE - 3, 100) }.expect("a view for storing");
        same(view, &model[PAGE as usize - 3..][..100], "a view for storing");
        view.fill(0xC3);
    }
    model[PAGE as usize - 3..][..100].fill(0xC3);
    same(&contents(&*region), &model, "after stores through a view");
    region.persist(PAGE - 3, 100).expect("stores through a view can be persisted");
    if let Some(stored) = bench.stored() {
        same(&stored, &model, "the file after stores through a view");
    }
    Verdict::Passed
}
