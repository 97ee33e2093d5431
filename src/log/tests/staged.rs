//! What is staged: how much, in which order, and given up.

use super::*;

/// Beside those that are staged there is room for a record as long as the error says, and no longer.
#[test]
fn a_commit_is_filled_to_the_last_byte() {
    for first in [0, 1, 7, 8, 24, 25, 100] {
        let log = options().format(region(4)).unwrap();
        let mut writer = log.writer();
        let most = writer.stage(&vec![1; SEGMENT as usize]).unwrap_err();
        assert!(
            matches!(most.kind(), ErrorKind::TooLarge { max } if *max == log.commit_bytes_max())
        );
        writer.stage(&vec![1; first]).unwrap();
        let error = writer.stage(&vec![2; SEGMENT as usize]).unwrap_err();
        let ErrorKind::TooLarge { max } = *error.kind() else { panic!("{error}") };
        // Four bytes for its length, at a multiple of four.
        let taken = first.next_multiple_of(4) as u64 + 4;
        assert_eq!(max, log.commit_bytes_max() - taken, "{first}");
        assert!(writer.stage(&vec![2; max as usize + 1]).is_err());
        writer.stage(&vec![2; max as usize]).unwrap();
        assert_eq!(writer.commit().unwrap(), Lsn::FIRST..Lsn::new(3));
        assert_eq!(all(&log), [(1, vec![1; first]), (2, vec![2; max as usize])]);
    }
}

/// An append is a commit of all that is staged, be it short or long.
#[test]
fn what_is_staged_goes_before_what_is_appended() {
    for len in [0, 5, 600, 3000] {
        let log = options().format(region(4)).unwrap();
        let mut writer = log.writer();
        writer.stage(b"staged").unwrap();
        assert_eq!(writer.append(&vec![3; len]).unwrap(), Lsn::new(2));
        assert_eq!(writer.staged(), 0);
        assert_eq!(all(&log), [(1, b"staged".to_vec()), (2, vec![3; len])]);
    }
}

#[test]
fn what_was_staged_can_be_given_up() {
    let log = options().format(region(4)).unwrap();
    let mut writer = log.writer();
    writer.stage(b"not").unwrap();
    writer.stage(b"these").unwrap();
    writer.discard();
    assert_eq!(writer.staged(), 0);
    assert!(writer.commit().unwrap().is_empty());
    assert_eq!(writer.append(b"this").unwrap(), Lsn::FIRST);
    assert_eq!(all(&log), [(1, b"this".to_vec())]);
    assert_eq!(u64::from(log.last()), 1);
}
