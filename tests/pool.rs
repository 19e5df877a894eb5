//! A pool of goroutines keeps all workers busy. Alone in its file: other tests would take the cores that it counts on.

mod common;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use common::{compute, rt};
use oxigo::{go, unbuffered};

/// For how long the threads of this process have waited for a core, if the system tells.
fn waited_for_cores() -> Duration {
    let waited = |stat: String| stat.split_whitespace().nth(1)?.parse::<u64>().ok();
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let all: u64 = threads.filter_map(|thread| waited(fs::read_to_string(thread.path().join("schedstat")).ok()?)).sum();
    Duration::from_nanos(all)
}

/// What share of two workers a pool keeps busy whose jobs come through a channel without room, and so do their results; and for what share of the time
/// threads waited for a core meanwhile.
fn busy_share(parties: usize) -> (f64, f64) {
    const JOB: Duration = Duration::from_micros(100);
    const JOBS: u32 = 200;
    rt(2, move || {
        let ((jobs, taken), (done, results)) = (unbuffered(), unbuffered());
        for _ in 0..parties {
            let (taken, done) = (taken.clone(), done.clone());
            go(move || {
                for job in taken {
                    compute(JOB);
                    done.send(job).unwrap();
                }
            });
        }
        drop((taken, done));
        let (waited, begin) = (waited_for_cores(), Instant::now());
        go(move || (0..JOBS).for_each(|job| jobs.send(job).unwrap()));
        assert_eq!(results.iter().sum::<u32>(), JOBS * (JOBS - 1) / 2);
        let took = begin.elapsed();
        let waited = waited_for_cores().saturating_sub(waited);
        ((JOB * JOBS).div_duration_f64(2 * took), waited.div_duration_f64(took))
    })
}

/// B5 and B6: a pool is shared, and whoever feeds it and whoever collects its results live on one of the workers, beside one of those that compute.
/// They run as soon as they are ready, and the other worker does not wait for them.
#[test]
fn a_pool_without_room_keeps_both_workers_busy() {
    if thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    for parties in 2..5 {
        // Where there were no two cores a round tells nothing, and a few of them do not.
        let rounds: Vec<_> = (0..30).map(|_| busy_share(parties)).filter(|(_, waited)| *waited < 0.05).collect();
        let good = rounds.iter().filter(|(share, _)| *share > 0.85).count();
        // With three, whoever is alone on its worker waits for the half of a turn of one of the two others.
        let enough = if parties == 2 { rounds.len() / 2 } else { 1 };
        assert!(rounds.len() < 10 || good >= enough, "{parties} goroutines: {rounds:.2?}");
    }
}
