use oxigo::{WaitGroup, bounded, go};
#[test]
fn stream() {
    for cap in [0usize, 1, 2, 128] {
        oxigo::run(|| {
            let (tx, rx) = bounded(cap);
            let h = go(move || for i in 0..10000u64 { tx.send(i).unwrap(); });
            let mut n = 0; for v in rx { assert_eq!(v, n); n += 1; }
            assert_eq!(n, 10000);
            h.join().unwrap();
        });
    }
}
#[test]
fn mpmc() {
    for cap in [0usize, 1, 64] {
        let (tx, rx) = bounded(cap);
        let wg = WaitGroup::new();
        for _ in 0..8 { let tx = tx.clone(); wg.go(move || for i in 0..2000u64 { tx.send(i).unwrap(); }); }
        drop(tx);
        let hs: Vec<_> = (0..8).map(|_| { let rx = rx.clone(); go(move || rx.iter().sum::<u64>()) }).collect();
        wg.wait();
        let s: u64 = hs.into_iter().map(|h| h.join().unwrap()).sum();
        assert_eq!(s, 8 * 1999 * 2000 / 2);
    }
}
