use super::{FIRST, PageOptions};
use crate::{Options, Region};

/// With a key that is drawn again, a record of what was there before would be laid over a new page.
#[test]
fn a_record_of_what_was_there_before_is_not_completed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    let options = PageOptions::new().seed(5).kernel(false);
    Options::new().len(FIRST + (64 << 10)).create(&path).unwrap().close().unwrap();
    let format = || options.format(Options::new().open(&path).unwrap()).unwrap();
    for writes in 1..=2 {
        let pages = format();
        for byte in 1..=writes {
            pages.write_atomic(0, &[byte; 4096]).unwrap();
        }
        pages.abandon();
        format().abandon();
        let pages = options.open(&path).unwrap();
        assert_eq!(pages.recovery().completed, 0, "{writes}");
        pages.abandon();
    }
}
