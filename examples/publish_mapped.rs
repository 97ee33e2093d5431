//! x
use daxmap::{Options, Region, publish::Commit};
fn main() {
    let mut a = std::env::args().skip(1);
    let p = a.next().unwrap();
    let n: u64 = a.next().unwrap().parse().unwrap();
    let data = vec![7u8; n as usize];
    for _ in 0..2 {
        let t = std::time::Instant::now();
        let d = Options::new().len(n).draft(&p).unwrap();
        let t1 = t.elapsed();
        d.write(0, &data).unwrap();
        let t2 = t.elapsed();
        let r = d.commit(Commit::Replace).unwrap();
        let t3 = t.elapsed();
        r.close().unwrap();
        drop(r);
        eprintln!(
            "draft {t1:?} write {:?} commit {:?} close {:?}",
            t2 - t1,
            t3 - t2,
            t.elapsed() - t3
        );
    }
}
