//! What all the rivals share: options, timing, checks, and what the system says of a process.
//!
//! Every program here is called `PROGRAM WORKLOAD --n N [--workers W] [--parties P]`, does the workload once small to warm up and then
//! in earnest, checks its result, and prints lines of `row runtime value`. Values are nanoseconds unless the row says otherwise; `run`
//! knows each row's unit.

pub mod blocking;

use std::{
    collections::HashMap,
    env, fs,
    hint::black_box,
    io::{self, Read},
    process, thread,
    time::{Duration, Instant},
};

/// How many goroutines the workloads `unequal` and `bursts` have.
pub const UNEQUAL: u64 = 64;
/// How many times 100 µs they compute for each of `n`, and so many jobs come in `arrivals`, each of which does it in so many steps.
pub const BURSTS: u64 = UNEQUAL * (UNEQUAL + 1) / 2;
pub const STEPS: u64 = 32;
/// Jobs of `limited` that may be alive at once, and how many of them compute for as long as one burst.
pub const LIMIT: u64 = 4;
pub const LIMITED: u64 = 5;
/// Stages of the pipeline `stages`, each of which computes for one such step.
pub const STAGES: u64 = 8;
/// Goroutines of the workload `pool`, each of whose jobs takes 100 µs.
pub const POOL: u64 = 4;
/// Actors and clients of the workload `actors`, and how many of its requests compute for as long as one burst.
pub const ACTORS: (u64, u64, u64) = (16, 64, 20);
/// One of so many accesses of the workload `readers` writes, to a map of so many keys.
pub const WRITES: (u64, u64) = (100, 1000);
/// Two of so many nodes before it are those that each node of the workload `graph` waits for.
pub const NEAR: u64 = 1000;
/// Servers and clients of the workload `rpc`.
pub const RPC: (u64, u64) = (8, 64);
/// Goroutines of the workloads `mutex` and `yield`.
pub const CROWD: u64 = 100;
/// Bytes that a handler of the echo server reads at once.
pub const ECHO_BUFFER: usize = 1024;
/// How long the workload `hog` computes, and pauses in between.
pub const HOG: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(300));

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    runtime: &'static str,
    pub workload: String,
    pub n: u64,
    pub workers: usize,
    /// Senders, and as many receivers, of `mpmc`.
    pub parties: u64,
    /// Once and small: a check, not a measurement.
    quick: bool,
}

impl Options {
    /// Reads the command line of the program that stands for `runtime`; ends the process when it cannot be understood.
    pub fn read(runtime: &'static str) -> Self {
        let usage = || -> ! {
            eprintln!("usage: {runtime} WORKLOAD --n N [--workers W] [--parties P] [--quick]");
            process::exit(64)
        };
        let mut arguments = env::args().skip(1);
        let Some(workload) = arguments.next() else { usage() };
        let mut options = Self { runtime, workload, n: 1, workers: cores(), parties: 8, quick: false };
        while let Some(name) = arguments.next() {
            if name == "--quick" {
                options.quick = true;
                continue;
            }
            let Some(value) = arguments.next().and_then(|value| value.parse::<u64>().ok()) else { usage() };
            match name.as_str() {
                "--n" => options.n = value,
                "--workers" => options.workers = value as usize,
                "--parties" => options.parties = value,
                _ => usage(),
            }
        }
        options
    }

    /// Prints one result.
    pub fn report(&self, row: &str, value: f64) {
        println!("{row} {} {value:.3}", self.runtime);
    }

    /// Measures `work(n)`, which does `n` units: nanoseconds for each.
    pub fn each(&self, work: impl Fn(u64)) {
        let time = self.time(work);
        self.report(&self.workload, time / self.n as f64);
    }

    /// Measures `work(n)`: nanoseconds in all.
    pub fn whole(&self, work: impl Fn(u64)) {
        let time = self.time(work);
        self.report(&self.workload, time);
    }

    /// As [`whole`](Self::whole), cold: what costs is the first touch.
    pub fn whole_cold(&self, work: impl Fn(u64)) {
        let start = Instant::now();
        work(self.n);
        self.report(&self.workload, start.elapsed().as_nanos() as f64);
    }

    fn time(&self, work: impl Fn(u64)) -> f64 {
        if !self.quick {
            work(smaller(self.n));
        }
        // Small sizes are repeated until the clock can tell.
        let start = Instant::now();
        let mut times = 0_u32;
        loop {
            work(self.n);
            times += 1;
            let elapsed = start.elapsed();
            if self.quick || elapsed >= Duration::from_millis(100) {
                return elapsed.as_nanos() as f64 / f64::from(times);
            }
        }
    }

