//! Several publish the same name, and others read it.

use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use daxmap::publish::Commit;
use pmem_tests::scratch::Directory;
use pmem_tests::versions;

use crate::{HERE, draft, names, on_each, version};

#[test]
fn readers_see_whole_versions_while_two_publish() {
    const EACH: u64 = 60;
    on_each(|name, directory| {
        let path = directory.join("file");
        draft(&path, 0).commit(Commit::Replace).unwrap();
        let (done, start) = (AtomicBool::new(false), Barrier::new(4));
        std::thread::scope(|scope| {
            let publishers: Vec<_> = [0, 1 << 32]
                .map(|first| {
                    let (path, start) = (&path, &start);
                    scope.spawn(move || {
                        start.wait();
                        for number in first..first + EACH {
                            draft(path, number).commit(Commit::Replace).unwrap();
                        }
                    })
                })
                .into();
            let readers = [(); 2].map(|()| {
                scope.spawn(|| {
                    start.wait();
                    // However late a reader runs: the last version at least.
                    let mut last = false;
                    while !last {
                        last = done.load(Ordering::Acquire);
                        let bytes = fs::read(&path).unwrap();
                        assert!(versions::version_of(&bytes).is_some(), "{name}: not a version");
                    }
                })
            });
            let mut result = Ok(());
            for publisher in publishers {
                result = result.and(publisher.join());
            }
            done.store(true, Ordering::Release);
            result.unwrap();
            for reader in readers {
                reader.join().unwrap();
            }
        });
        assert!(matches!(version(&path), Some(number) if number & 0xffff_ffff == EACH - 1));
        assert_eq!(names(directory), ["file"]);
    });
}

#[test]
fn two_replace_what_is_not_there_yet_or_not_any_more() {
    // Whether the name is there is found out before it is given: the other publisher, or one that
    // removes it, comes in between.
    const ROUNDS: u64 = 400;
    let directory = Directory::new(HERE);
    let path = directory.path().join("file");
    let (start, done) = (Barrier::new(2), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let removing = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let _ = fs::remove_file(&path);
            }
        });
        let publishers: Vec<_> = [1, 2]
            .map(|who| {
                let (path, start) = (&path, &start);
                scope.spawn(move || {
                    let ends = (0..ROUNDS).map(|round| {
                        let draft = draft(path, round * 2 + who);
                        start.wait();
                        draft.commit(Commit::Replace).map(drop)
                    });
                    ends.filter_map(Result::err).map(|error| error.to_string()).collect::<Vec<_>>()
                })
            })
            .into();
        let failed: Vec<_> =
            publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
        done.store(true, Ordering::Release);
        removing.join().unwrap();
        assert_eq!(failed, [[""; 0]; 2]);
    });
    assert!(names(directory.path()).iter().all(|name| name == "file"));
}

#[test]
fn an_exchange_keeps_exactly_the_version_it_replaced() {
    // Two publishers exchange, each under its own kept name: no version disappears unseen.
    const EACH: u64 = 40;
    let directory = Directory::new(HERE);
    let path = directory.path().join("file");
    draft(&path, 0).commit(Commit::Replace).unwrap();
    let mut kept: Vec<u64> = std::thread::scope(|scope| {
        let publishers = [1, 2].map(|who| {
            let (path, directory) = (&path, directory.path());
            scope.spawn(move || {
                let keep = format!("kept by {who}");
                let exchange = |turn| {
                    draft(path, turn * 2 + who).commit(Commit::keep(&keep)).unwrap();
                    version(&directory.join(&keep)).expect("what was kept is a version")
                };
                (0..EACH).map(exchange).collect::<Vec<u64>>()
            })
        });
        publishers.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect()
    });
    kept.push(version(&path).unwrap());
    kept.sort_unstable();
    assert_eq!(kept, (0..=2 * EACH).collect::<Vec<u64>>());
}

#[test]
fn exchanges_that_keep_under_one_name_bring_no_old_version_back() {
    // Two publishers share the kept name. What each has published stays, until the other publishes.
    const EACH: u64 = 150;
    let directory = Directory::new(HERE);
    let path = directory.path().join("file");
    draft(&path, 0).commit(Commit::Replace).unwrap();
    std::thread::scope(|scope| {
        for who in [0, 1] {
            let path = &path;
            scope.spawn(move || {
                let mut others = 0;
                for turn in 1..=EACH {
                    let mine = turn * 2 + who;
                    draft(path, mine).commit(Commit::keep("kept")).unwrap();
                    let found = version(path).expect("there is a version");
                    if found % 2 == who {
                        assert_eq!(found, mine, "an older version is back");
                    } else {
                        assert!(found >= others, "{found} is back, after {others}");
                        others = found;
                    }
                }
            });
        }
    });
    let last = version(&path).unwrap();
    assert!([EACH * 2, EACH * 2 + 1].contains(&last), "{last} is there in the end");
}