    /// Measures `work(n, iterations)`: what share of the machine's computing it keeps busy when it does `n` times [`BURSTS`] bursts of
    /// [`compute`] with `iterations` each, about 100 µs.
    pub fn share(&self, work: impl Fn(u64, u64)) {
        let rate = machine_rate();
        let iterations = (rate / cores() as f64 * 100e-6) as u64;
        let start = Instant::now();
        work(self.n, iterations);
        let elapsed = start.elapsed().as_secs_f64();
        // What else runs can only make a calibration worse.
        let rate = rate.max(machine_rate());
        let done = self.n * BURSTS * iterations;
        self.report(&self.workload, done as f64 / elapsed / rate);
    }

    /// Ends the process: there is no such workload here.
    pub fn none(&self) -> ! {
        eprintln!("{} has no workload {}", self.runtime, self.workload);
        process::exit(69)
    }
}

/// A tenth of `n`, kept a power of ten when `n` is one, for the warm-up.
fn smaller(n: u64) -> u64 {
    (n / 10).max(1)
}

pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// A value for the rest of the process, so that no runtime pays for counting its references.
pub fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// A well mixed number for `n`.
pub fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The map of the workload `readers`.
pub fn keys() -> HashMap<u64, u64> {
    (0..WRITES.1).map(|key| (key, 0)).collect()
}

/// The key of an access, and whether that writes.
pub fn access(party: u64, k: u64) -> (u64, bool) {
    let (one_of, keys) = WRITES;
    (mix(party << 32 | k) % keys, k.is_multiple_of(one_of))
}

/// The nodes that one of the workload `graph` waits for.
pub fn before(node: u64) -> impl Iterator<Item = usize> {
    (0..node.min(2)).map(move |k| (node - 1 - mix(2 * node + k) % node.min(NEAR)) as usize)
}

/// The random sleep of the `n`th sleeper, under a second.
pub fn nap(n: u64) -> Duration {
    Duration::from_nanos(mix(n) % 1_000_000_000)
}

/// When the `n`th timer that is not going to fire would: in one to two hours.
pub fn far(n: u64) -> Duration {
    Duration::from_secs(3600) + Duration::from_nanos(mix(n) % 3_600_000_000_000)
}

/// How many other timers are pending in the workload `timer`.
pub const PENDING: [u64; 3] = [0, 100_000, 1_000_000];

/// Computes for `iterations` steps.
pub fn compute(iterations: u64) {
    let mut x = black_box(88_172_645_463_325_252_u64);
    for _ in 0..iterations {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    black_box(x);
}

/// Computes for `time`.
pub fn compute_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        compute(1000);
    }
}

/// Iterations of [`compute`] a second, with all cores busy.
fn machine_rate() -> f64 {
    const STEP: u64 = 100_000;
    let time = Duration::from_millis(100);
    let threads: Vec<_> = (0..cores())
        .map(|_| {
            thread::spawn(move || {
                compute(STEP);
                let start = Instant::now();
                let mut done = 0;
                while start.elapsed() < time {
                    compute(STEP);
                    done += STEP;
                }
                done as f64 / start.elapsed().as_secs_f64()
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("only computes")).sum()
}

/// The `n`th prime, counted from one, by trial division.
pub fn nth_prime(n: u64) -> u64 {
    let mut primes: Vec<u64> = Vec::new();
    let mut candidate = 2;
    while (primes.len() as u64) < n {
        if primes.iter().take_while(|&p| p * p <= candidate).all(|p| candidate % p != 0) {
            primes.push(candidate);
        }
        candidate += 1;
    }
    primes.pop().expect("n is not zero")
}

/// Resident memory and page tables of this process, in bytes.
pub fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("a field of status");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
    };
    (field("VmRSS:") + field("VmPTE:")) * 1024
}

/// CPU time of each thread of process `pid`, in nanoseconds.
pub fn cpu_of_threads(pid: u32) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let name = task.file_name().to_string_lossy().into_owned();
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
        if let Some(time) = text.split_whitespace().next().and_then(|time| time.parse().ok()) {
            found.push((name, time));
        }
    }
    found
}

/// As many descriptors as the system lets this process have.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Says where an echo server listens, and ends the process when standard input does.
pub fn serve_until_eof(address: std::net::SocketAddr) -> ! {
    println!("{address}");
    let mut rest = Vec::new();
    let _ = io::stdin().read_to_end(&mut rest);
    process::exit(0)
}

/// Counts durations in steps of about one in sixty-four.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; 64 * 64], total: 0 }
    }
}

impl Histogram {
    pub fn add(&mut self, nanoseconds: u64) {
        // Below 64 each has its own count; above, each octave has 64: the leading one is known and left out.
        let index = match nanoseconds.checked_ilog2().unwrap_or(0).saturating_sub(5) as usize {
            0 => nanoseconds as usize,
            octave => octave * 64 + ((nanoseconds >> (octave - 1)) as usize & 63),
        };
        self.counts[index] += 1;
        self.total += 1;
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// The duration that `share` of all do not exceed, in nanoseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                let (octave, step) = (index / 64, (index % 64) as f64);
                return if octave == 0 { step } else { (64.5 + step) * ((1_u64 << (octave - 1)) as f64) };
            }
        }
        0.0
    }
}
